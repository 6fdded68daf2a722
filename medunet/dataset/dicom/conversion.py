"""Conversion of one stack of DICOM slices to a NIfTI volume, or to the faults that prevent it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medunet.base.errors import InputError
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.dicom.repair import repair_stack
from medunet.dataset.dicom.series_checks import Part
from medunet.dataset.dicom.stack_checks import hounsfield_fault, name_slice
from medunet.dataset.dicom.tables import SeriesRow, Status
from medunet.imaging.dicom_pixels import NoDecoderError, SliceError, Voxels, make_voxels, read_slices
from medunet.imaging.geometry import Affine, spacing_of
from medunet.imaging.nifti import write_volume
from medunet.records.fault import Fault


@dataclass(frozen=True)
class Job:
    """A volume to be converted: its pseudonym, its slices and its output path."""

    case: str
    patient: str
    part: Part
    path: Path
    repair: bool


@dataclass(frozen=True)
class Outcome:
    """The result of a job: its row in the table of series, and its faults."""

    row: SeriesRow
    faults: tuple[Fault, ...]
    unwritable: str = ""  # why the volume could not be written


def convert(job: Job) -> Outcome:
    """Write the volume of a job, with each slice's own rescale, or return the faults that prevent it.

    In addition to the faults of the headers, this finds missing decoders, damaged pixels, values that are not finite,
    and a CT that is not in HU.
    """
    part, stack = job.part, job.part.stack
    if part.is_refused or stack is None:
        return _outcome(job, "refused" if part.is_refused else "left out")
    subject = part.modality
    try:
        voxels, affine = read_slices(stack.slices), stack.affine()
    except NoDecoderError as error:
        return _outcome(job, "refused", make_fault("D008", job.case, subject, error.what))
    except SliceError as error:
        text = f"{name_slice(stack.slices, error.place)}: {error.what}"
        return _outcome(job, "refused", make_fault("D009", job.case, subject, text))
    if not np.isfinite([voxels.smallest, voxels.largest]).all():
        return _outcome(job, "refused", make_fault("N004", job.case, subject, "values that are not finite"))
    if _repaired(part):
        array, affine = repair_stack(voxels.array.astype(np.float32), stack)
        voxels = make_voxels(array, bool(np.array_equal(array, np.rint(array))))
    try:
        write_volume(job.path, voxels.array, affine)
    except InputError as error:
        return replace(_outcome(job, "refused"), unwritable=error.what)
    return _outcome(job, "imported", *_hounsfield(job, voxels.smallest), voxels=voxels, affine=affine)


def keep(job: Job, row: SeriesRow) -> Outcome:
    """Return the outcome of a job whose volume an earlier import has written, with its current faults."""
    faults = (*_own_faults(job), *_hounsfield(job, row.smallest))
    return Outcome(replace(row, faults=_codes(faults)), faults)


def fail_unexpectedly(job: Job, why: str) -> Outcome:
    """Return the outcome of a job that failed for a reason that no check covers (fault N099)."""
    return _outcome(job, "refused", make_fault("N099", job.case, "", why))


def _outcome(
    job: Job,
    status: Status,
    *more: Fault,
    voxels: Voxels | None = None,
    affine: Affine | None = None,
) -> Outcome:
    stack = job.part.stack
    faults = (*_own_faults(job), *more)
    row = SeriesRow(
        case=job.case,
        patient=job.patient,
        modality=job.part.modality,
        status=status,
        num_slices=len(stack.slices) if stack else sum(len(file.frames) for file in job.part.series.files),
        faults=_codes(faults),
    )
    if voxels is None or affine is None:
        return Outcome(row, faults)
    row = replace(
        row,
        shape=voxels.array.shape,
        spacing_mm=spacing_of(affine),
        voxel_type=voxels.array.dtype.name,
        smallest=voxels.smallest,
        repaired=_repaired(job.part),
    )
    return Outcome(row, faults)


def _own_faults(job: Job) -> tuple[Fault, ...]:
    return tuple(replace(fault, case=job.case) for fault in job.part.faults)


def _hounsfield(job: Job, smallest: float | None) -> tuple[Fault, ...]:
    if job.part.modality != "CT" or job.part.stack is None or smallest is None:
        return ()
    fault = hounsfield_fault(job.part.stack, smallest)
    return () if fault is None else (replace(fault, case=job.case),)


def _repaired(part: Part) -> str:
    """Return which faults of a volume are repaired, such as "gaps and tilt"; `repair` turned them into warnings."""
    what = {"D002": "gaps", "D005": "tilt"}
    return " and ".join(what[fault.code] for fault in part.faults if fault.code in what)


def _codes(faults: Sequence[Fault]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fault.code for fault in faults))
