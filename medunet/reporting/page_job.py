"""The page of one case as a job for a process of its own: it is skipped if the page is there, made from the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medunet import __version__
from medunet.base.errors import MedunetError
from medunet.base.files import (
    hash_value,
    read_json,
    remove_unfinished,
    write_json,
    write_text,
)
from medunet.base.packages import hash_code
from medunet.imaging.volumes import read_header
from medunet.records.config import ReportConfig
from medunet.records.data_root import file_path
from medunet.records.manifest import Case
from medunet.reporting.case_page import case_page
from medunet.reporting.case_parts import CaseParts, CaseSummary
from medunet.reporting.scans import Scan, load_scan, scan_or_reason
from medunet.reporting.scores import is_resampled
from medunet.scoring.mask_hashes import hash_mask

_DRAWING = (Path(__file__).parent, Path(__file__).parents[1] / "drawing")  # what draws the pages
_STATES = ".pages"  # folder of the report with what each page was made from


@dataclass(frozen=True)
class PageJob:
    """One page to make: what is known of the case, and where its files are."""

    parts: CaseParts
    case: Case | None  # None: it is not in the manifest
    prediction: Path | None
    with_viewer: bool
    keeps_picture: bool  # whether the report's index may show the picture of its worst error


@dataclass(frozen=True)
class PageOptions:
    """What is the same for all pages of a report."""

    report: Path
    data_root: Path
    predicted_targets: Mapping[str, Sequence[int]] | None
    settings: ReportConfig
    no_scan: str = ""  # why the pages of this report have no pictures; "" if they have


@dataclass(frozen=True)
class PageResult:
    """What a page tells the report's index."""

    summary: CaseSummary
    spacing_mm: tuple[float, ...] | None  # of the scan; None if it cannot be read, or of a 2D picture
    is_new: bool  # False: the page was there


def make_page(job: PageJob, options: PageOptions) -> PageResult:
    """Write the page of a case, unless it is there and was made from the same files, scores, options and code.

    A scan that cannot be read or shown is the reason on its page and in `CaseSummary.trouble`.

    Raises:
        InputError: The page cannot be written.
    """
    page = options.report / "cases" / job.parts.page
    state = options.report / _STATES / f"{page.stem}.json"
    key = _key(job, options)
    result = _finished(state, key) if page.exists() else None
    if result is None:
        scan = _load(job, options)
        html, summary = case_page(job.parts, scan, options.settings, with_viewer=job.with_viewer)
        result = PageResult(summary, _spacing_mm(job, options), is_new=True)
        write_text(page, html)
        write_json(state, {"key": key, "summary": asdict(summary), "spacing_mm": result.spacing_mm})
    if job.keeps_picture:
        return result
    return replace(result, summary=replace(result.summary, worst_picture=None))


def write_failed_page(job: PageJob, options: PageOptions, reason: str) -> PageResult:
    """Write a page with the reason why the case has no pictures; it is made again the next time."""
    html, summary = case_page(job.parts, reason, options.settings, with_viewer=False)
    write_text(options.report / "cases" / job.parts.page, html)
    return PageResult(summary, None, is_new=True)


def remove_others(report: Path, pages: Sequence[str]) -> None:
    """Remove the pages of cases that are no longer in the report, and what killed processes left."""
    kept = {Path(page).stem for page in pages}
    written = [report / "index.html", *(report / "cases" / page for page in pages)]
    written += [report / _STATES / f"{stem}.json" for stem in kept]
    remove_unfinished(path for path in written if path.parent.exists())
    for folder, ending in ((report / "cases", "html"), (report / _STATES, "json")):
        for old in folder.glob(f"*.{ending}"):
            if old.stem not in kept:
                old.unlink()


def _key(job: PageJob, options: PageOptions) -> str:
    """Return the hash of all that a page is made from."""
    parts = job.parts
    files = [
        hash_mask(path)
        for path in (*(() if options.no_scan else _paths(job, options)), job.prediction)
        if path is not None
    ]
    tables = [table.to_csv(index=False) for table in (parts.rows, parts.lesions) if table is not None]
    records = [repr(record) for record in (*parts.faults, *parts.accepted)]
    case = None if job.case is None else job.case.model_dump_json()
    plain = [parts.case_id, parts.page, asdict(parts.links), parts.fold, parts.entry, parts.provenance]
    plain.append(dict(parts.lesion_rules))
    return hash_value(
        [
            *(__version__, hash_code(*_DRAWING), files, tables, records, case),
            *(parts.description.model_dump_json(), plain, parts.stale, parts.use),
            *(job.with_viewer, options.no_scan, options.predicted_targets, options.settings.model_dump()),
        ]
    )


def _finished(state: Path, key: str) -> PageResult | None:
    """Return what is stored of a page that was made from the same; None if it is to be made."""
    try:
        stored: dict[str, Any] = read_json(state)
        if stored["key"] != key:
            return None
        summary = stored["summary"] | {"reasons": tuple(stored["summary"]["reasons"])}
        spacing_mm = stored["spacing_mm"]
        return PageResult(
            CaseSummary(**summary), None if spacing_mm is None else tuple(spacing_mm), is_new=False
        )
    except (MedunetError, KeyError, TypeError):
        return None  # there is none, or it is of another version


def _paths(job: PageJob, options: PageOptions) -> list[Path]:
    """Return the files of a case that can be read; those outside the data root are named when it is loaded."""
    found = []
    for relative in [] if job.case is None else [*dict.fromkeys(job.case.images.values()), job.case.label]:
        if relative is None:
            continue
        try:
            found.append(file_path(relative, options.data_root, f"case {job.case and job.case.id}"))
        except MedunetError:
            continue
    return found


def _load(job: PageJob, options: PageOptions) -> Scan | str:
    """Return a case's volumes, or the reason why they cannot be shown."""
    if options.no_scan:
        return options.no_scan
    if job.case is None:
        return "the case is not in manifest.json, so its scan is unknown"
    if not job.case.images:
        return "no image is named like this case in the folder of images"
    case = job.case
    return scan_or_reason(
        lambda: load_scan(
            case,
            job.parts.description,
            options.data_root,
            job.prediction,
            options.predicted_targets,
            resample=is_resampled(job.parts.rows),
            keep_integers=True,
        )
    )


def _spacing_mm(job: PageJob, options: PageOptions) -> tuple[float, ...] | None:
    """Return the scan's voxel size by its header."""
    if options.no_scan or job.case is None or not job.case.images or job.parts.description.unit == "px":
        return None
    try:
        path = file_path(next(iter(job.case.images.values())), options.data_root, f"case {job.case.id}")
        return tuple(round(float(mm), 4) for mm in read_header(path).spacing_mm)
    except (MedunetError, OSError, ValueError):
        return None
