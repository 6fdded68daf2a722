"""The base of all records that live in files, and YAML as its writers mean it."""

import re
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from medunet.base.errors import InputError
from medunet.base.files import dump_json, read_json, write_text


class Stored(BaseModel):
    """A record that lives in a file: frozen, unknown keys refused, errors in one message."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """Check plain data (from JSON or YAML) and return the record.

        Raises:
            InputError: names `where`, and every key at fault with what is wrong, in one message.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            rows = [
                f"{'.'.join(str(part) for part in fault['loc']) or 'value'}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            ]
            raise InputError("; ".join(rows), where=where, hint="Correct these keys.") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON or YAML file, by its ending."""
        if path.suffix in (".yaml", ".yml"):
            return cls.parse(read_yaml(path), str(path))
        return cls.parse(read_json(path), str(path))

    def plain(self) -> dict[str, Any]:
        """Return the record as data that JSON can hold."""
        return self.model_dump(mode="json", by_alias=True)

    def write(self, path: Path) -> None:
        """Write the record as JSON, whole or not at all."""
        write_text(path, dump_json(self.plain()) + "\n")


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the safe loader, numbers such as 1e-3 read as numbers."""
    try:
        return number_aware(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), hint="Check the path.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that there is not
        raise InputError(f"not valid YAML ({error})", where=str(path), hint="Correct the file.") from error
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from error


def number_aware(value: Any) -> Any:
    """Turn YAML 1.1's strings like '1e-3' into floats, which is what their writer meant."""
    if isinstance(value, dict):
        return {key: number_aware(item) for key, item in value.items()}
    if isinstance(value, list):
        return [number_aware(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value
