"""The event files of a training, read back as TensorBoard reads them: undisturbed, killed and gone on, and served."""

import io
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY
from numpy.typing import NDArray
from PIL import Image
from planned_run import begin_run
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray
from tiny_cohort import write_tiny_cohort

from medunet.commands.train import run_train
from medunet.runs.computing import choose_run_compute
from medunet.runs.run import Run, open_run
from medunet.training.module import SegmentationModule
from medunet.training.train import train_fold

STEPS, EPOCHS = 12, 3
CHANGES = (
    *TINY,
    f"training.steps_per_epoch={STEPS}",
    f"training.epochs={EPOCHS}",
    "planning.network.num_stages=4",
    "planning.patch_size=[32, 32, 8]",
)
# Steps at which the run's folder is copied as a kill would leave it, and what reaches the disk before: the newest
# entries, which happen again, or a checkpoint. Entries come every 10 steps, checkpoints every 12.
KILLS = {11: "entries", 21: "entries", 31: "checkpoint"}
PAUSE_S = 0.1
TIMED = {"epoch/patches_per_s", "train/memory_gb"}


@dataclass
class Observer(L.Callback):
    """Notes what each validation found, and copies the folder where a kill is played."""

    root: Path
    copies: Path
    positions: list[list[tuple[int, ...]]] = field(default_factory=list)
    worst: list[str] = field(default_factory=list)
    validated_s: list[float] = field(default_factory=list)
    begun_s: list[float] = field(default_factory=list)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.begun_s.append(pl_module.elapsed_s)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if KILLS.get(step) == "entries":
            trainer.logger.experiment.flush()
        if KILLS.get(step) == "checkpoint":
            trainer.save_checkpoint(self.root / "folds/0/checkpoints/last.ckpt")
        if step in KILLS:
            shutil.copytree(self.root, self.copies / str(step))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        self.positions.append([case.slices.positions for case in pl_module.cases])
        dice = {
            case.case: np.nanmean([one.voxels.dice for one in case.targets.values()])
            for case in pl_module.cases
        }
        self.worst.append(min(dice, key=lambda case: dice[case]))
        self.validated_s.append(pl_module.elapsed_s)
        time.sleep(PAUSE_S)


@dataclass(frozen=True)
class Watched:
    """A finished training, what was observed of it, and where copies of its folder lie by step."""

    run: Run
    observer: Observer
    events: EventAccumulator


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    root = tmp_path_factory.mktemp("watched")
    run = begin_run(root / "run", write_tiny_cohort(root / "data"), CHANGES)
    device = torch.device("cpu")
    observer = Observer(run.folder.root, root / "killed")
    compute = choose_run_compute(run, device)
    run.save()
    train_fold(
        run.folder, run.read_manifest(), run.read_plan(), run.config, run.data_root,
        device=device, compute=compute, callbacks=[observer],
    )  # fmt: skip
    return Watched(run, observer, read_events(run))


def read_events(run: Run) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run.folder.fold(0) / "tensorboard"), size_guidance=everything).Reload()


def scalars(events: EventAccumulator) -> dict[str, dict[int, float]]:
    """Return each tag's values by step; a step that is there twice fails."""
    found = {}
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
        found[tag] = {event.step: event.value for event in events.Scalars(tag)}
    return found


