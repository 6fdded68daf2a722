"""The modality that a file's sidecar tells: the .json that dcm2niix and BIDS put beside a converted DICOM series."""

import json
from pathlib import Path
from typing import Literal

from medunet.imaging.formats import strip_ending

_MODALITIES: dict[str, Literal["CT", "MR", "PET"]] = {
    "CT": "CT",
    "MR": "MR",
    "PT": "PET",
}  # DICOM's (0008,0060)
_LARGEST_BYTES = 10_000_000


def read_modality(image: Path) -> Literal["CT", "MR", "PET"] | None:
    """Return the modality of an image by its sidecar; None if there is none, or it tells no modality that we know.

    Nothing else of the sidecar is read, since it may identify the patient.
    """
    path = image.with_name(f"{strip_ending(image.name)}.json")
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return None
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # it is no sidecar
        return None
    told = content.get("Modality") if isinstance(content, dict) else None
    return _MODALITIES.get(told) if isinstance(told, str) else None
