"""`medunet compare`: compare the score tables of several methods; writes tables and a plot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import write_json
from medunet.commands.alone import alone
from medunet.commands.score import reference_dataset, score_mask_files
from medunet.commands.terminal import console, print_stage
from medunet.records.config import change_config
from medunet.records.data_root import resolve_data_root
from medunet.records.description import load_description
from medunet.records.manifest import Manifest
from medunet.records.scores import UNSCORED
from medunet.scoring.compare import Comparison, compare
from medunet.scoring.intervals import describe_intervals
from medunet.scoring.paired import PairDifference, Ranking
from medunet.scoring.strata import choose_strata, columns_of_tables
from medunet.scoring.tables import json_value, read_scores, write_table

if TYPE_CHECKING:
    from medunet.reporting.compare_pictures import Images

_NUM_NAMED = 5


@alone("compare")
def compare_scores(
    paths: Sequence[Path],
    out: Path,
    reference: Path | None = None,
    dataset: str | None = None,
    data_root: Path | None = None,
    *,
    by: Sequence[str] = (),
    join: Path | None = None,
    images: Path | None = None,
) -> list[str]:
    """Compare methods by their scores.csv, each given as that file or as the folder that contains it.

    With a `reference` (a folder of masks described by `dataset`, or a manifest.json) a method may also be a folder of
    masks without a scores.csv. It is scored first, into `out`/scores/<method>/.

    Writes comparison.csv, comparison.json, ranking.csv, comparison.png and pages: comparison.html and one for each
    case. Those of the largest differences have pictures if the scans are known: by a manifest as reference, or by
    their names in the folder `images`. With `by`, which names text columns of the
    score tables or of the table `join` (see `choose_strata`), also strata.csv and strata_ranking.csv. Returns the ids
    of the cases that are absent from a method's scores or could not be scored here.

    Raises:
        InputError: A path without scores, tables that cannot be compared, or an option that would be ignored.
    """
    from medunet.drawing.figures import save_figure
    from medunet.reporting.compare_page import write_compare_pages
    from medunet.reporting.compare_plots import draw_comparison

    files = _name_tables(paths, with_masks=reference is not None)
    folders = {name: path if path.is_dir() else path.parent for name, path in zip(files, paths, strict=True)}
    unscored: list[str] = []
    if reference is not None:
        masks = {name: file.parent for name, file in files.items() if not file.is_file()}
        unscored = _score_masks(
            masks, reference, out / "scores", dataset, data_root, may_be_none=images is not None
        )
        files |= {name: out / "scores" / name / "scores.csv" for name in masks}
    tables = {name: read_scores(file) for name, file in files.items()}
    cases = list(dict.fromkeys(case for table in tables.values() for case in table["case"]))
    strata, remarks = choose_strata(by, columns_of_tables(list(tables.values()), by), cases, join)
    comparison = compare(tables, strata)
    pairs = [_row(pair) for pair in comparison.pairs]
    rankings = _ranking_rows(comparison.rankings, comparison.methods)
    write_table(out / "comparison.csv", pairs)
    write_table(out / "ranking.csv", rankings)
    stratum_pairs, stratum_rankings = _stratum_rows(comparison)
    for name, rows in (("strata.csv", stratum_pairs), ("strata_ranking.csv", stratum_rankings)):
        if rows:
            write_table(out / name, rows)
        else:
            (out / name).unlink(missing_ok=True)
    about = {
        "medunet": __version__,
        "surface": comparison.surface,
        "difference": "first less second; failures count as 0 in overlaps and as infinite distances",
        "intervals": describe_intervals(),
        "test": "Wilcoxon's signed-rank test of one difference per patient, the mean of its cases",
        "num_cases": comparison.num_cases,
        "num_patients": comparison.num_patients,
        "by": list(strata),
        "methods": comparison.letters,
        "absent": comparison.absent,
        "unscored": comparison.unscored,
        "labels_left_out": comparison.left_out,
    }
    content = {"about": about, "pairs": pairs, "ranking": rankings}
    content |= {"strata": stratum_pairs, "strata_ranking": stratum_rankings} if strata else {}
    write_json(out / "comparison.json", json_value(content))
    if (figure := draw_comparison(comparison)) is not None:
        save_figure(out / "comparison.png", figure)
    known = None
    if reference is not None and (images is not None or reference.suffix == ".json"):
        known = _find_images(comparison, folders, reference, dataset, data_root, images)
    page = write_compare_pages(out, comparison, tables, folders, known)
    console.print(comparison_table(comparison))
    if strata:
        console.print(stratum_table(comparison))
    for remark in remarks:
        console.print(f"  [yellow]strata[/] {escape(remark)}", highlight=False, soft_wrap=True)
    _print_gaps(comparison)
    print_stage("Compare", f"{len(tables)} methods, {len(comparison.labels)} labels", out / "comparison.csv")
    print_stage("Compare", "open in a browser", page)
    return sorted({case for cases in comparison.absent.values() for case in cases} | set(unscored))


def comparison_table(comparison: Comparison) -> Table:
    """Return a terminal table of Dice and robust Hausdorff distance, with a row per label, metric and pair."""
    letters = comparison.letters
    captions = [f"{letter}: {escape(method)}" for method, letter in letters.items()]
    shown = [pair for pair in comparison.pairs if pair.metric in comparison.main_metrics[:2]]
    over = f"{comparison.num_cases} cases"
    if comparison.num_patients < comparison.num_cases:
        over += f" of {comparison.num_patients} patients"
    captions.append(f"over {over}; p: Wilcoxon's signed-rank test by patient, corrected by Holm's method")
    captions.append("w/t/l: cases that the first won, tied and lost")
    if reasons := dict.fromkeys(pair.no_interval for pair in shown if pair.no_interval):
        captions.append(f"no 95% interval where there is none: {escape('; '.join(reasons))}")
    table = Table(
        title="Comparison: first less second, 95% interval",
        caption="\n".join(captions),
        caption_justify="left",
    )
    table.add_column("label", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    table.add_column("pair", no_wrap=True)
    for heading in ("difference", "p", "w/t/l"):
        table.add_column(heading, justify="right")
    for pair in shown:
        table.add_row(escape(pair.label), pair.metric.replace("_", " "), *_cells(pair, letters))
    return table


def stratum_table(comparison: Comparison) -> Table:
    """Return a terminal table of Dice with a row per stratum, label and pair of methods."""
    table = Table(title="Strata: difference in Dice, first less second, 95% interval")
    for heading in ("stratum", "patients", "label", "pair"):
        table.add_column(heading, no_wrap=True)
    for heading in ("difference", "p", "w/t/l"):
        table.add_column(heading, justify="right")
    for stratum in comparison.strata:
        for pair in stratum.pairs:
            if pair.metric == comparison.main_metrics[0]:
                head = (f"{stratum.by} {stratum.value}", str(stratum.num_patients), pair.label)
                table.add_row(*map(escape, head), *_cells(pair, comparison.letters))
    return table


def _cells(pair: PairDifference, letters: Mapping[str, str]) -> tuple[str, ...]:
    """Return the cells of a pair that both tables show: the methods, the difference, p, and wins, ties and losses."""
    infinite = f" ({pair.num_infinite} infinite)" if pair.num_infinite else ""
    return (
        f"{letters[pair.first]}−{letters[pair.second]}",
        _with_interval(pair) + infinite,
        "<0.001" if pair.p_holm < 0.001 else number_text(pair.p_holm),
        f"{pair.wins}/{pair.ties}/{pair.losses}",
    )


def _score_masks(
    masks: Mapping[str, Path],
    reference: Path,
    out: Path,
    dataset: str | None,
    data_root: Path | None,
    *,
    may_be_none: bool,
) -> list[str]:
    """Score the mask folders of methods with the default settings of `medunet score`; return the unscored cases.

    A repeated call resumes where it was stopped, and only scores cases again that have changed since.
    """
    if not masks and may_be_none:  # the references are only needed for pictures
        return []
    if not masks:
        raise InputError(
            "every method has a scores.csv already", where="--reference", hint="Leave the option out."
        )
    named = reference_dataset(reference, dataset, data_root)
    if named is None:
        raise InputError("masks need a description", where="--dataset", hint="Add --dataset NAME.")
    config = change_config({"dataset": named}, [], "--dataset")
    unscored = []
    for name, folder in masks.items():
        console.print(f"[bold]{escape(name)}[/]", highlight=False)
        scores = score_mask_files(
            reference, folder, out / name, config, data_root=data_root, keep_journal=True
        )
        unscored += [score.case for score in scores if score.status in UNSCORED]
    return unscored


def _find_images(
    comparison: Comparison,
    folders: Mapping[str, Path],
    reference: Path,
    dataset: str | None,
    data_root: Path | None,
    images: Path | None,
) -> "Images":
    """Return the scans and each method's masks: those in its folder, or in the folder predictions of a run.

    Raises:
        InputError: The references need a description, or no scan is named like a case.
    """
    from medunet.commands.mask_cases import cases_of_pairs
    from medunet.reporting.compare_pictures import Images
    from medunet.scoring.pairs import Pair, list_volumes

    masks = {}
    for method, folder in folders.items():
        inner = folder / "predictions"
        masks[method] = list_volumes(inner if inner.is_dir() else folder)
    if reference.suffix == ".json":
        listed = Manifest.read(reference)
        cases = {case.id: case for case in listed.cases}
        return Images(listed.description, resolve_data_root(data_root), cases, masks)
    if dataset is None:
        raise InputError("masks need a description", where="--dataset", hint="Add --dataset NAME.")
    description = load_description(dataset)
    references = list_volumes(reference) if reference.is_dir() else {}
    pairs = [Pair(case, path, None) for case, path in references.items()]
    root, found = cases_of_pairs(pairs, description, images)
    return Images(description, root, found, masks)


def _name_tables(paths: Sequence[Path], *, with_masks: bool) -> dict[str, Path]:
    """Return the score tables by method name, which is the folder's name, or the file's if it is not scores.csv.

    Parent folders are prepended to make names unique. With `with_masks`, a folder need not contain a table yet.
    """
    files = [path / "scores.csv" if path.is_dir() else path for path in paths]
    if len(files) < 2:
        raise InputError(
            "there are fewer than two methods to compare", where="medunet compare", hint="Name two or more."
        )
    if absent := [
        str(path)
        for path, file in zip(paths, files, strict=True)
        if not file.is_file() and not (with_masks and path.is_dir())
    ]:
        raise InputError(
            "there is no scores.csv",
            where=", ".join(absent),
            hint="Run `medunet score` first, or add --reference to score folders of masks here.",
        )
    whole = [file.resolve() for file in files]
    if twice := [str(path) for path, file in zip(paths, whole, strict=True) if whole.count(file) > 1]:
        raise InputError(
            "the same scores are named more than once", where=", ".join(twice), hint="Name each only once."
        )
    parts = [
        file.parent.parts if file.name == "scores.csv" else (*file.parent.parts, file.name) for file in whole
    ]
    for depth in range(1, max(len(each) for each in parts) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, whole, strict=True))


def _print_gaps(comparison: Comparison) -> None:
    """Print the cases that methods lack or failed on, and the labels that were left out of the comparison."""
    for kind, gaps in (("absent", comparison.absent), (" or ".join(UNSCORED), comparison.unscored)):
        for method, cases in gaps.items():
            if cases:
                named = ", ".join(cases[:_NUM_NAMED]) + (" ..." if len(cases) > _NUM_NAMED else "")
                text = f"{method}: {len(cases)} case(s) count as failures: {named}"
                console.print(f"  [yellow]{kind}[/] {escape(text)}", highlight=False, soft_wrap=True)
    for label, methods in comparison.left_out.items():
        text = f"{label}: only {', '.join(methods)} scored it"
        console.print(f"  [yellow]label left out[/] {escape(text)}", highlight=False, soft_wrap=True)


def _row(pair: PairDifference) -> dict[str, Any]:
    row = asdict(pair)
    del row["differences"]
    return row


def _stratum_rows(comparison: Comparison) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of strata.csv and strata_ranking.csv."""
    pairs, rankings = [], []
    for stratum in comparison.strata:
        head = {"by": stratum.by, "stratum": stratum.value}
        pairs += [{**head, **_row(pair)} for pair in stratum.pairs]
        rankings += [{**head, **row} for row in _ranking_rows(stratum.rankings, comparison.methods)]
    return pairs, rankings


def _ranking_rows(rankings: Sequence[Ranking], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per ranking and method, with the fraction of bootstrap samples in which it has each rank."""
    rows = []
    for ranking in rankings:
        stability = ranking.stability
        for index, method in enumerate(methods):
            shares = {f"share_rank_{rank}": share for rank, share in enumerate(stability.shares[index], 1)}
            rows.append(
                {
                    "label": ranking.label,
                    "metric": ranking.metric,
                    "scheme": ranking.scheme,
                    "method": method,
                    "num_cases": ranking.num_cases,
                    "score": stability.scores[index],
                    "rank": stability.ranks[index],
                    **shares,
                    "tau_mean": stability.tau_mean,
                    "tau_low": stability.tau_low,
                }
            )
    return rows


def number_text(value: float) -> str:
    """Return a score as text with three decimals, or a dash if it is undefined."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def _with_interval(pair: PairDifference) -> str:
    if math.isnan(pair.low):
        return number_text(pair.mean_difference)
    return f"{pair.mean_difference:.3f} ({pair.low:.3f} to {pair.high:.3f})"
