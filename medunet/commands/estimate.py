"""`medunet estimate`: the time, memory, disk and cards that predicting a cohort takes, from a few measured cases."""

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from medunet.base.errors import InputError
from medunet.base.processor import read_processor, usable_cores
from medunet.base.words import list_some, two_digits
from medunet.commands.load_models import PredictOptions, load_models
from medunet.commands.predict import print_left_out, require_same_channels, scans_of
from medunet.commands.terminal import console, print_stage
from medunet.records.cohort_cost import CohortEstimate
from medunet.records.config import Config, InferenceConfig, WeightsName, load_config
from medunet.records.data_root import resolve_data_root
from medunet.records.manifest import Manifest
from medunet.records.mask_journal import read_mask_index
from medunet.records.model_card import ModelCard
from medunet.records.run_folder import RunFolder
from medunet.runs.computing import require_one_process, set_up_cpu
from medunet.runs.members import find_members
from medunet.runs.selection import apply_steps, chosen, model_of

if TYPE_CHECKING:
    from medunet.inference.extrapolate import CaseSize, CohortTime, MeasuredCase
    from medunet.inference.predictor import Predictor
    from medunet.inference.scan import Scan

_MEASURED, _LEAST = 5, 3  # cases that are predicted by default, and that suffice of earlier masks
_MOST_NAMES = 8
_MOST_OF_STAGES = 8  # cases that are checked and scored


@dataclass(frozen=True)
class _Cohort:
    """The scans that stand for the cohort, and their manifest if they are of one."""

    scans: "list[Scan]"
    manifest: Manifest | None = None
    data_root: Path | None = None
    config: Config | None = None


@dataclass(frozen=True)
class _Measured:
    """What cases took, in which folder their masks are, and what that assumes."""

    cases: "dict[str, MeasuredCase]"
    masks: Path
    assumed: str = ""


def run_estimate(
    source: Path,
    images: Sequence[Path],
    *,
    num_cases: int | None = None,
    workers: int = 1,
    efficiency: float | None = None,
    measure: int | None = None,
    out: Path | None = None,
    data_root: Path | None = None,
    fold: str | None = None,
    device_name: str = "auto",
    weights: WeightsName | None = None,
    options: PredictOptions,
) -> dict[str, str]:
    """Print what predicting a cohort takes, and return the measured cases that failed with their reasons.

    Without `images`, the cases of the run's own manifest stand for the cohort. Masks that the run, or `out`, holds
    already tell what a case takes; with less than three, or with `measure`, a few cases are predicted.

    Args:
        source: a run, a model folder, or a package by its ZIP or name.
        num_cases: of the cohort; None: as many as are given.
        workers: processes that predict at the same time.
        efficiency: of the workers together, as measured; None: it is assumed that none slows another.
        measure: how many cases to predict now, chosen by size.
        out: where the cohort is to be predicted: measured masks are kept there, and the estimate in its cost.json.

    Raises:
        InputError: no scan is given or can be read, or all of the measured ones failed.
    """
    require_one_process()
    from medunet.compute.devices import choose_device
    from medunet.inference.cost_file import keep_estimate
    from medunet.inference.extrapolate import extrapolate
    from medunet.inference.measured_cases import memory_of, sizes_of
    from medunet.inference.model_folder import read_card

    selection = chosen(RunFolder(source)) if images and fold is None else None
    folders = (
        find_members(source, fold)
        if selection is None
        else [model_of(RunFolder(source), member) for member in selection.configuration.members]
    )
    card = read_card(folders[0])
    cohort = _find_cohort(source, images, data_root, card)
    inference = cohort.config.inference if cohort.config else card.inference
    inference = inference.model_copy(update={"weights": weights or inference.weights})
    device = choose_device(device_name)
    set_up_cpu(device)
    earlier = out or RunFolder(source).predictions
    start = time.monotonic()
    model = load_models(folders, device, cohort.scans, earlier, inference, options)
    load_s = time.monotonic() - start
    config = inference.fast() if options.fast else inference
    if selection is not None:
        config, text = apply_steps(config, selection)
        _print(f"[yellow]selection[/]: {escape(text)}")
    sizes, unreadable = sizes_of(model, cohort.scans, config)
    main_bytes, card_bytes = memory_of(model, cohort.scans, sizes, config)
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as folder:
        found, failed = _measure(model, cohort.scans, sizes, config, earlier, Path(folder), measure)
        index_bytes = _bytes_of_entries(found)
        stages = _time_stages(cohort, found, sizes)
    num_cases = num_cases or len(cohort.scans)
    is_hidden = workers < usable_cores() or device.type != "cpu"
    values, known = list(found.cases.values()), list(sizes.values())
    times = {"predict": extrapolate(values, known, num_cases, back_is_hidden=is_hidden)}
    times |= {
        name: extrapolate(rows, known, num_cases, back_is_hidden=False) for name, rows in stages.items()
    }
    estimate = _combine(
        *(model, times["predict"], num_cases, workers, efficiency or 1.0),
        load_s=load_s,
        main_bytes=main_bytes,
        card_bytes=card_bytes,
        disk_bytes=times["predict"].mask_bytes + index_bytes * num_cases,
        measured_cases=len(found.cases),
    )
    console.print(_table(estimate, times))
    _print_assumed(estimate, found, len(sizes), efficiency, unreadable, is_hidden=is_hidden)
    if out is not None:
        keep_estimate(out, estimate)
        print_stage("Estimate", f"{num_cases} cases", out / "cost.json")
    return failed


