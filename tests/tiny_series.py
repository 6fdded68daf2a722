"""Small DICOM series written, gathered and checked, as the tests of their faults need them."""

from pathlib import Path

from pydicom.dataset import Dataset
from tiny_dicom import write_slices

from medunet.dataset.dicom.series import read_tree
from medunet.dataset.dicom.series_checks import Part, check_series
from medunet.records.fault import Fault


def parts_of(folder: Path, *, repair: bool = False) -> list[Part]:
    """Return the parts of every series in a folder, checked."""
    return [part for series in read_tree(folder).series for part in check_series(series, repair=repair)]


def only_part(slices: list[Dataset], folder: Path, *, repair: bool = False) -> Part:
    """Write slices that are one volume, and return it checked."""
    write_slices(slices, folder)
    (part,) = parts_of(folder, repair=repair)
    return part


def fault_of(part: Part, code: str) -> Fault:
    """Return the one fault of a code."""
    (found,) = [fault for fault in part.faults if fault.code == code]
    return found


def codes_of(part: Part) -> list[str]:
    return [fault.code for fault in part.faults]
