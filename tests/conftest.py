"""Fixtures that all tests share."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from corruptions import describe, write_good_set
from hypothesis import settings
from tiny_cohort import write_tiny_cohort

from medunet.base.lock import wait_for
from medunet.base.processor import read_processor
from medunet.cli import app as cli
from medunet.commands.run import run_all
from medunet.compute import choosing
from medunet.compute.choice_cache import SETTINGS, change_settings
from medunet.dataset.manifest import make_manifest
from medunet.planning.planner import make_plan
from medunet.records.config import PlanningConfig
from medunet.records.description import load_description
from medunet.records.manifest import Manifest
from medunet.records.plan import Fingerprint, Plan
from medunet.runs import computing
from medunet.runs.run import Run, open_run
from medunet.training.curves import Curves

pytest_plugins = ("browser_rig",)
settings.register_profile("medunet", deadline=None)  # a machine that does other things may be slow
settings.load_profile("medunet")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let one process of the tests use Ray at a time: clusters that start at once may take one another's ports."""
    with wait_for(tmp_path_factory.getbasetemp().parent, "ray"):
        yield


class QuietCores:
    """Sees no other work."""

    def other_load(self) -> float:
        return 0.0


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's choices of how to compute out of the tests, and the tests' out of the user's cache.

    Other tests use the cores meanwhile, so that no choice would be cached and each training run its benchmark: all
    compute in fp32 and the default layout, and keep what they timed.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (choosing, computing):
            patch.setattr(module, "CoreWatch", QuietCores)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_AUTH_TOKEN", "t" * 40)  # Ray keeps the first one of a process
        if read_processor().limits:
            # What torch.compile keeps for the whole processor is wrong for its lesser part.
            patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        change_settings(
            [f"{key}={'off' if 'off' in values else values[0]}" for key, values in SETTINGS.items()]
        )
        yield


@pytest.fixture(autouse=True)
def draw_no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png, which takes longer than these trainings; `finished_run` has it."""
    monkeypatch.setattr(Curves, "_draw", lambda *_: None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared real scans; skips where it is absent, fails where CI=true asks for it."""
    folder = Path(os.environ.get("MEDUNET_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "hippocampus").is_dir():
        message = "the shared scans are absent; set MEDUNET_SHARED_DATA to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that runs `medunet ...` and gives exit code and all output with line breaks removed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["medunet", *(str(argument) for argument in arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        output = capsys.readouterr()
        text = " ".join((output.out + output.err).split())
        assert "Traceback" not in text
        return code, text

    return run


@pytest.fixture
def good_set(tmp_path: Path) -> Path:
    """Four good cases a, b, c, d of two modalities each."""
    write_good_set(tmp_path)
    return tmp_path


@pytest.fixture
def good_manifest(good_set: Path) -> Manifest:
    """The manifest of the good set: a and b in one fold, c and d in the other."""
    return make_manifest(describe(), good_set, folds=[["a", "b"], ["c", "d"]])


@pytest.fixture
def tiny_plan() -> Plan:
    """A plan small enough to train with in seconds: one CT channel, 16×16×8 patches at 2×2×4 mm."""
    fingerprint = Fingerprint(
        num_cases=2,
        spacings_mm=((2.0, 2.0, 4.0),) * 2,
        shapes=((32, 28, 12),) * 2,
        nonzero_fraction=1.0,
        intensities={"CT": {"percentile_00_5": -50.0, "percentile_99_5": 200.0, "mean": 90.0, "std": 40.0}},
    )
    description = load_description("phantoms")
    config = PlanningConfig(base_features=4, patch_size=(16, 16, 8), batch_size=2)
    return make_plan(fingerprint, description, config, memory_gb=1.0, memory_why="given")


TINY = (
    "planning.base_features=8",
    "planning.patch_size=[24, 24, 8]",
    "planning.batch_size=2",
    "training.epochs=3",
    "training.steps_per_epoch=16",
    "training.optimizer=adamw",
    "training.learning_rate=5e-3",
    "training.precision=fp32",
    "training.augment=false",
    "device=cpu",
)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run on a tiny cohort, all stages done; tests that change it take `own_run`."""
    root = tmp_path_factory.mktemp("finished")
    data_root = write_tiny_cohort(root / "data")
    run = open_run(root / "runs" / "tiny", data_root, dataset="phantoms", changes=TINY)
    run_all(run)
    return run


@pytest.fixture
def own_run(finished_run: Run, tmp_path: Path) -> Run:
    """A copy of the finished run and its data, to change at will."""
    shutil.copytree(finished_run.data_root, tmp_path / "data")
    shutil.copytree(finished_run.folder.root, tmp_path / "run")
    return open_run(tmp_path / "run", tmp_path / "data")
