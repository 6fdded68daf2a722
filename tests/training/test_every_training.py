"""Every loss, optimiser, precision and network trains through the stages, as its user would ask for it."""

import itertools
import math
import shutil
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import torch
from conftest import TINY
from planned_run import begin_run
from safetensors.torch import load_file
from typer.testing import CliRunner

from medunet.base.files import read_json
from medunet.cli import app as cli
from medunet.commands.predict import run_predict
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.records.config import LossName
from medunet.records.description import load_description
from medunet.records.scores import UNSCORED
from medunet.runs.run import Run
from medunet.training import module

QUICK = ("training.epochs=1", "training.steps_per_epoch=2", "training.validation_cases=1")
# Adam divides by the gradient's size: where it is rounding noise, as of a bias before a norm, noise moves weights.
NOISE_STAYS_SMALL = "training.optimizer=sgd"
NETWORKS = {
    "2d": ("planning.dimensions=2", "planning.patch_size=[24, 16]"),
    "2d with three slices": (
        "planning.dimensions=2", "planning.patch_size=[24, 16]", "planning.context_slices=3",
    ),
    "2d resized": ("planning.dimensions=2", "planning.patch_size=[32, 32]", "planning.resize_to=[48, 32]"),
    "unet_2015": (
        "planning.dimensions=2", "planning.network={name: unet_2015, num_stages: 2}", "planning.patch_size=[44, 36]",
    ),
    "classroom 2d": (
        "planning.dimensions=2", "planning.network.name=classroom", "planning.patch_size=[32, 24]",
        "planning.network.upsampling=interpolate",
    ),
    "classroom 3d": ("planning.network={name: classroom, num_stages: 3}", "planning.patch_size=[24, 16, 8]"),
    "residual_m": ("planning.network.name=residual_m",),
    "several scales in": ("planning.network.multi_scale_input=true",),
    "dynunet": ("planning.network.name=dynunet",),
    "segresnet_ds": ("planning.network={name: segresnet_ds, num_stages: 3}", "planning.patch_size=[24, 16, 8]"),
    "swin_unetr": (
        "planning.dimensions=2", "planning.network.name=swin_unetr", "planning.base_features=12",
        "planning.patch_size=[64, 32]",
    ),
    "mednext": ("planning.network.name=mednext", "planning.patch_size=[32, 16, 16]", "planning.base_features=4"),
}  # fmt: skip


def begin(given: Run, root: Path, *changes: str, exclusive: bool = False) -> Run:
    """Begin a run on the same scans up to the plan; labels are regions, or exclude one another."""
    dataset = "phantoms"
    if exclusive:
        plain = load_description("phantoms").to_dict()
        description = type(given.read_description()).parse(
            {**plain, "regions": {}, "region_order": []}, "test"
        )
        dataset = str(root.parent / "exclusive.json")
        description.write(Path(dataset))
    return begin_run(root, given.data_root, (*TINY, *QUICK, *changes), dataset=dataset)


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder.model(0) / "weights.safetensors")


def history_of(run: Run) -> pd.DataFrame:
    return pd.read_csv(run.folder.fold(0) / "training.csv")


def train(run: Run) -> dict[str, torch.Tensor]:
    """Train a run and return its weights, once they and the loss are found to be numbers."""
    run_train(run)
    assert history_of(run).loss.map(math.isfinite).all()
    weights = weights_of(run)
    assert all(torch.isfinite(value).all() for value in weights.values())
    return weights


@pytest.mark.parametrize("loss", get_args(LossName))
def test_every_loss(loss: str, finished_run: Run, tmp_path: Path):
    exclusive = loss in ("ce", "dice_ce")  # their head is a softmax
    train(begin(finished_run, tmp_path / "run", f"training.loss={loss}", exclusive=exclusive))


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    itertools.product(("adam", "adamw", "sgd"), ("poly", "cosine", "constant")),
)
def test_every_optimiser_with_every_schedule(
    optimizer: str, schedule: str, finished_run: Run, tmp_path: Path
):
    changes = (f"training.optimizer={optimizer}", f"training.schedule={schedule}", "training.epochs=2")
    train(begin(finished_run, tmp_path / "run", *changes, "training.learning_rate=1e-3"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "swin_unetr" else ()) for name in NETWORKS]
)
def test_every_network_from_training_to_scores(name: str, finished_run: Run, tmp_path: Path):
    run = begin(finished_run, tmp_path / "run", *NETWORKS[name])
    train(run)
    assert run_predict(run) == {}
    scores = run_score(run)
    assert scores
    assert not {row.status for row in scores} & set(UNSCORED)


