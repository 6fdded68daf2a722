"""The command of medunet, timed from within: seconds by part, windows, and stand-ins for the network.

Seconds of a part exclude those of parts within it. Start-up time is measured: torch and medunet are imported inside
the functions, not earlier than the command itself does.
"""

import functools
import importlib.util
import inspect
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Action = Callable[[ModuleType], None]

# Functions that are timed, by the module that defines them, and the part that they belong to.
TIMED = {
    "medunet.dataset.checks.scan_checks": {"CheckedScan.read": "read"},
    "medunet.inference.prepare": {"prepare_scan": "prepare"},
    "medunet.inference.stream": {"WindowStream.slabs": "windows"},
    "medunet.inference.restore": {"restore_labels": "restore", "to_label_map": "restore"},
    "medunet.transforms.chain": {"restore_probabilities": "restore"},
    "medunet.postprocessing.tidy": {"tidy_labels": "tidy"},
    "medunet.imaging.volumes": {"write_mask": "write"},
}
BACKENDS = {
    "medunet.inference.backend": "TorchBackend",
    "medunet.inference.openvino_backend": "OpenVinoBackend",
}


class Clock:
    """Seconds by part, each without those of the parts within it, and what the network computed."""

    def __init__(self, started_s: float, sync: bool) -> None:
        self.started_s, self.sync = started_s, sync
        self.seconds: dict[str, float] = defaultdict(float)
        self.start_s: float | None = None
        self.first_window_s: float | None = None
        self.windows, self.batches = 0, 0
        self.window_s = float("inf")
        self._own, self._lock = threading.local(), threading.Lock()

    def now(self) -> float:
        """Return the time of a clock that all processes of this computer share."""
        if self.sync:
            import torch

            torch.cuda.synchronize()
        return time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within as that of a part."""
        outer = getattr(self._own, "inner_s", 0.0)
        self._own.inner_s = 0.0
        start = self.now()
        if self.start_s is None:
            self.start_s = start - self.started_s
        try:
            yield
        finally:
            taken = self.now() - start
            with self._lock:
                self.seconds[name] += taken - self._own.inner_s
            self._own.inner_s = outer + taken

    def report(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            "seconds_by_part": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
            "start_s": self.start_s and round(self.start_s, 3),
            "first_window_s": self.first_window_s and round(self.first_window_s, 3),
            "windows": self.windows,
            "batches": self.batches,
            "window_s": round(self.window_s, 4) if self.window_s < float("inf") else None,
        }


class AfterImport(MetaPathFinder):
    """Calls a function with a module as soon as it is imported, and imports nothing earlier than the command does."""

    def __init__(self, actions: dict[str, Action]) -> None:
        self.actions = actions

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the module's own specification with the function added to its loading."""
        action = self.actions.pop(fullname, None)
        spec = importlib.util.find_spec(fullname) if action else None
        if action is None or spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_call(module: ModuleType) -> None:
            load(module)
            action(module)

        spec.loader.exec_module = load_and_call  # type: ignore[method-assign]
        return spec


def run_command(
    report: Path, started_s: float, stand_in: str | None, *, sync: bool, arguments: Sequence[str]
) -> None:
    """Run a command of medunet, and write what was measured within it."""
    clock = Clock(started_s, sync)
    actions: dict[str, Action] = {
        module: functools.partial(_time_functions, clock, names) for module, names in TIMED.items()
    }
    for module, name in BACKENDS.items():
        actions[module] = functools.partial(_time_backend, clock, name, stand_in)
    sys.meta_path.insert(0, AfterImport(actions))
    sys.argv = ["medunet", *arguments]
    from medunet.cli.app import main

    try:
        main()
    finally:
        report.write_text(json.dumps(clock.report()))


def _time_functions(clock: Clock, names: dict[str, str], module: ModuleType) -> None:
    for name, part in names.items():
        *owners, last = name.split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, last, _timed(clock, part, getattr(owner, last)))


def _timed(clock: Clock, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function, or a generator, whose time is counted as that of a part."""

    def each(values: Iterator[Any]) -> Iterator[Any]:
        while True:
            with clock.part(part):
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value

    @functools.wraps(function)
    def wrapper(*given: Any, **named: Any) -> Any:
        with clock.part(part):
            answer = function(*given, **named)
        return each(answer) if inspect.isgenerator(answer) else answer

    return wrapper


def _time_backend(clock: Clock, name: str, stand_in: str | None, module: ModuleType) -> None:
    backend = getattr(module, name)
    compute = backend.forward
    answer: Callable[[torch.Tensor], torch.Tensor] | None = None

    def forward(self: Any, images: "torch.Tensor") -> "torch.Tensor":
        nonlocal answer
        if clock.first_window_s is None:
            clock.first_window_s = time.monotonic() - clock.started_s
        clock.windows += len(images)
        clock.batches += 1
        with clock.part("network"):
            if stand_in is not None and clock.batches > 2:
                assert answer is not None
                return answer(images)
            start = clock.now()
            logits = compute(self, images)
            clock.window_s = min(clock.window_s, (clock.now() - start) / len(images))
            if stand_in is not None and answer is None:
                answer = (
                    smooth_logits(logits.shape[1]) if stand_in == "smooth" else noise_logits(logits.shape[1:])
                )
            return logits

    backend.forward = forward


def smooth_logits(num_classes: int) -> "Callable[[torch.Tensor], torch.Tensor]":
    """Return a function from windows of the CT of `make_scan` to logits of 8 at the class of the grey value.

    Between two classes their logits change linearly with the grey value; all others are -8.
    """
    import torch
    import torch.nn.functional as F
    from prediction_models import CT_RANGE_HU

    low, high = ((hu - 50.0) / 120.0 for hu in CT_RANGE_HU)  # as the plan normalises

    def answer(images: torch.Tensor) -> torch.Tensor:
        quiet = images[:, :1].float()
        for size in ((9, 1, 1), (1, 9, 1), (1, 1, 9)):  # of little noise, axis by axis
            padding = tuple(n // 2 for n in size)
            quiet = F.avg_pool3d(quiet, size, 1, padding, count_include_pad=False)
        place = ((quiet - low) / (high - low) * num_classes - 0.5).clamp_(0, num_classes - 1)
        lower = place.floor().clamp_(max=num_classes - 2)
        share, index = place - lower, lower.long()
        logits = torch.full((len(images), num_classes, *images.shape[2:]), -8.0, device=images.device)
        logits.scatter_(1, index, 8 - 16 * share)
        return logits.scatter_(1, index + 1, 16 * share - 8)

    return answer


def noise_logits(shape: Sequence[int]) -> "Callable[[torch.Tensor], torch.Tensor]":
    """Return a function from windows to random logits: a few planes again and again, to save memory."""
    import torch

    planes = torch.randn((shape[0], 8, *shape[2:]), generator=torch.Generator().manual_seed(0))

    def answer(images: torch.Tensor) -> torch.Tensor:
        logits = torch.empty((len(images), *shape), device=images.device)
        for start in range(0, shape[1], 8):
            part = logits[:, :, start : start + 8]
            part.copy_(planes[:, : part.shape[2]])
        return logits

    return answer
