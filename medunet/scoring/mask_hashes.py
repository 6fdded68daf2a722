"""Hashes of the masks that were scored, by which a report finds masks that were replaced since."""

import hashlib
from contextlib import suppress
from pathlib import Path

from medunet.base.files import hash_file
from medunet.imaging.formats import files_of

NUM_DIGITS = 16  # of the 64; enough to tell files apart


def hash_mask(path: Path | None) -> str:
    """Return the first digits of the SHA-256 of a mask's file, with the files that hold its voxels; "" without one.

    The hash is of the bytes: a mask that is saved again may have another one although its voxels are the same.
    """
    if path is None:
        return ""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else files_of(path)
    hashes = []
    for each in files:
        with suppress(OSError):  # it does not exist or is not accessible
            hashes.append(hash_file(each))
    if not hashes:
        return ""
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return whole[:NUM_DIGITS]
