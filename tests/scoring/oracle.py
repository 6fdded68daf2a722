"""The area convention written out plainly: what google-deepmind/surface-distance (repository head) defines.

Slow and independent of medunet: a code for every 2×2×2 cell by correlation, the distance of every cell by SciPy's
distance transform, areas by MONAI's copy of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.utils import get_code_to_measure_table
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")

# The bit of a cell's code that each of its voxels sets.
WEIGHTS = {2: [[8, 4], [2, 1]], 3: [[[128, 64], [32, 16]], [[8, 4], [2, 1]]]}


@dataclass(frozen=True)
class Directed:
    """Every cell of one surface: its distance in mm to the other surface, ascending, and its area."""

    mm: NDArray[np.float64]
    area: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float((self.mm * self.area).sum() / self.area.sum())

    def percentile(self, percent: float) -> float:
        """Return the smallest distance that so much of the area does not exceed; rounding decides nothing."""
        share = np.cumsum(self.area) / self.area.sum()
        index = int(np.searchsorted(share, percent / 100 - 1e-12))
        return float(self.mm[min(index, self.mm.size - 1)])


@dataclass(frozen=True)
class OracleScore:
    """Scores of two masks that both hold voxels."""

    from_reference: Directed
    from_prediction: Directed
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    masd_mm: float

    def nsd(self, tolerance_mm: float) -> float:
        sides = (self.from_reference, self.from_prediction)
        within = sum(side.area[side.mm <= tolerance_mm].sum() for side in sides)
        return float(within / sum(side.area.sum() for side in sides))

    def ties_with(self, tolerance_mm: float) -> bool:
        """Tell whether some distance equals the tolerance, so that rounding decides NSD."""
        mm = np.concatenate([self.from_reference.mm, self.from_prediction.mm])
        return bool(np.isclose(mm, tolerance_mm, rtol=1e-5, atol=0).any())


def areas_by_code(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return MONAI's areas in mm² `(256,)` or lengths in mm `(16,)`, in double precision."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # that the table of normals is made in
    try:
        table, _ = get_code_to_measure_table(tuple(float(step) for step in spacing_mm))
    finally:
        torch.set_default_dtype(default)
    return table.numpy().astype(np.float64)


def score_by_definition(
    reference: Mask, prediction: Mask, spacing_mm: Sequence[float], percentile: float = 95.0
) -> OracleScore:
    """Score two masks `(I, J, K)` or `(I, J)`, neither empty."""
    box = tuple(slice(index.min(), index.max() + 1) for index in np.nonzero(reference | prediction))
    areas = areas_by_code(spacing_mm)
    codes = [
        ndimage.correlate(np.pad(mask[box], 1).astype(np.int64), WEIGHTS[mask.ndim], mode="constant")
        for mask in (reference, prediction)
    ]
    borders = [(code > 0) & (code < areas.size - 1) for code in codes]
    sides = []
    for own, other in ((0, 1), (1, 0)):
        field = ndimage.distance_transform_edt(~borders[other], sampling=tuple(spacing_mm))
        mm, area = field[borders[own]], areas[codes[own][borders[own]]]
        order = np.argsort(mm, kind="stable")
        sides.append(Directed(mm[order], area[order]))
    first, second = sides
    total = first.area.sum() + second.area.sum()
    return OracleScore(
        from_reference=first,
        from_prediction=second,
        hd_mm=float(max(first.mm[-1], second.mm[-1])),
        hd95_mm=max(first.percentile(percentile), second.percentile(percentile)),
        assd_mm=float(((first.mm * first.area).sum() + (second.mm * second.area).sum()) / total),
        masd_mm=(first.mean + second.mean) / 2,
    )