def test_from_disk_and_from_memory_the_weights_are_the_same(finished_run: Run, tmp_path: Path):
    train_options = ("--data-root", str(finished_run.data_root), "--device", "cpu")
    trained = []
    for name, more in (("memory", ()), ("disk", ("--ram-gb", "0.000001"))):
        run = begin(finished_run, tmp_path / name, "training.augment=true")
        arguments = ["train", str(run.folder.root), *train_options, *more]
        done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert ("patches are read from chunked files on disk" in done.output) == (name == "disk")
        trained.append((run.folder.model(0) / "weights.safetensors").read_bytes())
    assert trained[0] == trained[1]


def test_fine_tuning_from_the_command_line(finished_run: Run, tmp_path: Path):
    run = begin(finished_run, tmp_path / "run", "training.learning_rate=1e-7", "training.weight_decay=0")
    model = finished_run.folder.model(0)
    arguments = ["train", str(run.folder.root), "--data-root", str(run.data_root), "--device", "cpu"]
    done = CliRunner().invoke(cli.app, [*arguments, "--from", str(model)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "weights loaded unchanged" in " ".join(done.output.split())
    before, after = weights_of(finished_run), weights_of(run)
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], atol=1e-5, rtol=0)
    assert read_json(run.folder.fold(0) / "initial_weights.json")["left"] == {}
    for path in run.folder.root.rglob("*"):
        assert path.suffix not in (".yaml", ".json") or str(model) not in path.read_text(), path


def test_early_stopping_restores_the_best_weights(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    changes = ("training.epochs=9", "training.patience=2", "training.schedule=constant")
    short = begin(finished_run, tmp_path / "short", "training.epochs=2", "training.schedule=constant")
    expected = train(short)
    summarise, scores = module.summarise, iter([0.5, 0.9, 0.3, 0.8])
    monkeypatch.setattr(module, "summarise", lambda *given: {**summarise(*given), "dice": next(scores)})
    run = begin(finished_run, tmp_path / "run", *changes)
    weights = train(run)
    assert list(history_of(run).dice) == [0.5, 0.9, 0.3, 0.8]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    checkpoints = {
        name: torch.load(run.folder.fold(0) / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        for name in ("best", "last")
    }
    kept = {name: [torch.equal(state[f"network.{key}"], value) for key, value in weights.items()]
            for name, state in checkpoints.items()}  # fmt: skip
    assert all(kept["best"])
    assert not all(kept["last"])


def test_half_precision_trains_an_epoch(finished_run: Run, tmp_path: Path):
    half = train(begin(finished_run, tmp_path / "half", "training.precision=bf16"))
    single = train(begin(finished_run, tmp_path / "single"))
    assert {value.dtype for value in half.values()} == {torch.float32}
    differences = [float((value - single[name]).abs().max()) for name, value in half.items()]
    assert 0 < max(differences) < 0.05


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_memory_layout_does_not_change_the_result(dimensions: int, finished_run: Run, tmp_path: Path):
    changes = (
        NOISE_STAYS_SMALL,
        f"planning.dimensions={dimensions}",
        f"planning.patch_size={[24, 24, 8][:dimensions]}",
    )
    on, off = (
        train(begin(finished_run, tmp_path / layout, *changes, f"training.channels_last={layout}"))
        for layout in ("on", "off")
    )
    for name, value in on.items():
        torch.testing.assert_close(value, off[name], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_alike(finished_run: Run, tmp_path: Path):
    changes = (NOISE_STAYS_SMALL, "planning.network.num_stages=2")  # compiling takes its time for each layer
    compiled, eager = (
        train(begin(finished_run, tmp_path / way, *changes, f"training.compile={way}"))
        for way in ("on", "off")
    )
    assert compiled.keys() == eager.keys()
    for name, value in compiled.items():
        torch.testing.assert_close(value, eager[name], atol=1e-4, rtol=0)
