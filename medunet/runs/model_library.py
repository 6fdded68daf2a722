"""The models that can be named: those in the user's folder and those that medunet ships; adding one."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import DataError, InputError
from medunet.base.files import atomic_write, hash_file
from medunet.base.user_folders import data_folder
from medunet.records.package import Package
from medunet.runs.packages import find_package, model_folders, open_package, read_package


@dataclass(frozen=True)
class NamedModel:
    """A packaged model that can be given by its name."""

    name: str  # that of its file
    path: Path
    package: Package | None  # None: it cannot be read
    trouble: str = ""  # why it cannot be read, or is hidden by another of its name

    @property
    def num_bytes(self) -> int:
        return self.path.stat().st_size


def list_models(folders: Sequence[Path] | None = None) -> list[NamedModel]:
    """Return the models in the folders, by default `model_folders()`, sorted by name; broken ones have a trouble."""
    found: dict[str, NamedModel] = {}
    hidden = []
    for folder in model_folders() if folders is None else folders:
        for path in sorted(folder.glob("*.zip")):
            name, package, trouble = path.stem, None, ""
            try:
                package = read_package(path)
            except (DataError, OSError) as error:
                trouble = str(error)
            if name in found:
                hidden.append(NamedModel(name, path, package, f"hidden by {found[name].path}"))
            else:
                found[name] = NamedModel(name, path, package, trouble)
    return sorted([*found.values(), *hidden], key=lambda each: each.name)


def add_model(path: Path, *, overwrite: bool = False) -> NamedModel:
    """Copy a package into the user's folder, after verifying it; its name is that in its package.json.

    Raises:
        InputError: it is no file, or another model has its name and `overwrite` is not set.
        DataError: the package is refused, see `find_models`.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path), hint="Give a package (.zip).")
    own = data_folder("models")
    if own is None:
        raise InputError("there is no home folder", where="--add", hint="Set XDG_DATA_HOME to a folder.")
    _, package = open_package(path)
    target = own / f"{package.name}.zip"
    if (other := find_package(Path(package.name))) is not None:
        same = hash_file(other) == hash_file(path)
        if not same and not overwrite:
            raise InputError(
                f"another model is named '{package.name}'",
                where=str(other),
                hint="Give --overwrite to use this one instead.",
            )
        if same:
            return NamedModel(package.name, other, package)
    with atomic_write(target, suffix=".zip") as temporary:
        shutil.copyfile(path, temporary)
    return NamedModel(package.name, target, package)
