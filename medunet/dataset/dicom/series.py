"""DICOM files of a folder tree, recognised by content and grouped into series.

The files of a series have the same SeriesInstanceUID. If an archive has removed it, they have the same patient,
study, frame of reference, series number and folder. Files that are linked several times are read once.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from medunet.base.errors import DataError
from medunet.base.files import hash_value
from medunet.base.pool import Lost, choose_workers, run_parallel
from medunet.base.progress import track
from medunet.dataset.dicom.tree_files import UnreadableFile, find_files, why_not_dicom
from medunet.imaging.dicom import DicomFile, is_dicom, read_file

_FILES_AT_ONCE = 256
_LIKE_VOXELS = 2_000_000  # equivalent cost of reading so many headers, for `choose_workers`


@dataclass(frozen=True)
class Series:
    """The files of one series. The keys contain patient identities: store them only in the private originals.csv."""

    key: str
    patient_key: str
    files: tuple[DicomFile, ...]
    num_joined: int = 0  # series of one slice that were joined to this one

    @property
    def patient_is_named(self) -> bool:
        """Whether there is a PatientID; without one, the study or folder identifies the patient."""
        return self.patient_key.startswith("id ")


@dataclass(frozen=True)
class Tree:
    """The DICOM series and other files of a folder tree."""

    series: tuple[Series, ...]  # ordered by patient, study date, series number and key
    unreadable: tuple[UnreadableFile, ...]
    num_others: int  # files that are not DICOM images, and DICOMDIRs
    left_out: tuple[UnreadableFile, ...] = ()  # folders that are not read
    num_again: int = 0  # further links to files that are read


def read_tree(root: Path, *, leave_out: Path | None = None, workers: int | None = None) -> Tree:
    """Read the headers of all files below `root`, except those below `leave_out`, with a progress bar on stderr."""
    tree = find_files(root, leave_out)
    paths, unreadable = tree.paths, list(tree.unreadable)
    chunks = [paths[start : start + _FILES_AT_ONCE] for start in range(0, len(paths), _FILES_AT_ONCE)]
    worth = choose_workers(len(chunks), _LIKE_VOXELS)
    worth = replace(worth, count=min(workers or worth.count, worth.count))
    files: list[DicomFile] = []
    num_others = len(paths)
    with closing(run_parallel(read_headers, chunks, worth)) as results:
        for _, (place, found) in zip(track(chunks, "Read headers"), results, strict=True):
            if isinstance(found, Lost):
                found = [UnreadableFile(path, found.why) for path in chunks[place]]
            num_others -= len(found)
            files += [entry for entry in found if isinstance(entry, DicomFile)]
            unreadable += [entry for entry in found if isinstance(entry, UnreadableFile)]
    return Tree(
        series=tuple(gather_series(files, root)),
        unreadable=tuple(sorted(unreadable, key=lambda file: file.path)),
        num_others=num_others,
        left_out=tuple(tree.left_out),
        num_again=tree.num_again,
    )


def read_headers(paths: Sequence[Path]) -> list[DicomFile | UnreadableFile]:
    """Read the headers of the DICOM files among `paths`; other files are skipped."""
    found: list[DicomFile | UnreadableFile] = []
    for path in paths:
        try:
            file = read_file(path) if is_dicom(path) else None
        except DataError as error:
            found.append(UnreadableFile(path, error.what))
            continue
        if file is not None:
            found.append(file)
        elif why := why_not_dicom(path):
            found.append(UnreadableFile(path, why))
    return found


def gather_series(files: Iterable[DicomFile], root: Path) -> list[Series]:
    """Group files found below `root` into series, ordered by patient, study date, series number and key."""
    groups: dict[str, list[DicomFile]] = {}
    for file in files:
        groups.setdefault(_series_key(file, root), []).append(file)
    series = [
        Series(key, _patient_key(group[0], root), tuple(sorted(group, key=lambda file: file.path)))
        for key, group in groups.items()
    ]
    return sort_series(series)


def sort_series(series: Iterable[Series]) -> list[Series]:
    """Sort series by patient, study date, series number and key."""
    return sorted(series, key=_sort_key)


def fingerprint_files(files: Iterable[DicomFile], how: object) -> str:
    """Return a hash of the UIDs, sizes and modification times of files, and of the import settings `how`."""
    return hash_value([sorted([file.instance_uid, file.size, file.modified_ns] for file in files), how])


def _series_key(file: DicomFile, root: Path) -> str:
    if file.series_uid:
        return f"uid {file.series_uid}"
    parts = (_patient_key(file, root), file.study_uid, file.frame_of_reference, file.series_number)
    return " ".join(("no uid", *parts, _folder(file, root)))


def _patient_key(file: DicomFile, root: Path) -> str:
    if file.patient_id:
        return f"id {file.patient_id}"
    return f"study {file.study_uid}" if file.study_uid else f"folder {_folder(file, root)}"


def _folder(file: DicomFile, root: Path) -> str:
    return file.path.parent.relative_to(root).as_posix()


def _sort_key(series: Series) -> tuple[str, str, int, str, str]:
    first = series.files[0]
    number = first.series_number
    return series.patient_key, first.study_date, len(number), number, series.key
