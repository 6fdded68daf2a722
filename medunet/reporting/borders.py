"""Masks that reach the border of a scan, where the structure may be cut off."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medunet.reporting.scans import Scan

_FACES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


def find_cut(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the targets whose mask reaches a face of the scan, with the masks and faces; none in 2D pictures.

    Faces along an axis of a single slice do not count.
    """
    if scan.unit == "px":
        return {}
    masks = {"reference": scan.reference, "prediction": scan.prediction}
    faces = {owner: _values_at_faces(labels) for owner, labels in masks.items() if labels is not None}
    cut = {}
    for name, values in targets.items():
        texts = {}
        for owner, at in faces.items():
            touched = [face for face, present in at.items() if not present.isdisjoint(values)]
            if touched:
                texts[owner] = ", ".join(touched)
        if len(texts) == 2 and len(set(texts.values())) == 1:
            cut[name] = f"both masks: {texts['reference']}"
        elif texts:
            cut[name] = "; ".join(f"{owner}: {text}" for owner, text in texts.items())
    return cut


def _values_at_faces(labels: NDArray) -> dict[str, set[int]]:
    """Return the values in the outermost slices of a label map `(I, J, K)` in RAS+ axis order."""
    return {
        face: set(np.unique(labels[(slice(None),) * axis + (index,)]).tolist())
        for axis, names in enumerate(_FACES)
        if labels.shape[axis] > 1
        for index, face in zip((0, -1), names, strict=True)
    }
