"""Many scans through one model: the next one is prepared and the last one is written beside the one that computes."""

import logging
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError, InputError, MedunetError, is_out_of_memory
from medunet.base.free_memory import peak_bytes
from medunet.base.progress import CaseBar
from medunet.base.threads import Call, ThreadEndedError
from medunet.base.words import two_digits
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import write_mask
from medunet.inference.maps import CaseMaps, map_paths
from medunet.inference.mask_index import describe_making, hash_images, head_of
from medunet.inference.predictor import Predictor
from medunet.inference.scan import Scan
from medunet.inference.window_count import WindowCounts
from medunet.records.config import InferenceConfig, MapName
from medunet.records.fault import Fault
from medunet.records.mask_journal import MaskJournal

_log = logging.getLogger(__name__)
_BEGUN = {"begun": True}  # marks an unfinished mask as written by medunet
_PATIENCE_S = 10.0  # for a mask that is being written when the job ends early
PARTS = ("read", "prepare", "compute", "tidy", "write")


class _StoppedError(Exception):
    """The job has ended while a scan was read ahead."""


@dataclass(frozen=True, slots=True)
class Task:
    """A scan to predict, with the entry in the index of its earlier mask."""

    scan: Scan
    before: Mapping[str, Any] | None = None
    only_checks: bool = False  # the earlier mask is kept, and lacks the checks of its scan alone


@dataclass(frozen=True)
class Done:
    """A case that is finished: why it failed, or the time and the windows that it took."""

    case: str
    failed: str = ""
    took: Mapping[str, float] = field(default_factory=dict)
    written_bytes: int = 0  # its mask and maps
    peak_bytes: int = 0  # the most memory of its process until then


