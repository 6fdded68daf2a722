"""cost.json beside the masks: one entry for each command that predicted something, beside the estimate."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medunet.base.files import read_json
from medunet.base.free_memory import peak_bytes
from medunet.inference.cohort import Cohort, Done, Task
from medunet.inference.cost_file import keep_estimate, read_cost
from medunet.inference.given_scans import find_scans
from medunet.inference.model import Model
from medunet.inference.model_folder import read_card
from medunet.inference.predict import predict_scans
from medunet.inference.scan import Scan
from medunet.records.cohort_cost import CohortEstimate
from medunet.records.config import InferenceConfig
from medunet.runs.run import Run

OPTIONS = InferenceConfig()
ESTIMATE = CohortEstimate(
    num_cases=100,
    workers=4,
    efficiency=1.0,
    seconds=50.0,
    seconds_range=(40.0, 60.0),
    load_seconds=1.0,
    main_bytes=10**9,
    card_bytes=0,
    cards=0,
    disk_bytes=10**6,
    measured_cases=5,
    backend="torch",
    precision="fp32",
    device="CPU",
    processor="x",
    threads=1,
)


def load(run: Run) -> tuple[Model, list[Scan]]:
    folder = run.folder.model(0)
    model = Model.load(folder, device=torch.device("cpu"), precision="fp32")
    return model, find_scans([run.data_root / "imagesTr"], read_card(folder)).scans


def test_a_command_is_counted_once_and_what_is_skipped_is_not(finished_run: Run, tmp_path: Path) -> None:
    model, scans = load(finished_run)
    predict_scans(model, scans[:2], tmp_path, OPTIONS)
    predict_scans(model, scans[:2], tmp_path, OPTIONS)
    predict_scans(model, scans[:3], tmp_path, OPTIONS)
    index, cost = read_json(tmp_path / "index.json")["cases"], read_cost(tmp_path)
    assert [command.cases for command in cost.commands] == [2, 1]
    for command, own in zip(cost.commands, (scans[:2], scans[2:3]), strict=True):
        entries = [index[scan.case] for scan in own]
        assert command.windows == sum(entry["windows"] for entry in entries)
        assert command.seconds_by_part["compute"] == pytest.approx(
            sum(entry["seconds_by_part"]["compute"] for entry in entries), abs=0.003
        )
        assert command.seconds > command.seconds_by_part["compute"]
        masks = sum((tmp_path / scan.mask_name).stat().st_size for scan in own)
        assert masks < command.written_bytes < masks + 20_000
        assert command.peak_bytes == pytest.approx(peak_bytes(), rel=0.2)
    assert read_json(tmp_path / "cost.json")["schema"] == "medunet.cost/1"
    assert not any(scan.case in (tmp_path / "cost.json").read_text() for scan in scans)


def test_a_failed_case_is_counted_apart(finished_run: Run, tmp_path: Path) -> None:
    model, scans = load(finished_run)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no scan")
    predict_scans(model, [Scan("broken", [broken]), scans[0]], tmp_path / "out", OPTIONS)
    (command,) = read_cost(tmp_path / "out").commands
    assert (command.cases, command.failed) == (1, 1)


def test_an_interrupted_command_is_counted_too(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scans = load(finished_run)
    real = Cohort._predict

    def stop_at_third(self: Cohort, number: int, task: Task, *others: Any) -> Iterator[tuple[int, Done]]:
        if task.scan is scans[2]:
            yield from self._end_writing()
            raise KeyboardInterrupt
        yield from real(self, number, task, *others)

    monkeypatch.setattr(Cohort, "_predict", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        predict_scans(model, scans, tmp_path, OPTIONS)
    assert [command.cases for command in read_cost(tmp_path).commands] == [2]


def test_the_estimate_stays_and_is_compared_by_worker_seconds(
    finished_run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, scans = load(finished_run)
    keep_estimate(tmp_path, ESTIMATE)
    with caplog.at_level(logging.INFO, logger="medunet"):
        predict_scans(model, scans[:3], tmp_path, OPTIONS)
    cost = read_cost(tmp_path)
    assert cost.estimate == ESTIMATE
    # 100 cases take four workers 50 s: 2 s of a worker each.
    line = f"3 cases took {cost.worker_seconds:.1f} s of a worker, 6.0 s by the estimate for 100 cases"
    assert any(line in record.getMessage() for record in caplog.records)
