"""What `medunet predict` does: networks, scans and options, in this process or shared by workers."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from medunet.base.errors import InputError, MedunetError
from medunet.base.free_memory import free_bytes
from medunet.base.pool import Lost, Workers, current_engine, serve_parallel
from medunet.base.processor import usable_cores
from medunet.base.progress import CaseBar
from medunet.base.ray_engine import RayEngine
from medunet.commands.load_models import (
    AS_USUAL,
    PredictOptions,
    choose_options,
    in_roi,
    load_models,
    print_members,
)
from medunet.commands.terminal import console
from medunet.imaging.volumes import read_header
from medunet.records.config import Config, InferenceConfig
from medunet.records.mask_journal import MaskJournal, join_journals, read_mask_index
from medunet.records.model_card import ModelCard
from medunet.records.selection import Selection
from medunet.runs.computing import precision_for, set_up_cpu
from medunet.runs.selection import apply_steps

if TYPE_CHECKING:
    from medunet.inference.cohort import Done, Task
    from medunet.inference.predictor import Predictor
    from medunet.inference.scan import Scan

_ENDING_S = 5.0  # for workers on other nodes, which end a moment after they are told to
_MOST_ON_CARD = 4  # workers that share one
_SCANS_HELD = 2  # by a worker: one is computed while another is read or written
_SPARE_BYTES = 300_000_000  # that a worker has freed and not returned
_CARD_BYTES = 1_500_000_000  # of a worker's libraries on a card


@dataclass(frozen=True)
class PredictJob:
    """Networks to be averaged, how they predict, and the folder of the masks; workers receive it pickled."""

    folders: tuple[Path, ...]
    out: Path
    inference: InferenceConfig  # of the first network's plan
    device: str = "auto"
    options: PredictOptions = AS_USUAL
    config: Config | None = None  # of the run whose own cases are predicted, in the precision of its training
    selection: Selection | None = None  # whose postprocessing is applied
    fold: int | str | None = None  # which holds out the scans, if they are a run's own
    held_out: bool = False
    overwrite: bool = False

    def load(self, scans: Sequence["Scan"]) -> "tuple[Predictor, InferenceConfig]":
        """Load the networks as they are to predict scans, and print what they cost and how they were chosen."""
        from medunet.compute.devices import choose_device

        device, options = choose_device(self.device), self.options
        if self.config is not None and options.precision == "auto":
            options = replace(options, precision=precision_for(self.config, device))
        model = load_models(self.folders, device, scans, self.out, self.inference, options)
        inference = choose_options(model, self.inference, fast=options.fast)
        if self.selection is not None:
            inference, text = apply_steps(inference, self.selection)
            console.print(f"  [yellow]selection[/]: {escape(text)}", highlight=False, soft_wrap=True)
        print_members(model)
        predictor = in_roi(model, scans, self.out, options, fold=self.fold, held_out=self.held_out)
        return predictor, inference


def predict(job: PredictJob, scans: Sequence["Scan"], devices: Sequence[str] = ()) -> dict[str, str]:
    """Predict scans in this process, or by several workers, and return the failed cases with their reasons.

    Args:
        devices: one worker for each; none or one: this process, if the engine is the local one.

    Raises:
        InputError: options or devices cannot be used.
    """
    if scans and (len(devices) > 1 or current_engine().name != "local"):
        return _predict_shared(job, scans, devices)
    from medunet.compute.devices import choose_device
    from medunet.inference.predict import predict_scans

    job = replace(job, device=devices[0]) if devices else job
    set_up_cpu(choose_device(job.device))
    predictor, inference = job.load(scans)
    return predict_scans(predictor, scans, job.out, inference, overwrite=job.overwrite, maps=job.options.maps)


def parse_devices(text: str) -> list[str]:
    """Return the device of each worker: `0,1` are two cards, `cpu:2` is the CPU twice.

    Raises:
        InputError: it names no device, or cards and the CPU together.
    """
    devices: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        kind, _, number = part.partition(":")
        if part.isdigit():
            devices.append(f"cuda:{part}")
        elif kind == "cpu" and (number.isdigit() or not number):
            devices += ["cpu"] * int(number or 1)
        elif kind == "cuda" and (number.isdigit() or not number):
            devices.append(part)
        else:
            devices = []
            break
    if not devices or len({device.split(":")[0] for device in devices}) > 1:
        raise InputError(
            f"'{text}' names no devices" if not devices else f"'{text}' names cards and the CPU together",
            where="--devices",
            hint="Give cards, such as 0,1,2,3, or workers on the CPU, such as cpu:2.",
        )
    return devices


@dataclass(frozen=True)
class _Prepared:
    """What one worker finds out for all."""

    precision: str
    backend: str
    making: Mapping[bool, Mapping[str, Any]]  # see `describe_making`
    memory_bytes: int  # that a worker takes with the largest scan
    card_share: float  # of a card that a worker takes; 0 on a CPU
    device: str  # its name
    printed: str


def _predict_shared(job: PredictJob, scans: Sequence["Scan"], devices: Sequence[str]) -> dict[str, str]:
    """Predict by workers: one loads the networks first and finds out what all of them need."""
    from medunet.inference.cost_file import count_cost
    from medunet.inference.mask_index import head_of
    from medunet.inference.predict import collect, find_tasks, predict_free, remove_leftovers

    engine = current_engine()
    if isinstance(engine, RayEngine):
        on_cards = engine.has_cards() if job.device == "auto" else job.device != "cpu"
        devices = ["cuda" if on_cards else "cpu"]
    on_card = devices[0] != "cpu"
    asked = Workers(1, gpus=float(on_card and isinstance(engine, RayEngine)))
    ((_, prepared),) = serve_parallel(_Prepare(replace(job, device=devices[0]), scans), [None], asked)
    if isinstance(prepared, Lost):
        raise InputError(
            prepared.why, where="loading the networks", hint="Free memory, or take a smaller model."
        )
    print(prepared.printed, end="", flush=True)
    card = ModelCard.read(job.folders[0] / "model.json")
    job = replace(job, options=replace(job.options, precision=prepared.precision, backend=prepared.backend))
    if isinstance(engine, RayEngine):
        workers = engine.share(len(scans), prepared.memory_bytes, prepared.card_share)
    else:
        workers = _fitting_here(len(devices), prepared.memory_bytes)
    threads = max(1, int(workers.cpus))
    ram_gb = job.options.ram_gb / workers.count if job.options.ram_gb else workers.memory_bytes / 1e9
    job = replace(job, options=replace(job.options, ram_gb=ram_gb))
    head = head_of(card.description)

    def work(mine: Sequence["Scan"]) -> dict[str, str]:
        tasks = find_tasks(
            mine, job.out, card.description, prepared.making, overwrite=job.overwrite, maps=job.options.maps
        )
        serve = _Serve(job, tuple(devices), threads)
        ahead = 2 if on_card else 1  # beside the scan that computes: one is written, on a card one read ahead
        sizes = [_num_bytes(task.scan) for task in tasks]
        outcomes = serve_parallel(serve, tasks, workers, ahead=ahead, sizes=sizes)
        with count_cost(job.out, prepared.device, workers=workers.count, threads=threads) as cost:
            try:
                with (
                    CaseBar("Predict", len(tasks)) as bar,
                    closing(_named(outcomes, tasks, job, head)) as done,
                ):
                    return collect(done, bar, cost)
            finally:
                del tasks, sizes  # joining takes as much memory
                join_journals(job.out, head, patience_s=_ENDING_S)
                remove_leftovers(mine, job.out)  # of workers that were killed

    return predict_free(scans, job.out, work)


def _fitting_here(asked: int, memory_bytes: int) -> Workers:
    """Return as many local workers as memory allows; a line names those that it does not."""
    free = free_bytes()
    count = max(1, min(asked, free // memory_bytes))
    if count < asked:
        why = f"each takes about {memory_bytes / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
        text = f"  [yellow]note[/] {count} of {asked} workers: {why}"
        console.print(text, highlight=False, soft_wrap=True)
    return Workers(count, free // count, max(1, usable_cores() // count))


def _num_bytes(scan: "Scan") -> int:
    try:
        return sum(path.stat().st_size for path in scan.images)
    except OSError:  # the case fails with the reason
        return 0


def _named(
    outcomes: Generator[tuple[int, Any], None, None],
    tasks: Sequence["Task"],
    job: PredictJob,
    head: Mapping[str, Any],
) -> Generator[tuple[int, "Done"], None, None]:
    """Yield outcomes; a case that was lost with its worker is entered into the index as failed."""
    from medunet.inference.cohort import Done

    with closing(outcomes), MaskJournal(job.out, head) as journal:
        for index, outcome in outcomes:
            if not isinstance(outcome, Lost):
                yield index, outcome
                continue
            scan, why = tasks[index].scan, outcome.why
            mask = job.out / scan.mask_name
            if "begun" in read_mask_index(job.out).get("cases", {}).get(scan.case, {}):
                mask.unlink(missing_ok=True)
            if mask.exists() and tasks[index].before:
                why += " (its earlier mask is kept)"
            else:
                journal.change(failed={scan.case: why}, drop=[scan.case])
            yield index, Done(scan.case, failed=why)


@dataclass(frozen=True)
class _Prepare:
    """Loads the networks once and says what they need; see `_Prepared`."""

    job: PredictJob
    scans: Sequence["Scan"]

    def __call__(self, items: Iterator[tuple[int, None]], number: int) -> Iterator[tuple[int, _Prepared]]:
        for index, _ in items:
            with console.capture() as captured:
                predictor, inference = self.job.load(self.scans)
            yield index, self._find_out(predictor, inference, captured.get())

    def _find_out(self, predictor: "Predictor", inference: InferenceConfig, printed: str) -> _Prepared:
        import psutil

        from medunet.inference.cost_file import device_name
        from medunet.inference.mask_index import describe_making
        from medunet.postprocessing.steps import check_steps

        check_steps(inference.postprocess, predictor.card.description.targets)
        backend = predictor.backend
        making = {each: describe_making(predictor, inference, resample=each) for each in (False, True)}
        main, on_card = psutil.Process().memory_info().rss + _SPARE_BYTES, 0
        for model, options in predictor.models(inference):
            estimate = model.memory.estimate(self._largest(), options, model.memory.ways[-1])
            main += _SCANS_HELD * estimate.main_bytes
            on_card += estimate.card_bytes
        return _Prepared(
            backend.precision,
            backend.name,
            making,
            main,
            _card_share(backend, on_card),
            device_name(backend.device),
            printed,
        )

    def _largest(self) -> list[Any]:
        """Return the headers of the largest scan that can be read."""
        for scan in sorted(self.scans, key=_num_bytes, reverse=True):
            try:
                return [read_header(path) for path in scan.images]
            except (MedunetError, OSError):
                continue
        raise InputError("none of the scans can be read", where="medunet predict", hint="Check the paths.")


def _card_share(backend: Any, num_bytes: int) -> float:
    """Return which share of a card a worker takes; 0 on a CPU."""
    if backend.device.type == "cpu":
        return 0.0
    import torch

    _, total = torch.cuda.mem_get_info(backend.device)
    return 1 / max(1, min(_MOST_ON_CARD, total // (num_bytes + _CARD_BYTES)))


@dataclass(frozen=True)
class _Serve:
    """A worker: loads the networks once and predicts scans as they come."""

    job: PredictJob
    devices: tuple[str, ...]
    threads: int

    def __call__(self, items: Iterator[tuple[int, "Task"]], number: int) -> Iterator[tuple[int, "Done"]]:
        os.environ["OMP_NUM_THREADS"] = str(self.threads)  # before torch is imported
        from medunet.compute.devices import keep_freed_memory, use_cores
        from medunet.inference.cohort import Cohort

        console.quiet = True
        job = replace(self.job, device=self.devices[number % len(self.devices)])
        use_cores()
        if job.device == "cpu":
            keep_freed_memory()
        predictor, inference = job.load(())
        ahead = predictor.backend.device.type != "cpu"
        yield from Cohort(predictor, job.out, inference, ahead=ahead, maps=job.options.maps).predict(items)