def pixels(encoded: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def test_steps_show_loss_by_head_and_term_rate_gradient_and_memory(watched: Watched):
    found = scalars(watched.events)
    assert watched.run.read_plan().deep_supervision == 2
    for step in (10, 20, 30):
        heads = [found[f"loss_by_head/{number}"][step] for number in range(2)]
        assert found["train/loss"][step] == pytest.approx((heads[0] + heads[1] / 2) / 1.5, rel=1e-5)
        terms = found["loss_by_term/dice"][step] + found["loss_by_term/bce"][step]
        assert terms == pytest.approx(heads[0], rel=1e-5)
        poly = 5e-3 * (1 - (step - 1) / (STEPS * EPOCHS)) ** 0.9
        assert found["train/learning_rate"][step] == pytest.approx(poly, rel=1e-5)
        assert 0 < found["train/gradient_norm"][step] < 100
        assert 0.05 < found["train/memory_gb"][step] < 50
    assert "loss_by_head/2" not in found


def test_epochs_show_what_the_history_holds(watched: Watched):
    found = scalars(watched.events)
    checkpoint = watched.run.folder.fold(0) / "checkpoints" / "last.ckpt"
    history = torch.load(checkpoint, weights_only=True)["medunet"]["history"]
    assert [row["step"] for row in history] == [12, 24, 36]
    tags = {
        f"validation/{score}_{target}": f"{score}_{target}"
        for score in ("dice", "iou", "precision", "recall", "hd95_mm")
        for target in ("liver", "tumour")
    }
    tags |= {
        "validation/dice": "dice", "epoch/training_loss": "loss", "epoch/validation_loss": "validation_loss",
        "epoch/patches_per_s": "patches_per_s",
    }  # fmt: skip
    for tag, key in tags.items():
        expected = {row["step"]: row[key] for row in history if math.isfinite(row[key])}
        assert found.get(tag, {}) == pytest.approx(expected, rel=1e-5), tag
    best = max(row["dice"] for row in history)
    assert found["best validation Dice"] == {36: pytest.approx(best, rel=1e-5)}


def test_throughput_leaves_out_what_is_written_between_epochs(watched: Watched):
    observer = watched.observer
    gaps_s = np.subtract(observer.begun_s[1:], observer.validated_s[:-1])
    assert (gaps_s >= PAUSE_S).all()  # the clock has gone on before an epoch's own time begins
    assert all(speed > 0 for speed in scalars(watched.events)["epoch/patches_per_s"].values())


def test_precision_recall_curves_add_up(watched: Watched):
    assert watched.events.SummaryMetadata("precision_recall/liver").plugin_data.plugin_name == "pr_curves"
    for target in ("liver", "tumour"):
        curves = watched.events.Tensors(f"precision_recall/{target}")
        assert [curve.step for curve in curves] == [12, 24, 36]
        for curve in curves:
            tp, fp, tn, fn, precision, recall = make_ndarray(curve.tensor_proto).astype(np.float64)
            assert tp[0] > 0
            assert fn[0] == tn[0] == 0  # nothing lies below the lowest threshold
            assert np.ptp(tp + fn) == np.ptp(fp + tn) == 0
            assert (np.diff(recall) <= 0).all()
            np.testing.assert_allclose(recall, tp / (tp + fn), rtol=1e-6)
            above = tp + fp > 0
            np.testing.assert_allclose(precision[above], (tp / np.maximum(tp + fp, 1))[above], rtol=1e-6)


def test_the_first_case_is_shown_at_the_same_positions_each_time(watched: Watched):
    assert watched.observer.positions == watched.observer.positions[:1] * EPOCHS
    assert len(set(watched.observer.positions[0][0])) == 3
    shown = [pixels(event.encoded_image_string) for event in watched.events.Images("validation_first")]
    assert len(shown) == EPOCHS
    below_title = slice(44, None)
    thirds = [np.array_split(picture[below_title], 3, axis=1) for picture in shown]
    for image, reference, prediction in thirds:
        assert np.array_equal(image, thirds[0][0])
        assert np.array_equal(reference, thirds[0][1])
        assert not np.array_equal(reference, prediction)


def test_the_worst_case_is_named(watched: Watched):
    texts = [bytes(event.tensor_proto.string_val[0]).decode()
             for event in watched.events.Tensors("validation_worst/text_summary")]  # fmt: skip
    assert [text.split(":")[0] for text in texts] == watched.observer.worst
    assert [event.step for event in watched.events.Images("validation_worst")] == [12, 24, 36]


def test_plan_configuration_graph_and_settings(watched: Watched):
    run, events = watched.run, watched.events
    for tag, expected in (("plan", '"patch_size": '), ("config", f"steps_per_epoch: {STEPS}")):
        (event,) = events.Tensors(f"{tag}/text_summary")
        assert expected in event.tensor_proto.string_val[0].decode()
    graph = GraphDef.FromString(events.Graph().SerializeToString())
    operations = [node.op for node in graph.node]
    convolutions = sum(isinstance(part, torch.nn.modules.conv._ConvNd) for part in network_of(run).modules())
    unused = run.read_plan().deep_supervision - 1  # heads that a network in evaluation leaves out
    assert operations.count("aten::_convolution") == convolutions - unused
    (start,) = [value for key, value in events.PluginTagToContent("hparams").items() if "start" in key]
    settings = HParamsPluginData.FromString(start).session_start_info.hparams
    assert settings["learning_rate"].number_value == 5e-3
    assert settings["optimizer"].string_value == "adamw"
    assert settings["patch_size"].string_value == "32×32×8"


def network_of(run: Run) -> torch.nn.Module:
    from medunet.networks.builder import build_network

    return build_network(run.read_plan(), run.read_manifest().description)


@pytest.mark.parametrize("step", KILLS)
def test_killed_and_gone_on_no_entry_is_lost_or_repeated(watched: Watched, step: int):
    resumed = open_run(watched.observer.copies / str(step), watched.run.data_root)
    run_train(resumed)
    events = read_events(resumed)
    found, expected = scalars(events), scalars(watched.events)
    for tag, values in expected.items():
        if tag in TIMED:
            assert found[tag].keys() == values.keys()
        else:
            assert found[tag] == values, tag
    assert found.keys() == expected.keys()
    for tag in ("validation_first", "validation_worst"):
        images, before = events.Images(tag), watched.events.Images(tag)
        assert [(one.step, one.encoded_image_string) for one in images] == [
            (one.step, one.encoded_image_string) for one in before
        ]
    assert [event.step for event in events.Tensors("precision_recall/liver")] == [12, 24, 36]
    served = plugin_event_accumulator.EventAccumulator(
        events.path
    ).Reload()  # purges texts too, as TensorBoard does
    assert len(served.Tensors("plan/text_summary")) == 1
    assert events.Tags()["graph"]


def test_nothing_but_case_ids_is_said_of_patients(watched: Watched):
    written = b"".join(
        path.read_bytes()
        for path in (watched.run.folder.fold(0) / "tensorboard").rglob("*")
        if path.is_file()
    )
    assert b"case_0" in written
    for private in (watched.run.data_root, watched.run.folder.root, REPOSITORY, Path(sys.prefix)):
        assert str(private).encode() not in written
    assert not re.search(rb"imagesTr|labelsTr|\.nii", written)


@pytest.mark.slow
def test_tensorboard_itself_serves_every_kind(watched: Watched):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = watched.run.folder.fold(0)
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tensorboard.main",
            "--logdir",
            folder,
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(query: str, body: object = None) -> object:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/data/{query}",
            json.dumps(body).encode() if body is not None else None,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def wait_for_run() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if ask("plugin/scalars/tags").get("tensorboard", {}).get("best validation Dice"):
                    return
            except OSError:
                assert server.poll() is None, "TensorBoard ended"
            time.sleep(0.2)
        pytest.fail("TensorBoard did not load the run within a minute")

    try:
        wait_for_run()
        tags = ask("plugin/scalars/tags")["tensorboard"]
        assert set(tags) == set(watched.events.Tags()["scalars"])
        points = ask("plugin/scalars/scalars?run=tensorboard&tag=validation/dice")
        assert [point[1] for point in points] == [12, 24, 36]
        assert set(ask("plugin/images/tags")["tensorboard"]) == {"validation_first", "validation_worst"}
        assert set(ask("plugin/pr_curves/tags")["tensorboard"]) == {
            "precision_recall/liver",
            "precision_recall/tumour",
        }
        assert {"plan/text_summary", "config/text_summary"} <= set(ask("plugin/text/tags")["tensorboard"])
        assert ask("plugin/graphs/info")["tensorboard"]["run_graph"]
        experiment = ask("plugin/hparams/experiment", {"experimentName": ""})
        assert "learning_rate" in {column["name"] for column in experiment["hparamInfos"]}
    finally:
        server.terminate()
        server.wait(timeout=20)
