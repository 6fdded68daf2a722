"""Base class of the typed records that are stored as JSON or YAML, and a YAML reader."""

import re
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medunet.base.errors import InputError
from medunet.base.files import dump_json, read_json, write_text


class Record(BaseModel):
    """A typed record that is stored in a file: immutable, unknown keys refused, all errors in one message."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """Validate plain data from JSON or YAML and return the record.

        Raises:
            InputError: The data are not valid. The message names `where` and every wrong key with its reason.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            found = error.errors(include_url=False)
            keys = [".".join(map(str, fault["loc"])) or "value" for fault in found]
            reasons = [fault["msg"].removeprefix("Value error, ") for fault in found]
            rows = [f"{key}: {reason}" for key, reason in zip(keys, reasons, strict=True)]
            raise InputError("; ".join(rows), where=where, hint="Correct these keys.") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from a JSON or YAML file; the file's ending decides the format."""
        if path.suffix in (".yaml", ".yml"):
            return cls.parse(read_yaml(path), str(path))
        return cls.parse(read_json(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dictionary that can be written as JSON."""
        return self.model_dump(mode="json", by_alias=True)

    def to_text(self) -> str:
        """Return the content of the record's JSON file."""
        return dump_json(self.to_dict()) + "\n"

    def write(self, path: Path) -> None:
        """Write the record to a JSON file atomically."""
        write_text(path, self.to_text())


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, but a key that occurs twice is an error; PyYAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"found the key {twice[0]!r} twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the safe loader; values such as 1e-3 are read as numbers.

    Raises:
        InputError: The file is missing, cannot be read or is not valid YAML, or a mapping has a key twice.
    """
    try:
        return convert_numbers(yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader))
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), hint="Check the path.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise InputError(f"not valid YAML ({error})", where=str(path), hint="Correct the file.") from error
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from error


def convert_numbers(value: Any) -> Any:
    """Convert strings such as '1e-3' to floats in nested lists and dictionaries; YAML 1.1 reads them as text."""
    if isinstance(value, dict):
        return {key: convert_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [convert_numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value
