"""Table of the supported file formats: ending, reader and writer of each, and the roles its files may have.

To add a format, write a module that reads it and add a row to the table.
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
from medunet.records.data_files import data_files, outside_data_file


class Reader(Protocol):
    """A module or object that reads a format; with `label` a picture is read as a label map."""

    def read_header(self, path: Path, *, label: bool = False) -> Header:
        """Read a file's grid without its voxels; raise a DataError if it cannot be used."""

    def read_stored(self, header: Header, *, label: bool = False) -> StoredVoxels:
        """Read the voxels that belong to a header; raise a DataError if they cannot be used."""


class Writer(Protocol):
    """A module or object that writes masks in a format."""

    def write_mask(self, path: Path, mask: NDArray[np.uint8], like: Header) -> None:
        """Write a label map `(I, J, K)` on the grid of `like`."""


@dataclass(frozen=True)
class Format:
    """A file format: a row of the table.

    A volume that may be neither image nor label is not used for cases; the dataset check reports it as unmatched.
    """

    ending: str
    reader: Reader
    writer: Writer | None = None
    may_be_image: bool = False  # of a case; such a volume may also be the label of a case
    may_be_label: bool = False  # to be scored; such a picture may also be the label of a case
    may_be_gzipped: bool = False  # with .gz after the ending
    is_picture: bool = False  # 2D
    may_have_pages: bool = False  # several pictures in one file
    data_endings: tuple[str, ...] = ()  # of the separate file that holds the voxels

    @property
    def is_lossy(self) -> bool:
        """Whether storing a label in it changes values, as JPEG does."""
        return self.is_picture and not self.may_be_label

    @property
    def endings(self) -> tuple[str, ...]:
        """The ending, after that of gzip-compressed files if the format allows them."""
        return (f"{self.ending}.gz", self.ending) if self.may_be_gzipped else (self.ending,)

    @property
    def expression(self) -> str:
        """A regular expression that matches the endings in lower case."""
        return re.escape(self.ending) + (r"(\.gz)?" if self.may_be_gzipped else "")


_NRRD, _META_IMAGE = ItkReader("NrrdImageIO"), ItkReader("MetaImageIO")

NIFTI = Format(".nii", nifti, nifti, may_be_image=True, may_be_label=True, may_be_gzipped=True)
FORMATS = (
    NIFTI,
    Format(
        ".hdr", nifti, may_be_image=True, may_be_label=True, may_be_gzipped=True, data_endings=(".img",)
    ),  # the header of a pair of files, which is named by it
    Format(".img", nifti, may_be_gzipped=True, data_endings=(".hdr",)),
    Format(".mgz", nifti),  # not supported: the NIfTI reader rejects it
    Format(".seg.nrrd", _NRRD, may_be_label=True),  # before .nrrd, which also matches
    Format(".nrrd", _NRRD, may_be_image=True, may_be_label=True, data_endings=(".raw", ".raw.gz")),
    Format(".mha", _META_IMAGE, may_be_image=True, may_be_label=True),
    Format(".mhd", _META_IMAGE, may_be_image=True, may_be_label=True, data_endings=(".raw", ".zraw")),
    Format(".dcm", dicom_seg, may_be_label=True),
    Format(".png", pictures, pictures, may_be_image=True, may_be_label=True, is_picture=True),
    Format(".tif", pictures, may_be_image=True, may_be_label=True, is_picture=True, may_have_pages=True),
    Format(".tiff", pictures, may_be_image=True, may_be_label=True, is_picture=True, may_have_pages=True),
    Format(
        ".jpg", pictures, may_be_image=True, is_picture=True
    ),  # lossy compression would corrupt label values
    Format(".jpeg", pictures, may_be_image=True, is_picture=True),
)

VOLUMES = tuple(each for each in FORMATS if not each.is_picture)
SCANS = tuple(each for each in VOLUMES if each.may_be_image)
LABEL_VOLUMES = tuple(each for each in VOLUMES if each.may_be_label)
PICTURES = tuple(each for each in FORMATS if each.is_picture)
LABEL_PICTURES = tuple(each for each in PICTURES if each.may_be_label)


def format_of(path: PurePath) -> Format:
    """Return a file's format by its ending, ignoring case; NIfTI if the table does not list the ending."""
    name = path.name.lower()
    return next((each for each in FORMATS if name.endswith(each.endings)), NIFTI)


def strip_ending(name: str) -> str:
    """Return a file name without the ending of a supported format, ignoring case; unchanged without such an ending.

    Every stage names cases by this rule, so that x.seg.nrrd, x.nii.gz and x.png all belong to case x.
    """
    lower = name.lower()
    return next((name[: -len(end)] for end in endings_of(FORMATS) if lower.endswith(end)), name)


def files_of(path: Path) -> list[Path]:
    """Return a file and the other files that may hold its voxels: named by its header, or beside it.

    Only existing files that may be read are returned, see `outside_data_file`.
    """
    base, gz_ending = strip_ending(path.name), path.suffix if path.suffix.lower() == ".gz" else ""
    endings = (each for ending in format_of(path).data_endings for each in (ending, ending.upper()))
    data = (path.with_name(f"{base}{ending}{gz_ending}") for ending in endings)
    named = () if outside_data_file(path) else data_files(path)
    return [path, *dict.fromkeys(each for each in (*named, *data) if each.is_file() and each != path)]


def header_of_pair(name: str) -> str:
    """Return the name of the header, x.hdr, of a NIfTI volume in two files that is named by its voxels, x.img."""

    def header(match: re.Match[str]) -> str:
        return (".HDR" if match[1].isupper() else ".hdr") + (match[2] or "")

    return re.sub(r"(?i)(\.img)(\.gz)?$", header, name)


def is_picture(path: PurePath) -> bool:
    """Return whether a file is a 2D picture rather than a volume, by its ending."""
    return format_of(path).is_picture


def endings_of(formats: Iterable[Format]) -> tuple[str, ...]:
    """Return the endings of formats, in the order given."""
    return tuple(ending for each in formats for ending in each.endings)


def expression_of(formats: Iterable[Format]) -> str:
    """Return a regular expression that matches any ending of the formats, ignoring case."""
    return f"(?i:{'|'.join(each.expression for each in formats)})"
