"""ZIP archives that are written whole and always alike: sorted names, one time, no owner."""

import shutil
import zipfile
from pathlib import Path

from medunet.base.files import atomic_write

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP can hold
_MODE = 0o100644 << 16  # a plain file
_UNIX = 3


def write_zip(path: Path, folder: Path) -> None:
    """Write all files below a folder into a ZIP, with their paths below it; the same files give the same bytes.

    They are stored as they are, since compressed bytes differ from one zlib to another and weights hardly shrink.

    Raises:
        InputError: the ZIP cannot be written.
    """
    names = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    with atomic_write(path, suffix=".zip") as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for name, file in sorted(names.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            entry.file_size = file.stat().st_size  # so that large files are written as ZIP64
            with file.open("rb") as source, packed.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
