"""A folder of phantoms: its index is written first, what is there stays, and nothing else is written over."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json


def open_cohort(index: Path, content: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Prepare a folder for the cohort that `content` describes; cases of another one are removed.

    Args:
        index: The cohort's JSON file, which marks its folder as one of phantoms.
        content: What the index shall hold; under "phantoms", all that the voxels depend on.
        files: Volumes that lie in the folder where cases go.

    Raises:
        InputError: the folder holds other data, or cannot be written.
    """
    known = read_json(index) if index.exists() else {}
    if (index.exists() or files) and "phantoms" not in known:
        raise InputError(
            "holds a dataset that is not of phantoms", where=str(index.parent), hint="Choose an empty folder."
        )
    if known and known["phantoms"] != content["phantoms"]:
        for path in files:
            path.unlink()
    if known != content:
        write_json(index, content)
