"""All that shapes a mask is in its entry: what differs is predicted again; processes share a folder, but no case."""

import logging
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medunet.base.files import read_json, write_json
from medunet.base.lock import LockedError, hold
from medunet.inference import mask_index
from medunet.inference.given_scans import find_scans
from medunet.inference.mask_index import describe_making, hash_images, why_again
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.scan import Scan
from medunet.records.config import InferenceConfig
from medunet.records.mask_journal import read_mask_index
from medunet.runs.run import Run

CPU = torch.device("cpu")
OPTIONS = InferenceConfig()


@pytest.fixture
def model(own_run: Run) -> Model:
    return Model.load(own_run.folder.model(0), device=CPU, precision="fp32")


@pytest.fixture
def scans(own_run: Run, model: Model) -> list[Scan]:
    return list(find_scans([own_run.data_root / "imagesTr"], model.card).scans[:2])


def made(out: Path) -> list[int]:
    """Return when each mask was written."""
    return [path.stat().st_mtime_ns for path in sorted(out.glob("[!.]*.nii.gz"))]


def with_backend(model: Model, **changes: Any) -> Model:
    return replace(model, backend=replace(model.backend, **changes))  # type: ignore[type-var]


def with_plan(model: Model, **changes: Any) -> Model:
    return replace(
        model, card=model.card.model_copy(update={"plan": model.card.plan.model_copy(update=changes)})
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: with_backend(model, precision="bf16"), "precision bf16 instead of fp32"),
        (lambda model: with_backend(model, name="openvino"), "backend openvino instead of torch"),
        (lambda model: with_backend(model, device=torch.device("cpu:0")), ""),
        (lambda model: with_plan(model, patch_size=(16, 16, 8)), "another plan"),
        (lambda model: replace(model, weights="best"), "other weights"),
        (lambda model: with_backend(model, channels_last=True), ""),
    ],
)
def test_a_mask_made_in_another_way_is_made_again(
    model: Model, scans: list[Scan], tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any, why: str
) -> None:
    caplog.set_level(logging.INFO)
    first = replace(model, weights="final")
    predict_scans(first, scans, tmp_path, OPTIONS)
    before = made(tmp_path)
    assert predict_scans(change(first), scans, tmp_path, OPTIONS) == {}
    assert (made(tmp_path) != before) == bool(why)
    if why:
        assert "2 of 2 cases are predicted again: " + why in caplog.text
        assert "(2)" in caplog.text
    else:
        assert "again" not in caplog.text


def test_a_mask_of_another_kind_of_device_or_version_is_made_again(
    model: Model, scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_scans(model, scans, tmp_path, OPTIONS)
    index, before = read_json(tmp_path / "index.json"), made(tmp_path)
    index["cases"][scans[0].case]["device"] = "cuda"
    write_json(tmp_path / "index.json", index)
    predict_scans(model, scans, tmp_path, OPTIONS)
    after = made(tmp_path)
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True]
    monkeypatch.setattr(mask_index, "_ALGORITHM", 99)
    predict_scans(model, scans, tmp_path, OPTIONS)
    assert all(one != other for one, other in zip(made(tmp_path), after, strict=True))


def test_the_index_of_0_6_is_compared_by_what_it_holds(
    model: Model, scans: list[Scan], tmp_path: Path
) -> None:
    predict_scans(model, scans, tmp_path, OPTIONS)
    index, before = read_json(tmp_path / "index.json"), made(tmp_path)
    for entry in index["cases"].values():
        for key in ("plan_sha256", "device", "algorithm"):
            del entry[key]
    index["cases"][scans[1].case]["precision"] = "bf16"
    write_json(tmp_path / "index.json", index)
    predict_scans(model, scans, tmp_path, OPTIONS)
    assert [one == other for one, other in zip(made(tmp_path), before, strict=True)] == [True, False]


def test_the_index_of_0_7_is_of_torch(model: Model, scans: list[Scan], tmp_path: Path) -> None:
    predict_scans(model, scans, tmp_path, OPTIONS)
    index, before = read_json(tmp_path / "index.json"), made(tmp_path)
    for entry in index["cases"].values():
        assert entry.pop("backend") == "torch"
    write_json(tmp_path / "index.json", index)
    assert mask_index.backend_of_masks(tmp_path, model.card, "cpu") == ("torch", "fp32")
    predict_scans(model, scans, tmp_path, OPTIONS)
    assert made(tmp_path) == before
    predict_scans(with_backend(model, name="openvino"), scans[:1], tmp_path, OPTIONS)
    assert [one == other for one, other in zip(made(tmp_path), before, strict=True)] == [False, True]
    assert mask_index.backend_of_masks(tmp_path, model.card, "cpu") is None  # they differ


def test_another_int8_network_predicts_again(model: Model, scans: list[Scan], tmp_path: Path) -> None:
    for content, is_again in (("one", True), ("one", False), ("other", True)):
        before = made(tmp_path)
        predict_scans(replace(model, quantised_sha256=content), scans, tmp_path, OPTIONS)
        assert (made(tmp_path) != before) == is_again


