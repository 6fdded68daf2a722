"""Pages of a comparison: paired differences by target, the largest of them, and a page for each case."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from medunet.base.files import write_text
from medunet.base.progress import CaseBar
from medunet.drawing.palette import colour_targets
from medunet.drawing.presets import display_presets
from medunet.records.config import ReportConfig
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.reporting.case_page import case_page
from medunet.reporting.case_parts import CaseParts
from medunet.reporting.compare_charts import decimals_of, draw_differences, metric_text
from medunet.reporting.page import interval_text, number_text, page_names, render
from medunet.reporting.scans import Scan, load_scan, scan_or_reason
from medunet.reporting.svg import CaseLink
from medunet.reporting.viewer import VIEWER_SCRIPTS, VIEWER_STYLES, Viewer, copy_assets, make_viewer
from medunet.scoring.compare import Comparison
from medunet.scoring.paired import PairDifference

NUM_PICTURED = 20  # cases of the largest differences, if their images are known
_MAX_WORST = 30  # rows of the table of the largest differences
_MOST_LEVELS_UP = 2  # to a method's own report, so that links name no folders further away


@dataclass(frozen=True)
class Images:
    """The scans of the compared cases, and the folders with each method's masks."""

    description: Description
    data_root: Path
    cases: Mapping[str, Case]
    masks: Mapping[str, Mapping[str, Path]]  # by method, then by case


@dataclass(frozen=True)
class Picture:
    """The worst error of one method in a case, or why there is none."""

    letter: str
    picture: str | None  # data URI
    text: str


@dataclass(frozen=True)
class _Pictures:
    of_methods: tuple[Picture, ...] = ()
    viewer: Viewer | None = None
    notices: tuple[str, ...] = ()


def write_compare_pages(
    out: Path,
    comparison: Comparison,
    tables: Mapping[str, pd.DataFrame],
    folders: Mapping[str, Path],
    images: Images | None = None,
) -> Path:
    """Write `comparison.html` and a page for each case to `out`, and return the path of the first.

    Args:
        out: folder of the comparison.
        comparison: the methods' differences.
        tables: score table of each method.
        folders: folder of each method's scores; its report's pages are linked if they are there and near.
        images: scans and masks; without them, there are no pictures.
    """
    ranked = rank_by_difference(comparison)
    names = page_names(ranked)
    links = {case: CaseLink(number, f"cases/{names[case]}") for number, case in enumerate(ranked)}
    rows = {
        method: {
            str(case): own
            for case, own in table[table["label"].isin(comparison.labels)].groupby("case", sort=False)
        }
        for method, table in tables.items()
    }
    if images is not None:
        copy_assets(out)
    with CaseBar("Compare", len(ranked)) as bar:
        for number, case in enumerate(ranked):
            bar.begin(case)
            own = {method: known.get(case) for method, known in rows.items()}
            pictures = _Pictures()
            if images is not None and number < NUM_PICTURED:
                pictures = _draw(case, names[case], own, comparison, images)
            has_viewer = pictures.viewer is not None
            html = render(
                "compare_case.html",
                styles=("cohort.css", *(VIEWER_STYLES if has_viewer else ())),
                scripts=VIEWER_SCRIPTS if has_viewer else (),
                title=case,
                methods=comparison.letters,
                pages=_own_pages(out / "cases", folders, names[case]),
                headings=[metric_text(name) for name in comparison.main_metrics],
                targets=[(label, _scores_of(label, own, comparison)) for label in comparison.labels],
                differences=[
                    _difference_row(pair, case, comparison)
                    for pair in comparison.pairs
                    if pair.metric in comparison.main_metrics and case in pair.differences
                ],
                pictures=pictures.of_methods,
                viewer=pictures.viewer,
                notices=pictures.notices,
                worse=names[ranked[number - 1]] if number else None,
                better=names[ranked[number + 1]] if number + 1 < len(ranked) else None,
            )
            write_text(out / "cases" / names[case], html)
            bar.advance()
    for old in {path.name for path in (out / "cases").glob("*.html")} - set(names.values()):
        (out / "cases" / old).unlink()
    page = out / "comparison.html"
    figures = draw_differences(comparison, links)
    write_text(
        page,
        render(
            "compare.html",
            styles=("cohort.css",),
            scripts=("cohort.js",),
            title=" and ".join(comparison.methods)
            if len(comparison.methods) == 2
            else "Comparison of methods",
            comparison=comparison,
            has_gaps=any([*comparison.absent.values(), *comparison.unscored.values()]),
            summary=[_summary_row(pair, comparison) for pair in _main_pairs(comparison)],
            has_intervals=any(not math.isnan(pair.low) for pair in _main_pairs(comparison)),
            figures=figures,
            worst=_worst(comparison, links, rows),
            most=_MAX_WORST,
            num_pictured=0 if images is None else min(NUM_PICTURED, len(ranked)),
        ),
    )
    return page


def rank_by_difference(comparison: Comparison) -> list[str]:
    """Return the cases by their largest difference in the first main metric, largest first; equal ones by name."""
    largest: dict[str, float] = {}
    for pair in comparison.pairs:
        for case, value in pair.differences.items():
            is_main = pair.metric == comparison.main_metrics[0]
            largest[case] = max(largest.get(case, 0.0), abs(value) if is_main else 0.0)
    return sorted(largest, key=lambda case: (-largest[case], case))


