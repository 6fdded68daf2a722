"""`medunet estimate`: from masks that are there or from a few predicted cases, with what it assumes in words."""

import re
from pathlib import Path

import pytest
import torch

from medunet.base.files import read_json, write_json
from medunet.base.processor import usable_cores
from medunet.inference.cost_file import read_cost
from medunet.inference.given_scans import find_scans
from medunet.inference.measured_cases import memory_of, read_measured, sizes_of
from medunet.inference.model import Model
from medunet.inference.model_folder import read_card
from medunet.inference.predict import predict_scans
from medunet.records.config import InferenceConfig
from medunet.runs.run import Run

ASKED = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")


def test_cases_are_measured_and_kept_for_the_prediction(call, finished_run: Run, tmp_path: Path) -> None:
    scans, out = finished_run.data_root / "imagesTr", tmp_path / "masks"
    model = finished_run.folder.model(0)
    arguments = (model, scans, "--out", out, *ASKED)
    code, text = call("estimate", *arguments, "--cases", 1000, "--workers", 2, "--measure", 3)
    assert code == 0
    assert len(list(out.glob("*.nii.gz"))) == 3
    cost = read_cost(out)
    assert cost.estimate is not None
    assert (cost.estimate.num_cases, cost.estimate.workers, cost.estimate.measured_cases) == (1000, 2, 3)
    assert [command.cases for command in cost.commands] == [3]
    assert "no worker slows another, which is not measured" in text
    code, text = call("predict", *arguments)
    assert code == 0
    assert [command.cases for command in read_cost(out).commands] == [
        3,
        3,
    ]  # the measured ones are not repeated
    assert re.search(r"6 cases took .* by the estimate for 1000 cases", text)


def test_efficiency_and_number_of_cases_scale_the_time(call, finished_run: Run, tmp_path: Path) -> None:
    scans, model, out = finished_run.data_root / "imagesTr", finished_run.folder.model(0), tmp_path / "masks"
    assert call("predict", model, scans, "--out", out, *ASKED)[0] == 0
    seconds = []
    for asked in (
        (),
        ("--cases", 60),
        ("--cases", 60, "--workers", 8),
        ("--cases", 60, "--workers", 8, "--efficiency", 0.5),
    ):
        code, text = call("estimate", model, scans, "--out", out, *asked, *ASKED)
        assert code == 0
        assert "measured: 6 cases that masks holds" in text
        estimate = read_cost(out).estimate
        assert estimate is not None
        seconds.append(estimate.seconds)
    # The file holds milliseconds, rounded.
    assert seconds[1] == pytest.approx(10 * seconds[0], abs=0.006)
    assert seconds[3] == pytest.approx(2 * seconds[2], abs=0.002)
    # Masks are written beside the next case only where a core is left: with eight workers on few cores none is.
    entries = read_json(out / "index.json")["cases"].values()
    busy = sum(entry["seconds"] for entry in entries)
    assert seconds[2] * 8 == pytest.approx(10 * busy, rel=0.1) or usable_cores() > 8
    assert len(read_cost(out).commands) == 1  # nothing was predicted again


def test_a_runs_own_cases_tell_the_time_of_check_and_score(call, finished_run: Run) -> None:
    root = finished_run.folder.root
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    code, text = call("estimate", root, "--data-root", finished_run.data_root, "--cases", 500, *ASKED)
    assert code == 0
    for stage in ("predict", "check", "score"):
        assert re.search(rf"{stage} [\d.]+ s [\d.]+ (s|min) ", text), stage
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_masks_of_another_processor_do_not_count(call, finished_run: Run, tmp_path: Path) -> None:
    scans, out = finished_run.data_root / "imagesTr", tmp_path / "masks"
    model = finished_run.folder.model(0)
    assert call("predict", model, scans, "--out", out, *ASKED)[0] == 0
    plain = read_json(out / "cost.json")
    plain["commands"][0]["processor"] = "an abacus"
    write_json(out / "cost.json", plain)
    code, text = call("estimate", model, scans, "--out", out, "--fast", *ASKED)
    assert code == 0
    assert "were predicted on another processor (an abacus)" in text


def test_scans_are_needed_beside_a_model(call, finished_run: Run) -> None:
    code, text = call("estimate", finished_run.folder.model(0), *ASKED)
    assert code == 2
    assert "no scans are given" in text


def test_sizes_by_headers_are_those_of_the_prediction(finished_run: Run, tmp_path: Path) -> None:
    folder = finished_run.folder.model(0)
    model = Model.load(folder, device=torch.device("cpu"), precision="fp32")
    scans = find_scans([finished_run.data_root / "imagesTr"], read_card(folder)).scans
    options = InferenceConfig(overlap=0.25)
    predict_scans(model, scans, tmp_path, options)
    sizes, unreadable = sizes_of(model, scans, options)
    index = read_json(tmp_path / "index.json")["cases"]
    assert unreadable == {}
    assert {case: size.windows for case, size in sizes.items()} == {
        case: entry["windows"] for case, entry in index.items()
    }
    assert sizes["case_00"].voxels == 30 * 26 * 12
    measured, assumed = read_measured(model, scans, sizes, options, tmp_path, "another")
    assert measured == {}
    assert "another processor" in assumed
    assert read_measured(model, scans, sizes, InferenceConfig(overlap=0.5), tmp_path, "another")[0] == {}
    main, card = memory_of(model, scans, sizes, options)
    assert 10**8 < main < 10**10
    assert card == 0
