"""The table of file formats: which ending is read and written by what, and what such a file may be.

A format is added by a module that reads it and a row here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medunet.imaging import dicom_seg, nifti, pictures
from medunet.imaging.itk_images import ItkReader
from medunet.imaging.volume import Header, StoredVoxels


class Reader(Protocol):
    """What reads a format: a module or an object. `label` says that a picture's colours are values."""

    def read_header(self, path: Path, *, label: bool = False) -> Header:
        """Read a file's grid without its voxels; raise a DataError where it cannot be used."""

    def read_stored(self, header: Header, *, label: bool = False) -> StoredVoxels:
        """Read the voxels of a file whose header was read; raise a DataError where they cannot be used."""


class Writer(Protocol):
    """What writes masks in a format."""

    def write_mask(self, path: Path, mask: NDArray[np.uint8], like: Header) -> None:
        """Write a label map `(I, J, K)` on the grid of `like`."""


@dataclass(frozen=True)
class Format:
    """A row of the table.

    A volume that may be neither image nor label belongs to no case by its ending; a check names it as left out.
    """

    ending: str
    reader: Reader
    writer: Writer | None = None
    may_be_image: bool = False  # of a case; such a volume is taken as a case's label, too
    may_be_label: bool = False  # to be scored; such a picture is taken as a case's label, too
    may_be_packed: bool = False  # by gzip, with .gz behind the ending
    is_picture: bool = False  # 2D
    may_have_pages: bool = False  # several pictures in one file
    voxels_beside: tuple[str, ...] = ()  # endings of the file that holds the voxels

    @property
    def endings(self) -> tuple[str, ...]:
        """The ending, before it that of packed files."""
        return (f"{self.ending}.gz", self.ending) if self.may_be_packed else (self.ending,)

    @property
    def expression(self) -> str:
        """A regular expression of the endings in small letters."""
        return re.escape(self.ending) + (r"(\.gz)?" if self.may_be_packed else "")


_NRRD, _META_IMAGE = ItkReader("NrrdImageIO"), ItkReader("MetaImageIO")

NIFTI = Format(".nii", nifti, nifti, may_be_image=True, may_be_label=True, may_be_packed=True)
FORMATS = (
    NIFTI,
    Format(".hdr", nifti),
    Format(".img", nifti),
    Format(".mgz", nifti),  # which refuses it
    Format(".seg.nrrd", _NRRD, may_be_label=True),  # before the ending that it ends in
    Format(".nrrd", _NRRD, may_be_image=True, may_be_label=True),
    Format(".mha", _META_IMAGE, may_be_image=True, may_be_label=True),
    Format(".mhd", _META_IMAGE, may_be_image=True, may_be_label=True, voxels_beside=(".raw", ".zraw")),
    Format(".dcm", dicom_seg, may_be_label=True),
    Format(".png", pictures, pictures, may_be_image=True, may_be_label=True, is_picture=True),
    Format(".tif", pictures, may_be_image=True, may_be_label=True, is_picture=True, may_have_pages=True),
    Format(".tiff", pictures, may_be_image=True, may_be_label=True, is_picture=True, may_have_pages=True),
    Format(".jpg", pictures, may_be_image=True, is_picture=True),  # as a label its values would be blurred
    Format(".jpeg", pictures, may_be_image=True, is_picture=True),
)

VOLUMES = tuple(each for each in FORMATS if not each.is_picture)
SCANS = tuple(each for each in VOLUMES if each.may_be_image)
LABEL_VOLUMES = tuple(each for each in VOLUMES if each.may_be_label)
PICTURES = tuple(each for each in FORMATS if each.is_picture)
LABEL_PICTURES = tuple(each for each in PICTURES if each.may_be_label)


def format_of(path: PurePath) -> Format:
    """Return a file's format by its ending, in capitals or not; NIfTI where the table does not have it."""
    name = path.name.lower()
    return next((each for each in FORMATS if name.endswith(each.endings)), NIFTI)


def is_picture(path: PurePath) -> bool:
    """Say by a file's ending whether it is a 2D picture rather than a volume."""
    return format_of(path).is_picture


def endings_of(formats: Iterable[Format]) -> tuple[str, ...]:
    """Return the endings of formats, in the table's order."""
    return tuple(ending for each in formats for ending in each.endings)


def expression_of(formats: Iterable[Format]) -> str:
    """Return a regular expression for any ending of formats, in capitals or not."""
    return f"(?i:{'|'.join(each.expression for each in formats)})"