def _draw(
    case_id: str,
    page: str,
    rows: Mapping[str, pd.DataFrame | None],
    comparison: Comparison,
    images: Images,
) -> _Pictures:
    """Draw each method's worst error, and make the viewer with the masks of all methods."""
    case, found = images.cases.get(case_id), []
    masks, scans, notices = {}, [], []
    for method, letter in comparison.letters.items():
        mask, own = images.masks.get(method, {}).get(case_id), rows[method]
        scan = _load(case, mask, images)
        if isinstance(scan, str) or own is None:
            found.append(
                Picture(letter, None, scan if isinstance(scan, str) else "it has no scores of this case")
            )
            continue
        parts = CaseParts(case_id=case_id, page=page, description=images.description, rows=own, lesions=None)
        _, summary = case_page(parts, scan, ReportConfig(), with_viewer=False)
        found.append(Picture(letter, summary.worst_picture, summary.worst_text or summary.verdict))
        if scan.prediction is not None:
            masks[f"{letter}: {method}"] = scan.prediction
        notices += [warning for warning in scan.warnings if warning not in notices]
        scans.append(scan)
    if not scans:
        return _Pictures(tuple(found))
    first = scans[0]
    reference = {} if first.reference is None else {"reference": first.reference}
    targets = {name: images.description.targets[name] for name in comparison.labels}
    channels = first.channels or {first.channel: first.image}
    viewer = make_viewer(
        first,
        targets,
        colour_targets(targets),
        {name: display_presets(array, first.modality, list(targets)) for name, array in channels.items()},
        masks={**reference, **masks},
    )
    return _Pictures(tuple(found), viewer, (*notices, *(viewer.notices if viewer else ())))


def _load(case: Case | None, mask: Path | None, images: Images) -> Scan | str:
    if case is None or not case.images:
        return "no image of this case is known"
    if mask is None:
        return "its masks are not known: name their folder instead of scores.csv"
    return scan_or_reason(
        lambda: load_scan(case, images.description, images.data_root, mask, keep_integers=True)
    )


def _own_pages(here: Path, folders: Mapping[str, Path], name: str) -> dict[str, str]:
    """Return the address of each method's own page of a case, relative to the folder `here`."""
    found = {}
    for method, folder in folders.items():
        page = folder / "report" / "cases" / name
        if page.exists():
            parts = Path(os.path.relpath(page.resolve(), here.resolve())).parts
            if parts.count("..") <= _MOST_LEVELS_UP + 1:  # one is that of the folder cases/
                found[method] = "/".join(quote(part) for part in parts)
    return found


def _scores_of(
    label: str, rows: Mapping[str, pd.DataFrame | None], comparison: Comparison
) -> list[tuple[str, str, list[str]]]:
    """Return letter, status and scores of each method for one target of a case."""
    found = []
    for method, letter in comparison.letters.items():
        own = rows[method]
        mine = None if own is None else own[own["label"] == label]
        if mine is None or mine.empty:
            found.append((letter, "absent", ["–"] * len(comparison.main_metrics)))
            continue
        row = mine.iloc[0]
        numbers = [number_text(float(row[name]), decimals_of(name)) for name in comparison.main_metrics]
        found.append((letter, str(row["status"]), numbers))
    return found


def _main_pairs(comparison: Comparison) -> list[PairDifference]:
    return [pair for pair in comparison.pairs if pair.metric in comparison.main_metrics]


def _summary_row(pair: PairDifference, comparison: Comparison) -> dict[str, Any]:
    letters, decimals = comparison.letters, decimals_of(pair.metric)
    return {
        "label": pair.label,
        "metric": metric_text(pair.metric),
        "pair": f"{letters[pair.first]}−{letters[pair.second]}",
        "first": number_text(pair.mean_first, decimals),
        "second": number_text(pair.mean_second, decimals),
        "difference": number_text(pair.mean_difference, decimals, signed=True),
        "interval": interval_text(pair.low, pair.high, decimals),
        "p": "<0.001" if pair.p_holm < 0.001 else number_text(pair.p_holm, 3),
        "wins": f"{pair.wins}/{pair.ties}/{pair.losses}",
        "num_infinite": pair.num_infinite,
    }


def _difference_row(pair: PairDifference, case: str, comparison: Comparison) -> dict[str, str]:
    letters = comparison.letters
    return {
        "label": pair.label,
        "metric": metric_text(pair.metric),
        "pair": f"{letters[pair.first]}−{letters[pair.second]}",
        "difference": number_text(pair.differences[case], decimals_of(pair.metric), signed=True),
    }


def _worst(
    comparison: Comparison,
    links: Mapping[str, CaseLink],
    rows: Mapping[str, Mapping[str, pd.DataFrame]],
) -> list[dict[str, str]]:
    """Return the largest differences in the first main metric, over all targets and pairs of methods."""
    found = [
        (abs(value), case, pair)
        for pair in comparison.pairs
        if pair.metric == comparison.main_metrics[0]
        for case, value in pair.differences.items()
        if value
    ]
    largest = sorted(found, key=lambda each: (-each[0], each[1], each[2].label))[:_MAX_WORST]
    return [
        {
            **_difference_row(pair, case, comparison),
            "case": case,
            "href": links[case].href,
            "first": _value(rows[pair.first].get(case), pair),
            "second": _value(rows[pair.second].get(case), pair),
        }
        for _, case, pair in largest
    ]


def _value(rows: pd.DataFrame | None, pair: PairDifference) -> str:
    """Return a method's own score of a case as text, "–" where it has none."""
    own = None if rows is None else rows[rows["label"] == pair.label]
    if own is None or own.empty:
        return "–"
    return number_text(float(own.iloc[0][pair.metric]), decimals_of(pair.metric))
