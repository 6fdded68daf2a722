"""Check whether the files of a case are on the same grid (P…)."""

import numpy as np

from medunet.dataset.checks.case_facts import VolumeFacts, shape_text
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.header_checks import NOTED_MM, is_singular
from medunet.imaging.geometry import GRID_TOLERANCE_VOXELS, corner_displacement_mm, corners, spacing_of
from medunet.imaging.resample import are_disjoint
from medunet.records.fault import Fault


def compare_files(case_id: str, images: list[VolumeFacts], label: VolumeFacts | None) -> list[Fault]:
    """Compare the grids of a case's files with that of its first image."""
    faults = []
    for other in images[1:]:
        if _are_disjoint(other, images[0]):
            measured = (
                f"corners up to {_distance_mm(other, images[0]):.3g} mm from those of {images[0].subject}"
            )
            faults.append(make_fault("P010", case_id, other.subject, measured))
        else:
            faults += _compare_grids(case_id, other, images[0], ("P004", "P005", "P006"))
    if label is not None and images:
        faults += _compare_grids(case_id, label, images[0], ("P001", "P002", "P003"))
    return faults


def _compare_grids(
    case_id: str, facts: VolumeFacts, reference: VolumeFacts, codes: tuple[str, str, str]
) -> list[Fault]:
    """Compare two grids; `codes` are those for another shape, for a displacement and for a slight displacement."""
    other_shape, displaced, slightly = codes
    name = facts.subject
    if facts.shape == reference.shape and np.array_equal(facts.affine, reference.affine):
        return []
    comparable = not is_singular(facts.affine) and not is_singular(reference.affine)
    if facts.shape != reference.shape:
        measured = f"shape {shape_text(facts.shape)}"
        if comparable:
            measured += (
                f", corners up to {_distance_mm(facts, reference):.3g} mm from those of {reference.subject}"
            )
        expected = f"{shape_text(reference.shape)}, the shape of {reference.subject}"
        return [make_fault(other_shape, case_id, name, measured, expected=expected)]
    if not comparable:
        return []
    displacement_mm = corner_displacement_mm(reference.shape, reference.affine, facts.affine)
    limit_mm = GRID_TOLERANCE_VOXELS * min(spacing_of(reference.affine))
    if displacement_mm <= min(NOTED_MM, limit_mm):
        return []
    return [
        make_fault(
            displaced if displacement_mm > limit_mm else slightly,
            case_id,
            name,
            f"corners up to {displacement_mm:.3g} mm from those of {reference.subject}",
            expected=f"at most {limit_mm:.3g} mm, a tenth of a voxel",
        )
    ]


def _are_disjoint(facts: VolumeFacts, reference: VolumeFacts) -> bool:
    if is_singular(facts.affine) or is_singular(reference.affine):
        return False
    to_facts = np.linalg.inv(facts.affine) @ reference.affine
    return are_disjoint(facts.shape, reference.shape, to_facts)


def _distance_mm(facts: VolumeFacts, reference: VolumeFacts) -> float:
    """Return the Hausdorff distance in mm between the corners of two grids, independent of their axis order."""
    own, other = corners(facts.shape, facts.affine), corners(reference.shape, reference.affine)
    lengths_mm = np.linalg.norm(own[:, None] - other, axis=2)
    return float(max(lengths_mm.min(axis=0).max(), lengths_mm.min(axis=1).max()))