@dataclass
class _Case:
    """A scan on its way; `prepared` is taken out when it is computed."""

    task: Task
    checked: CheckedScan
    maps: CaseMaps
    image_sha256: str = ""
    prepared: list[Any] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by part
    windows: dict[str, int] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)  # by the model, beside the labels

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a part, without that of parts inside it."""
        start, inside = time.monotonic(), sum(self.seconds.values())
        yield
        inside = sum(self.seconds.values()) - inside
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start - inside

    def count(self, stream: WindowCounts) -> None:
        self.windows = {"windows": stream.num_done, "windows_reused": stream.num_reused}

    def describe(self) -> dict[str, Any]:
        """Return what its entry in the index says of it, beside what shaped its mask."""
        return {
            "seconds": round(sum(self.seconds.values()), 2),
            "seconds_by_part": {name: round(self.seconds.get(name, 0.0), 3) for name in PARTS},
            **self.windows,
            **self.found,
            "faults": fault_rows(self.checked.faults),
        }


class Cohort:
    """Predicts scans one after another, with their masks and the index in one folder.

    The network computes in the calling thread. The last mask is tidied and written in a thread beside it and, with
    `ahead`, the next scan is read and prepared in another, so that at most one scan is in each of the three places.
    An error belongs to its case; `InputError`, and a thread that ends by something unforeseen, end the job, at the
    next window of the case that is being computed.
    """

    def __init__(
        self,
        model: Predictor,
        folder: Path,
        config: InferenceConfig,
        *,
        ahead: bool,
        maps: Collection[MapName] = (),
        bar: CaseBar | None = None,
    ) -> None:
        """Prepare for scans of which none is being predicted into the folder by another process.

        Args:
            ahead: whether the next scan is prepared while one computes.
            maps: that are written beside the masks.
            bar: shows how far the cases are.
        """
        self._maps, self._bar = maps, bar
        self._model, self._folder, self._config = model, folder, config
        self._journal = MaskJournal(folder, head_of(model.card.description))
        self._ahead = ahead
        self._found: set[str] = set()  # cases whose files could be read: their earlier masks are out of date
        self._making: dict[bool, dict[str, Any]] = {}
        self._reading: tuple[int, Task, Call[_Case]] | None = None
        self._writing: tuple[int, _Case, Call[None]] | None = None
        self._stop = threading.Event()

    def predict(self, tasks: Iterable[tuple[int, Task]]) -> Generator[tuple[int, Done], None, None]:
        """Predict scans as they come, and yield the number and outcome of each once its mask is written.

        An outcome may have to wait for the next scan, or for the end of the scans.

        Raises:
            InputError: the folder cannot be written, or options cannot be used.
            ThreadEndedError: a step ended by anything else than an `Exception`.
        """
        following = iter(tasks)
        with self._journal:
            try:
                while (begun := self._next(following)) is not None:
                    yield from self._predict(*begun, following)
                yield from self._end_writing()
            finally:
                self._stop.set()
                for waiting in (self._writing, self._reading):
                    if waiting is not None:
                        waiting[2].wait(_PATIENCE_S)

    def _next(self, following: Iterator[tuple[int, Task]]) -> tuple[int, Task, Call[_Case] | None] | None:
        """Return the scan that is being read ahead, or else the next one; None after the last one."""
        if (reading := self._reading) is not None:
            self._reading = None
            return reading
        upcoming = next(following, None)
        return None if upcoming is None else (*upcoming, None)

    def _predict(
        self, number: int, task: Task, call: Call[_Case] | None, following: Iterator[tuple[int, Task]]
    ) -> Iterator[tuple[int, Done]]:
        scan = task.scan
        if self._bar is not None:
            self._bar.begin(scan.case)
        case: _Case | None = None
        try:
            case = call.result() if call else self._read(task)
            if self._ahead and (upcoming := next(following, None)) is not None:
                self._reading = (*upcoming, Call("reading scans", partial(self._read, upcoming[1])))
            if not case.prepared:  # only its checks were missing
                self._journal.change(
                    {scan.case: {**(task.before or {}), "faults": fault_rows(case.checked.faults)}}
                )
                yield number, Done(scan.case)
                return
            self._journal.change({scan.case: _BEGUN}, drop=[scan.case])
            with case.part("compute"):
                prepared = case.prepared.pop()
                watch, maps = partial(self._watch, case), case.maps if self._maps else None
                mask = self._model.compute(prepared, self._config, on_window=watch, maps=maps)
                header, case.found = prepared.header, prepared.found
                for note in prepared.notes:
                    _log.info(f"{scan.case}: {note}.")
                del prepared
        except (InputError, ThreadEndedError):  # not specific to the case: a full disk, or unusable options
            raise
        except Exception as error:  # continue with the other cases
            yield from self._end_writing()
            yield number, self._fail(task, error)
            if case is not None:
                case.maps.discard()
            return
        yield from self._end_writing()
        self._writing = number, case, Call("writing masks", partial(self._write, case, [mask], header))

    def _read(self, task: Task) -> _Case:
        """Read, check and prepare a scan."""
        scan = task.scan
        if scan.trouble:
            raise DataError(scan.trouble)
        checked = self._model.check(scan.case, scan.images, accepted=scan.accepted, resample=scan.resample)
        maps = CaseMaps(self._maps, self._paths_of_maps(scan), self._model.card.description)
        case = _Case(task, checked, maps)

        def read() -> Volume:
            with case.part("read"):
                volume = checked.read()
            self._stop_if_ended()
            return volume

        if task.only_checks:
            read()
            return case
        with case.part("read"):
            case.image_sha256 = hash_images(scan.images)
        self._found.add(scan.case)
        self._stop_if_ended()
        with case.part("prepare"):
            case.prepared.append(self._model.prepare(scan.images, read=read))
        return case

    def _stop_if_ended(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _watch(self, case: _Case, stream: WindowCounts) -> None:
        """Show how far a case is, and end it if the job cannot go on."""
        case.count(stream)
        if self._bar is not None:
            self._bar.update(stream.num_done / stream.num_windows)
        for waiting in (self._reading, self._writing):
            if waiting is not None:
                waiting[2].raise_if_broken()

    def _write(self, case: _Case, mask: list[NDArray[np.uint8]], header: Any) -> None:
        """Tidy and write a mask, and enter it into the journal."""
        scan = case.task.scan
        with case.part("tidy"):
            tidied = self._model.finish(mask.pop(), header, self._config)
        with case.part("write"):
            write_mask(self._folder / scan.mask_name, tidied, header)
            case.maps.write(header)
        entry = {"image_sha256": case.image_sha256, **self._describe_making(scan), **case.describe()}
        if self._maps:
            entry["maps"] = sorted(self._maps)
        self._journal.change({scan.case: entry})

    def _paths_of_maps(self, scan: Scan) -> dict[MapName, Path]:
        return map_paths(self._folder, scan.case, scan.mask_name)

    def _describe_making(self, scan: Scan) -> dict[str, Any]:
        resample = scan.is_resampled
        if resample not in self._making:
            self._making[resample] = describe_making(self._model, self._config, resample=resample)
        return self._making[resample]

    def _end_writing(self) -> Iterator[tuple[int, Done]]:
        """Wait until the last mask is written, and yield the outcome of its case."""
        if self._writing is None:
            return
        number, case, writing = self._writing
        writing.wait()  # interrupted here, `predict` still gives it time
        self._writing = None
        try:
            writing.result()
        except (InputError, ThreadEndedError):
            raise
        except Exception as error:
            case.maps.discard()
            yield number, self._fail(case.task, error)
            return
        scan = case.task.scan
        paths = [self._folder / scan.mask_name, *(self._paths_of_maps(scan).values() if self._maps else ())]
        written = sum(path.stat().st_size for path in paths if path.exists())
        yield number, Done(scan.case, "", case.seconds | case.windows, written, peak_bytes() or 0)

    def _fail(self, task: Task, error: Exception) -> Done:
        """Keep the reason of a failed case, while no mask is being written."""
        scan, reason = task.scan, _reason(error, self._model)
        mask = self._folder / scan.mask_name
        if scan.case in self._found:  # an old mask must not be mistaken for this scan's
            for path in (mask, *self._paths_of_maps(scan).values()):
                path.unlink(missing_ok=True)
        elif "image_sha256" in (task.before or {}) and mask.exists():
            return Done(scan.case, failed=f"{reason} (its earlier mask is kept)")
        self._journal.change(failed={scan.case: reason}, drop=[scan.case])
        return Done(scan.case, failed=reason)


def describe_times(took: Mapping[str, float], num_cases: int, seconds: float) -> str:
    """Return a line on the time of predicted cases, from the sums of what they took."""
    parts = ", ".join(f"{name} {two_digits(took.get(name, 0) / num_cases)}" for name in PARTS)
    text = f"{num_cases} cases in {seconds:.1f} s, {two_digits(seconds / num_cases)} s a case ({parts})"
    if windows := int(took.get("windows", 0)):
        text += f"; {windows} windows"
        if reused := int(took["windows_reused"]):
            text += f", {reused} of them reused because they hold one value"
    return f"{text}."


def fault_rows(faults: Sequence[Fault]) -> list[dict[str, str]]:
    """Return what the index keeps of a scan's faults."""
    keys = ("code", "severity", "subject", "measured", "accepted")
    return [{key: getattr(fault, key) for key in keys if getattr(fault, key)} for fault in faults]


def _reason(error: Exception, model: Predictor) -> str:
    if is_out_of_memory(error):
        hint = (
            "Free memory" if model.backend.device.type == "cpu" else "Free memory there, or use --device cpu"
        )
        return f"memory ran out on {model.backend.device}. {hint}."
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename)).name}: no such file"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = (str(error).splitlines() or [""])[0]
    return (first if isinstance(error, MedunetError) else first[:300]) or type(error).__name__
