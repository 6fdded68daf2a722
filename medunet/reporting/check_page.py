"""HTML page of a data check: faults by code and by case, with pictures of the affected cases, in one file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from medunet.base.errors import DataError, MedunetError
from medunet.base.files import write_text
from medunet.base.pool import Lost, run_parallel
from medunet.base.progress import track
from medunet.dataset.checks.duplicates import part_of
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.manifest_checks import choose_workers_for, errors_left
from medunet.drawing.palette import TARGET_COLOURS
from medunet.drawing.presets import display_presets
from medunet.drawing.scene import StillView
from medunet.drawing.still import draw_thumbnail
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Case, Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting.page import data_uri, render
from medunet.reporting.scans import load_scan

_ORDER = {"error": 0, "warning": 1, "note": 2}
_MAX_PICTURED = 60  # cases with a card; the others are counted and listed in the tables
_MAX_ROWS = 100  # faults in the table of one code; checks.csv has all
_PICTURE_PX = 224
_UNREADABLE = ("N013", "N018", "N099")  # files that must not be read, or whose reading killed the process


@dataclass(frozen=True)
class Picture:
    """A case's small picture as data URI (None if it has none), and a remark on it."""

    uri: str | None
    remark: str = ""


def write_check_page(
    run: RunFolder,
    manifest: Manifest,
    faults: Sequence[Fault],
    data_root: Path,
    *,
    workers: int | None = None,
) -> Path:
    """Write checks.html next to checks.json and return its path.

    The scans of the first cases with errors or warnings are read again for their pictures, in `workers` processes.
    For a scan that cannot be drawn, the page gives the reason.
    """
    page = run.checks.with_suffix(".html")
    pictures = draw_cases(_cards(manifest, faults), manifest, data_root, workers=workers)
    write_text(page, check_html(run.root.name, manifest, faults, pictures))
    return page


def draw_cases(
    cards: Mapping[str, Sequence[Fault]], manifest: Manifest, data_root: Path, *, workers: int | None = None
) -> dict[str, Picture]:
    """Return a picture for each case id in `cards`, of the channel named by its most severe fault."""
    channels = manifest.description.channels
    pictures = {
        name: Picture(None, f"Not pictured: {FAULT_KINDS[fault.code].title} ({fault.code}).")
        for name, faults in cards.items()
        for fault in faults
        if fault.code in _UNREADABLE
    }
    named = {
        name: next((fault.subject for fault in faults if fault.subject in channels), None)
        for name, faults in cards.items()
        if name not in pictures
    }
    cases = [case for case in manifest.cases if case.id in named]
    items = [(case, named[case.id]) for case in cases]
    draw = partial(_draw, description=manifest.description, data_root=data_root)
    num_workers = workers or choose_workers_for(cases, data_root)
    with closing(run_parallel(draw, items, num_workers)) as results:
        for _, (index, picture) in zip(track(items, "Pictures"), results, strict=True):
            if isinstance(picture, Lost):
                picture = Picture(None, f"Not pictured: {picture.why}.")
            name = cases[index].id
            pictures[name] = _drop_repeated_reason(picture, cards[name])
    return pictures


def _drop_repeated_reason(picture: Picture, faults: Sequence[Fault]) -> Picture:
    """Remove the reason from the remark of a picture if one of the faults already gives it."""
    remark, _, reason = picture.remark.partition(": ")
    is_repeated = reason.removesuffix(".") in {fault.measured for fault in faults}
    return replace(picture, remark=f"{remark}.") if is_repeated else picture


