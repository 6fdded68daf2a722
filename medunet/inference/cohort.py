"""Many scans through one model: the next one is prepared and the last one is written beside the one that computes."""

import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError, InputError, MedunetError, is_out_of_memory
from medunet.base.progress import CaseBar
from medunet.base.threads import Call, ThreadEndedError
from medunet.base.words import two_digits
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import write_mask
from medunet.inference.maps import CaseMaps, map_paths
from medunet.inference.mask_index import MaskIndex, describe_making, hash_images
from medunet.inference.predictor import Predictor
from medunet.inference.scan import Scan
from medunet.inference.window_count import WindowCounts
from medunet.records.config import InferenceConfig, MapName
from medunet.records.fault import Fault

_log = logging.getLogger(__name__)
_BEGUN = {"begun": True}  # marks an unfinished mask as written by medunet
_PATIENCE_S = 10.0  # for a mask that is being written when the job ends early
_PARTS = ("read", "prepare", "compute", "tidy", "write")


class _StoppedError(Exception):
    """The job has ended while a scan was read ahead."""


@dataclass
class _Case:
    """A scan on its way; `prepared` is taken out when it is computed."""

    scan: Scan
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
            "seconds_by_part": {name: round(self.seconds.get(name, 0.0), 3) for name in _PARTS},
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
        entries: Mapping[str, Any],
        unchecked: Collection[str] = (),
        *,
        ahead: bool,
        maps: Collection[MapName] = (),
    ) -> None:
        """Prepare for scans of which none is being predicted into the folder by another process.

        Args:
            entries: what the index says of earlier masks, by case.
            unchecked: cases whose masks are kept: their scans are only checked.
            ahead: whether the next scan is prepared while one computes.
            maps: that are written beside the masks.
        """
        self._maps = maps
        self.failed: dict[str, str] = {}
        self._model, self._folder, self._config = model, folder, config
        self._index = MaskIndex(folder, model.card.description)
        self._entries, self._unchecked, self._ahead = entries, unchecked, ahead
        self._found: set[str] = set()  # cases whose files could be read: their earlier masks are out of date
        self._begun: set[str] = set()
        self._making: dict[bool, dict[str, Any]] = {}
        self._reading: Call[_Case] | None = None
        self._writing: Call[None] | None = None
        self._written: _Case | None = None
        self._stop = threading.Event()
        self._totals: dict[str, float] = {}
        self._num_computed = 0

    def predict(self, scans: Sequence[Scan]) -> Self:
        """Predict scans; `failed` then has the reasons of those that failed.

        Raises:
            InputError: the folder cannot be written, or options cannot be used.
            ThreadEndedError: a step ended by anything else than an `Exception`.
        """
        start = time.monotonic()
        with CaseBar("Predict", len(scans)) as self._bar:
            try:
                for number, scan in enumerate(scans):
                    self._predict(scan, scans[number + 1 :][:1])
                self._end_writing()
            finally:
                self._stop.set()
                for call in (self._writing, self._reading):
                    if call is not None:
                        call.wait(_PATIENCE_S)
        self._index.change()  # also where nothing was left to predict
        if self._num_computed:
            self._log_times(time.monotonic() - start)
        return self

    def _predict(self, scan: Scan, following: Sequence[Scan]) -> None:
        self._bar.begin(scan.case)
        reading, self._reading = self._reading, None
        case: _Case | None = None
        try:
            case = reading.result() if reading else self._read(scan)
            if self._ahead and following:
                self._reading = Call("reading scans", partial(self._read, following[0]))
            if not case.prepared:  # only its checks were missing
                entry = {**self._entries[scan.case], "faults": fault_rows(case.checked.faults)}
                self._index.change({scan.case: entry})
                self._bar.advance()
                return
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
            self._end_writing()
            self._fail(scan, error)
            if case is not None:
                case.maps.discard()
            return
        self._end_writing()
        follower = next((each.case for each in following if each.case not in self._unchecked), None)
        write = partial(self._write, case, [mask], header, follower)
        self._written, self._writing = case, Call("writing masks", write)

    def _read(self, scan: Scan) -> _Case:
        """Read, check and prepare a scan."""
        if scan.trouble:
            raise DataError(scan.trouble)
        checked = self._model.check(scan.case, scan.images, accepted=scan.accepted, resample=scan.resample)
        maps = CaseMaps(self._maps, self._paths_of_maps(scan), self._model.card.description)
        case = _Case(scan, checked, maps)

        def read() -> Volume:
            with case.part("read"):
                volume = checked.read()
            self._stop_if_ended()
            return volume

        if scan.case in self._unchecked:
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
        self._bar.update(stream.num_done / stream.num_windows)
        for call in (self._reading, self._writing):
            if call is not None:
                call.raise_if_broken()

    def _write(self, case: _Case, mask: list[NDArray[np.uint8]], header: Any, follower: str | None) -> None:
        """Tidy and write a mask; its entry in the index also marks the case that follows as begun."""
        name = case.scan.case
        with case.part("tidy"):
            tidied = self._model.finish(mask.pop(), header, self._config)
        with case.part("write"):
            if name not in self._begun:
                self._index.change({name: _BEGUN}, drop=[name])
            write_mask(self._folder / case.scan.mask_name, tidied, header)
            case.maps.write(header)
        entry = {"image_sha256": case.image_sha256, **self._describe_making(case.scan), **case.describe()}
        if self._maps:
            entry["maps"] = sorted(self._maps)
        begun = {follower: _BEGUN} if follower else {}
        self._index.change({name: entry, **begun}, drop=begun)
        self._begun.update(begun)

    def _paths_of_maps(self, scan: Scan) -> dict[MapName, Path]:
        return map_paths(self._folder, scan.case, scan.mask_name)

    def _describe_making(self, scan: Scan) -> dict[str, Any]:
        resample = scan.is_resampled
        if resample not in self._making:
            self._making[resample] = describe_making(self._model, self._config, resample=resample)
        return self._making[resample]

    def _end_writing(self) -> None:
        """Wait until the last mask is written."""
        case, writing = self._written, self._writing
        if case is None or writing is None:
            return
        writing.wait()  # interrupted here, `predict` still gives it time
        self._written = self._writing = None
        try:
            writing.result()
        except (InputError, ThreadEndedError):
            raise
        except Exception as error:
            self._fail(case.scan, error)
            case.maps.discard()
            return
        self._bar.advance()
        self._num_computed += 1
        for name, value in (case.seconds | case.windows).items():
            self._totals[name] = self._totals.get(name, 0) + value

    def _fail(self, scan: Scan, error: Exception) -> None:
        """Keep the reason of a failed case, while no mask is being written."""
        self.failed[scan.case] = reason = _reason(error, self._model)
        mask = self._folder / scan.mask_name
        self._bar.advance()
        if scan.case in self._found:  # an old mask must not be mistaken for this scan's
            for path in (mask, *self._paths_of_maps(scan).values()):
                path.unlink(missing_ok=True)
        elif "image_sha256" in self._entries.get(scan.case, {}) and mask.exists():
            self.failed[scan.case] = f"{reason} (its earlier mask is kept)"
            return
        self._index.change(failed={scan.case: reason}, drop=[scan.case])
        self._begun.discard(scan.case)

    def _log_times(self, seconds: float) -> None:
        count, totals = self._num_computed, self._totals
        parts = ", ".join(f"{name} {two_digits(totals.get(name, 0) / count)}" for name in _PARTS)
        text = f"{count} cases in {seconds:.1f} s, {two_digits(seconds / count)} s a case ({parts})"
        if windows := int(totals.get("windows", 0)):
            text += f"; {windows} windows"
            if reused := int(totals["windows_reused"]):
                text += f", {reused} of them reused because they hold one value"
        _log.info(f"{text}.")


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
