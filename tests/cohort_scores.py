"""Score tables of a synthetic cohort, and the index page made from them without any scan."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medunet.records.description import Description
from medunet.records.manifest import Manifest
from medunet.records.scores import CaseLesions, CaseScore, Lesion
from medunet.reporting.case_parts import CaseSummary
from medunet.reporting.cohort_page import cohort_html
from medunet.reporting.page import page_names
from medunet.reporting.report_source import ReportSource
from medunet.reporting.scores import rank_cases
from medunet.reporting.strata_shown import add_columns, groups_of
from medunet.reporting.summaries import summarise_cohort, summarise_groups
from medunet.scoring.tables import read_lesions, read_scores, write_scores

DESCRIPTION = Description(
    name="synthetic",
    title="Synthetic livers",
    layout="pairs",
    channels={"CT": {"modality": "CT"}},
    labels={"background": 0, "liver": 1, "tumour": 2},
)
TARGETS = {"liver": (1,), "tumour": (2,)}


def write_cohort(folder: Path, *, num_cases: int, site: str = "north", first_case: str = "case_0000") -> Path:
    """Write scores.csv, lesions.csv and scores.json of liver and tumour: some missed, invented, empty and missing."""
    generator = np.random.default_rng(0)
    scores = []
    for number in range(num_cases):
        case = f"case_{number:04d}" if number else first_case
        known = {"patient": f"p{number // 2:03d}", "site": (site, "south", "west")[number % 3]}
        if number % 20 == 7:
            reason = "there is no prediction file"
            scores += [CaseScore(case, name, "missing", "area", reason=reason, **known) for name in TARGETS]
            continue
        status = {3: "missed", 5: "false_positive", 9: "both_empty"}.get(number % 20, "ok")
        scores.append(_score(generator, case, "liver", "ok", 1500.0, known))
        tumour = _score(generator, case, "tumour", status, float(np.exp(generator.normal(1, 1.5))), known)
        scores.append(replace(tumour, lesions=_lesions(generator, tumour)))
    write_scores(scores, folder, about={}, targets=TARGETS)
    return folder


def make_index(
    folder: Path,
    *,
    manifest: Manifest | None = None,
    about: dict[str, Any] | None = None,
    verdict: str = "",
    thumbnail: str | None = None,
    description: Description = DESCRIPTION,
) -> Path:
    """Write `report/index.html` of the tables in a folder, as if each case had a page, and return its path."""
    scores = read_scores(folder / "scores.csv")
    ranked = rank_cases(scores)
    names = page_names(ranked)
    by_case = scores.groupby("case")
    statuses, dice = by_case["status"].agg(set), by_case["dice"].min()
    summaries = {
        case: CaseSummary(
            page=names[case],
            severity="failed" if "missing" in statuses[case] else "review" if dice[case] < 0.7 else "good",
            verdict=verdict or f"Lowest Dice {dice[case]:.3f}",
            reasons=(),
            thumbnail=thumbnail,
            worst_picture=None,
            worst_text="",
            trouble="",
        )
        for case in ranked
    }
    summary = summarise_cohort(scores, folder / "scores.json")
    table = add_columns(scores, manifest, [], None)
    by = groups_of(table, [])
    summary = replace(summary, strata=summarise_groups(table, by), about={**summary.about, **(about or {})})
    source = ReportSource(
        name="synthetic",
        report=folder / "report",
        scores=table,
        lesions=read_lesions(folder / "lesions.csv"),
        scores_json=folder / "scores.json",
        description=description,
        cases={},
        predictions={},
        data_root=folder,
        manifest=manifest,
    )
    page = folder / "report" / "index.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text(cohort_html(source, summary, summaries, by=by), encoding="utf-8")
    return page


def _score(
    generator: np.random.Generator,
    case: str,
    label: str,
    status: str,
    volume_ml: float,
    known: dict[str, str],
) -> CaseScore:
    if status == "both_empty":
        return CaseScore(
            case, label, status, "area", reference_ml=0.0, predicted_ml=0.0, nsd={1.0: math.nan}, **known
        )
    if status != "ok":
        sizes = (volume_ml, 0.0) if status == "missed" else (0.0, volume_ml)
        return CaseScore(
            case,
            label,
            status,
            "area",
            dice=0.0,
            hd_mm=math.inf,
            hd95_mm=math.inf,
            nsd={1.0: 0.0},
            reference_ml=sizes[0],
            predicted_ml=sizes[1],
            **known,
        )
    dice = float(np.clip(1 - generator.gamma(2, 0.02 if label == "liver" else 0.12), 0.01, 1))
    return CaseScore(
        case,
        label,
        "ok",
        "area",
        dice=dice,
        hd_mm=40 * (1 - dice),
        hd95_mm=20 * (1 - dice),
        nsd={1.0: dice**2},
        reference_ml=volume_ml,
        predicted_ml=volume_ml * float(np.exp(generator.normal(0, 0.1))),
        **known,
    )


def _lesions(generator: np.random.Generator, score: CaseScore) -> CaseLesions:
    """Return the lesions of a tumour: some found, some missed."""
    lesions = []
    if score.reference_ml > 0:
        for number in range(1, int(generator.integers(2, 4))):
            volume_ml = float(np.exp(generator.normal(0, 1.6)))
            is_missed = score.status == "missed" or generator.random() < 0.3
            lesions.append(
                Lesion(
                    number,
                    "missed" if is_missed else "matched",
                    0.0 if is_missed else score.dice,
                    math.inf if is_missed else 3.0,
                    volume_ml,
                    0.0 if is_missed else volume_ml,
                    12.0,
                    9.0,
                    5,
                )
            )
    num_missed = sum(lesion.status == "missed" for lesion in lesions)
    return CaseLesions("lits", tuple(lesions), len(lesions) - num_missed, num_missed, 0, *([math.nan] * 8))
