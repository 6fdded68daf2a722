"""Output folder of a phantom cohort: writes its index and protects other data from being overwritten."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json


def prepare_cohort(index: Path, content: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Prepare a folder for a cohort of phantoms: write its index and remove the cases of another cohort.

    Args:
        index: The cohort's JSON file, which marks the folder as one of phantoms.
        content: The content of the index; the key "phantoms" contains everything that the voxels depend on.
        files: Existing volumes in the folder.

    Raises:
        InputError: The folder contains other data, or is not writable.
    """
    known = read_json(index) if index.exists() else {}
    if (index.exists() or files) and "phantoms" not in known:
        raise InputError(
            "contains a dataset other than phantoms", where=str(index.parent), hint="Choose an empty folder."
        )
    if known and known["phantoms"] != content["phantoms"]:
        for path in files:
            path.unlink()
    if known != content:
        write_json(index, content)