def _find_cohort(source: Path, images: Sequence[Path], data_root: Path | None, card: ModelCard) -> _Cohort:
    """Return the given scans, or those of the run's own manifest."""
    from medunet.inference.given_scans import find_scans

    run = RunFolder(source)
    if images and not (len(images) == 1 and images[0].suffix == ".json"):
        given = find_scans(images, card)
        print_left_out(given.left_out, given.notes)
        return _Cohort(given.scans)
    if not images and not run.manifest.exists():
        raise InputError(
            "no scans are given", where=str(source), hint="Add scans that are like those of the cohort."
        )
    manifest, root = Manifest.read(images[0] if images else run.manifest), resolve_data_root(data_root)
    require_same_channels(card.description, manifest.description)
    config = load_config(run.config) if not images and run.config.exists() else None
    return _Cohort(scans_of(manifest.used, manifest, root, own=not images), manifest, root, config)


def _measure(
    model: "Predictor",
    scans: "Sequence[Scan]",
    sizes: "Mapping[str, CaseSize]",
    config: InferenceConfig,
    earlier: Path,
    folder: Path,
    count: int | None,
) -> tuple[_Measured, dict[str, str]]:
    """Return what cases took, by the masks in `earlier` or by predicting some into `folder`, and the failed ones."""
    from medunet.inference.extrapolate import choose_by_size
    from medunet.inference.measured_cases import measure_cases, read_measured

    if count is None:
        cases, text = read_measured(model, scans, sizes, config, earlier, read_processor().name)
        if len(cases) >= _LEAST:
            _print(f"measured: {len(cases)} cases that {earlier.name} holds")
            return _Measured(cases, earlier, text), {}
        if text and not cases:
            _print(f"[yellow]note[/]: {escape(text)}")
    readable = [scan for scan in scans if scan.case in sizes]
    places = choose_by_size([sizes[scan.case] for scan in readable], count or _MEASURED)
    chosen = [readable[place] for place in places]
    _print(f"measured, by size: {escape(list_some([scan.case for scan in chosen], _MOST_NAMES))}")
    cases, failed = measure_cases(model, chosen, sizes, config, folder)
    for case, reason in failed.items():
        _print(f"[red]failed[/] {escape(case)}: {escape(reason)}")
    if not cases:
        raise InputError("none of the measured cases could be predicted", hint="See the reasons above.")
    return _Measured(cases, folder), failed


def _bytes_of_entries(found: _Measured) -> float:
    """Return the mean bytes that a measured case has in the index."""
    entries = read_mask_index(found.masks)["cases"]
    texts = [json.dumps({case: entries[case]}) for case in found.cases]
    return sum(map(len, texts)) / len(texts)


def _time_stages(
    cohort: _Cohort, found: _Measured, sizes: "Mapping[str, CaseSize]"
) -> "dict[str, list[MeasuredCase]]":
    """Time check and score on measured cases of a manifest; other scans have no labels."""
    from medunet.commands.other_stages import time_stages  # loads pandas

    if cohort.manifest is None or cohort.data_root is None:
        return {}
    names = list(found.cases)
    step = max(1, math.ceil(len(names) / _MOST_OF_STAGES))
    masks = {scan.case: found.masks / scan.mask_name for scan in cohort.scans if scan.case in found.cases}
    return time_stages(cohort.manifest, cohort.data_root, names[::step], sizes, masks, cohort.config)