def check_html(
    run_name: str, manifest: Manifest, faults: Sequence[Fault], pictures: Mapping[str, Picture]
) -> str:
    """Return the HTML page of a check's faults; `pictures` are those of `draw_cases`."""
    description = manifest.description
    left = errors_left(faults, manifest)
    cards = _cards(manifest, faults)
    serious = {fault.case for fault in faults if fault.severity != "note" and fault.case}
    excluded = {entry.id: entry.reason for entry in manifest.excluded}
    places = {case.id: part_of(case) for case in manifest.cases}
    counts = Counter[str](fault.severity for fault in faults)
    return render(
        "checks.html",
        title=description.title or description.name,
        run_name=run_name,
        num_cases=len(manifest.cases),
        num_clean=len(manifest.cases) - len(serious),
        num_left=len(left),
        cases_left=sorted({fault.case or "the dataset as a whole" for fault in left}),
        counts=[(severity, counts[severity], _count_accepted(faults, severity)) for severity in _ORDER],
        kinds=_by_kind(faults),
        cards=[
            {
                "case": name,
                "place": places[name],
                "excluded": excluded.get(name, ""),
                "faults": own,
                "picture": pictures.get(name, Picture(None)),
            }
            for name, own in cards.items()
        ],
        legend=list(zip(_outlined(description), TARGET_COLOURS, strict=False)),
        num_more=len(serious) - len(cards),
        of_the_set=[fault for fault in faults if not fault.case and fault.severity != "note"],
        excluded=excluded,
        most_rows=_MAX_ROWS,
    )


def _cards(manifest: Manifest, faults: Sequence[Fault]) -> dict[str, list[Fault]]:
    """Return the first cases with errors or warnings, most severe first, each with its faults, errors first.

    Excluded cases and cases whose faults are all accepted come last.
    """
    excluded = {entry.id for entry in manifest.excluded}
    by_case: dict[str, list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: (_ORDER[fault.severity], bool(fault.accepted))):
        if fault.case:
            by_case.setdefault(fault.case, []).append(fault)

    def sort_key(name: str) -> tuple[bool, int, int, str]:
        severities = [_ORDER[fault.severity] for fault in by_case[name] if not fault.accepted]
        num_errors = severities.count(_ORDER["error"])
        return name in excluded, min(severities, default=len(_ORDER)), -num_errors, name

    serious = [name for name, own in by_case.items() if own[0].severity != "note"]
    known = {case.id for case in manifest.cases}
    ranked = sorted((name for name in serious if name in known), key=sort_key)
    return {name: by_case[name] for name in ranked[:_MAX_PICTURED]}


def _by_kind(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """Return one entry for each severity and code, errors first, with the description of the code and its faults."""

    def kind(fault: Fault) -> tuple[int, str]:
        return _ORDER[fault.severity], fault.code

    entries = []
    for _, group in groupby(sorted(faults, key=kind), key=kind):
        own = list(group)
        entries.append(
            {
                "code": own[0].code,
                "severity": own[0].severity,
                "about": FAULT_KINDS[own[0].code],
                "faults": own,
                "num_cases": len({fault.case for fault in own if fault.case}),
                "num_accepted": sum(bool(fault.accepted) for fault in own),
            }
        )
    return entries


def _count_accepted(faults: Sequence[Fault], severity: str) -> int:
    return sum(bool(fault.accepted) for fault in faults if fault.severity == severity)


def _outlined(description: Description) -> dict[str, tuple[int, ...]]:
    """Return the targets to outline, each in its own colour; if there are too many, all foreground as one."""
    targets = description.targets
    if len(targets) <= len(TARGET_COLOURS):
        return targets
    return {"any label": tuple(description.labels[name] for name in description.foreground)}


def _draw(item: tuple[Case, str | None], *, description: Description, data_root: Path) -> Picture:
    """Draw a case's axial slice at the largest cross-section of its label, or the middle slice without a label."""
    case, channel = item
    remark = ""
    try:
        try:
            scan = load_scan(case, description, data_root, None, channel=channel)
        except DataError as error:
            unlabelled = case.model_copy(update={"label": None})
            scan = load_scan(unlabelled, description, data_root, None, channel=channel)
            remark = f"Pictured without its label: {error.what}."
        targets = _outlined(description)
        view = StillView(
            scan.image,
            scan.affine,
            targets,
            display_presets(scan.image, scan.modality, targets)[0],
            modality=scan.modality,
            reference=scan.reference,
            unit=scan.unit,
        )
        return Picture(data_uri(draw_thumbnail(view, side_px=_PICTURE_PX)), remark or " ".join(scan.warnings))
    except MedunetError as error:
        return Picture(None, f"Not pictured: {error.what}.")
    except Exception as error:  # a faulty file may cause any error, whose text may contain a local path
        return Picture(None, f"Not pictured: it cannot be drawn ({type(error).__name__}).")