def test_voxels_beside_a_header_belong_to_the_scan(tmp_path: Path) -> None:
    (tmp_path / "scan.mhd").write_text("ElementDataFile = scan.raw")
    (tmp_path / "scan.raw").write_bytes(b"1")
    before = mask_index.hash_images([tmp_path / "scan.mhd"])
    (tmp_path / "scan.raw").write_bytes(b"2")
    assert mask_index.hash_images([tmp_path / "scan.mhd"]) != before
    (tmp_path / "scan.mhd").write_text("ElementDataFile = other.raw")
    (tmp_path / "other.raw").write_bytes(b"1")
    before = mask_index.hash_images([tmp_path / "scan.mhd"])
    (tmp_path / "other.raw").write_bytes(b"2")
    assert mask_index.hash_images([tmp_path / "scan.mhd"]) != before
    (tmp_path / "scan.mhd").write_text(
        "ElementDataFile = /dev/zero"
    )  # refused by the reader, never read here
    assert mask_index.hash_images([tmp_path / "scan.mhd"])


def test_processes_share_a_folder_and_no_case(
    model: Model, scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock belongs to its opening of the file, so that a second call in this process is as another process."""
    compute = Model.compute

    def compute_meanwhile(self: Model, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(Model, "compute", compute)
        broken = Scan("broken", [tmp_path / "none.nii.gz"])
        assert list(predict_scans(model, [scans[1], broken], tmp_path / "out", OPTIONS)) == ["broken"]
        with pytest.raises(LockedError, match=f"`medunet predict` for {scans[0].case} is already running"):
            predict_scans(model, scans[:1], tmp_path / "out", OPTIONS)
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(Model, "compute", compute_meanwhile)
    assert predict_scans(model, scans[:1], tmp_path / "out", OPTIONS) == {}
    index = read_json(tmp_path / "out/index.json")
    assert {case: "begun" in entry for case, entry in index["cases"].items()} == dict.fromkeys(
        (scan.case for scan in scans), False
    )
    assert index["failed"] == {"broken": "none.nii.gz: no such file"}
    assert not list((tmp_path / "out").glob(".*"))


def test_cases_that_two_folds_hold_out_wait_until_the_other_is_done(
    model: Model,
    scans: list[Scan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a test set does in folds that are predicted in parallel."""
    caplog.set_level(logging.INFO)
    other, waits = hold(tmp_path, "predict", [scans[1].case]), []

    def end_the_other(seconds: float) -> None:
        waits.append(seconds)
        assert [path.name for path in tmp_path.glob("[!.]*.gz")] == [scans[0].mask_name]
        other.__exit__(None, None, None)

    monkeypatch.setattr("medunet.inference.predict.time.sleep", end_the_other)
    other.__enter__()
    assert predict_scans(model, scans, tmp_path, OPTIONS) == {}
    assert len(waits) == 1
    assert (
        f"Waiting for cases that two commands were given: `medunet predict` for {scans[1].case}"
        in caplog.text
    )
    names = {*(scan.mask_name for scan in scans), "index.json", "cost.json"}
    assert {path.name for path in tmp_path.glob("*.*")} == names


KILLED = """
import os, sys, time
from medunet.inference.predict import *
from medunet.inference.scan import Scan
import torch
from medunet.inference.given_scans import find_scans
from medunet.inference.model import Model
from medunet.inference.model_folder import read_card
model = Model.load({folder!r}, device=torch.device("cpu"), precision="fp32")
fsync = os.fsync
def stop(handle):
    if os.readlink(f"/proc/self/fd/{{handle}}").endswith(".nii.gz"):
        print("writing", flush=True)
        time.sleep(60)
    fsync(handle)
os.fsync = stop
predict_scans(model, [Scan({case!r}, {images!r})], {out!r}, InferenceConfig())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_killed_while_a_mask_is_written_nothing_half_is_left(
    own_run: Run, model: Model, scans: list[Scan], tmp_path: Path
) -> None:
    (scan, other), out = scans, tmp_path / "out"
    script = "from pathlib import *\n" + KILLED.format(
        folder=own_run.folder.model(0), case=scan.case, images=scan.images, out=out
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    with pytest.raises(LockedError, match=f"process {process.pid}"):
        predict_scans(model, [scan], out, OPTIONS)
    assert predict_scans(model, [other], out, OPTIONS) == {}
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / scan.mask_name).exists()
    assert read_mask_index(out)["cases"][scan.case] == {"begun": True}
    assert predict_scans(model, scans, out, OPTIONS) == {}
    assert {path.name for path in out.iterdir()} == {
        scan.mask_name,
        other.mask_name,
        "index.json",
        "cost.json",
    }
    assert np.asarray(nib.load(out / scan.mask_name).dataobj).any()


def test_a_lock_leaves_the_folder_of_a_refused_prediction_away(
    model: Model, scans: list[Scan], tmp_path: Path
) -> None:
    with hold(tmp_path / "out", "predict", [scan.case for scan in scans]), pytest.raises(LockedError):
        predict_scans(model, scans, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"shifts": 2}, {"mirror": ("left_right",)}])
def test_masks_that_averaged_probabilities_are_made_again(model: Model, scans: list[Scan], changes: Any):
    """Logits are averaged since; without averaging, masks of before are kept."""
    for options, why in (
        (OPTIONS, ""),
        (OPTIONS.model_copy(update=changes), "another version of prediction"),
    ):
        making = describe_making(model, options, resample=False)
        before = {**making, "image_sha256": hash_images(scans[0].images)}
        del before["algorithm"]
        assert why_again(before, making, scans[0].images) == why