def _combine(
    model: "Predictor",
    taken: "CohortTime",
    num_cases: int,
    workers: int,
    efficiency: float,
    *,
    load_s: float,
    main_bytes: int,
    card_bytes: int,
    disk_bytes: float,
    measured_cases: int,
) -> CohortEstimate:
    import torch

    from medunet.inference.cost_file import device_name

    device, share = model.backend.device, 1 / (workers * efficiency)
    cards = 0
    if device.type == "cuda":
        a_card = max(1, int(torch.cuda.mem_get_info(device)[1] // max(1, card_bytes)))
        cards = math.ceil(workers / a_card)
    interval = taken.seconds_range
    return CohortEstimate(
        num_cases=num_cases,
        workers=workers,
        efficiency=efficiency,
        seconds=round(taken.seconds * share, 3),
        seconds_range=None if interval is None else tuple(round(each * share, 3) for each in interval),
        load_seconds=round(load_s, 3),
        main_bytes=main_bytes,
        card_bytes=card_bytes,
        cards=cards,
        disk_bytes=round(disk_bytes),
        measured_cases=measured_cases,
        backend=model.backend.name,
        precision=model.backend.precision,
        device=device_name(device),
        processor=read_processor().name,
        threads=torch.get_num_threads(),
    )


def _table(estimate: CohortEstimate, times: "Mapping[str, CohortTime]") -> Table:
    count, workers = estimate.num_cases, estimate.workers
    table = Table(box=None, pad_edge=False)
    for column in ("", "a case", f"{count} cases, {workers} worker{'s' * (workers > 1)}", "range (95%)"):
        table.add_column(column, justify="left" if not column else "right")
    share = 1 / (workers * estimate.efficiency)
    for name, taken in times.items():
        low_high = taken.seconds_range
        between = "–" if low_high is None else " to ".join(_duration(each * share) for each in low_high)
        table.add_row(
            name,
            f"{two_digits(taken.seconds / count)} s",
            _duration(taken.seconds * share),
            between,
        )
    main = estimate.main_bytes
    table.add_row("memory", f"{two_digits(main / 1e9)} GB a worker", f"{two_digits(workers * main / 1e9)} GB")
    if estimate.card_bytes:
        a_worker = f"{two_digits(estimate.card_bytes / 1e9)} GB a worker"
        table.add_row("cards", a_worker, str(estimate.cards))
    disk = estimate.disk_bytes
    table.add_row("disk", f"{two_digits(disk / count / 1e3)} kB", f"{two_digits(disk / 1e6)} MB")
    return table


def _print_assumed(
    estimate: CohortEstimate,
    found: _Measured,
    num_sizes: int,
    efficiency: float | None,
    unreadable: Mapping[str, str],
    *,
    is_hidden: bool,
) -> None:
    """Print what the estimate takes for granted, and what it leaves out."""
    where = estimate.device if estimate.device != "CPU" else estimate.processor
    threads = f"{estimate.threads} thread{'s' * (estimate.threads > 1)} a worker"
    lines = [
        f"{estimate.backend} in {estimate.precision} on {where}, {threads}, and nothing else that runs there",
        f"sizes like those of the {num_sizes} cases at hand",
    ]
    if found.assumed:
        lines.append(found.assumed)
    if estimate.workers > 1 and efficiency is None:
        lines.append("no worker slows another, which is not measured: give --efficiency")
    if is_hidden and estimate.device == "CPU":
        lines.append("a core is left that writes masks beside the next case")
    _print(f"assumed: {escape('; '.join(lines))}")
    _print(
        f"not in it: loading the model, about {two_digits(estimate.load_seconds)} s a worker; report pages; "
        "network drives that are slower with more workers"
    )
    if unreadable:
        texts = [f"{case} ({why})" for case, why in unreadable.items()]
        _print(f"[yellow]left out[/]: {escape(list_some(texts, _MOST_NAMES))}")


def _print(text: str) -> None:
    console.print(f"  {text}", highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    """Return a time with two digits, such as "40 s", "1.7 h" or "12 days"."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{two_digits(seconds / size)} {unit}"
    return f"{two_digits(seconds)} s"
