"""`medunet predict` by several workers: the same masks as by one process, whatever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.commands import predict_job
from medunet.commands.predict_job import parse_devices
from medunet.inference.cohort import Done
from medunet.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


class DiesOnOne(predict_job._Serve):
    """A worker that is killed by one of the scans."""

    def __call__(self, items: Iterator[tuple[int, Any]], number: int) -> Iterator[tuple[int, Done]]:
        return super().__call__(self._until(items), number)

    def _until(self, items: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        for index, task in items:
            if task.scan.case == "case_01":
                (self.job.out / ".case_01.nii.gz.abcd1234.nii.gz").touch()  # as if it were being written
                os.kill(os.getpid(), signal.SIGKILL)
            yield index, task


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asanyarray(nib.load(path).dataobj) for path in sorted(folder.glob("[!.]*.nii.gz"))}


def given(run: Run, out: Path, *more: str) -> tuple[Any, ...]:
    images = run.data_root / "imagesTr"
    return ("predict", run.folder.model(0), images, "--out", out, "--precision", "fp32", *more)


@pytest.mark.parametrize("more", [("--devices", "cpu:2"), ("--engine", "ray")], ids=["local", "ray"])
def test_workers_write_the_masks_that_one_process_writes(
    own_run: Run, call: Any, tmp_path: Path, more: tuple[str, ...]
) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    assert call(*given(own_run, one, "--device", "cpu"))[0] == 0
    code, text = call(*given(own_run, many, *more))
    assert code == 0, text
    expected, found = masks_in(one), masks_in(many)
    assert expected.keys() == found.keys()
    for name, mask in expected.items():
        np.testing.assert_array_equal(mask, found[name])
    assert read_json(many / "index.json")["cases"].keys() == read_json(one / "index.json")["cases"].keys()
    assert not [path.name for path in many.iterdir() if path.name.startswith(".")]
    before = {path: path.stat().st_mtime_ns for path in many.glob("*.nii.gz")}
    assert call(*given(own_run, many, *more))[0] == 0
    assert {path: path.stat().st_mtime_ns for path in many.glob("*.nii.gz")} == before  # none again


def test_a_worker_that_is_killed_takes_its_case_alone(
    own_run: Run, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_job, "_Serve", DiesOnOne)
    code, text = call(*given(own_run, tmp_path / "out", "--devices", "cpu:2"))
    assert code == 1
    assert "case_01: its process was killed, perhaps because memory ran out" in " ".join(text.split())
    index = read_json(tmp_path / "out/index.json")
    assert list(index["failed"]) == ["case_01"]
    assert not list((tmp_path / "out").glob(".*"))
    assert "case_01" not in index["cases"]
    assert masks_in(tmp_path / "out").keys() == {f"{case}.nii.gz" for case in index["cases"]}
    assert len(index["cases"]) == len(list((own_run.data_root / "imagesTr").iterdir())) - 1
    monkeypatch.undo()
    assert call(*given(own_run, tmp_path / "out", "--devices", "cpu:2"))[0] == 0  # it alone, again
    assert not read_json(tmp_path / "out/index.json")["failed"]


def test_a_job_whose_driver_was_killed_goes_on(own_run: Run, call: Any, tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    command = [sys.executable, "-m", "medunet.cli", *map(str, given(own_run, many, "--devices", "cpu:2"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not masks_in(many):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in many.glob("[!.]*.nii.gz")}
    assert call(*given(own_run, many, "--devices", "cpu:2"))[0] == 0
    assert call(*given(own_run, one, "--device", "cpu"))[0] == 0
    assert masks_in(many).keys() == masks_in(one).keys()
    again = [path for path, when in done.items() if path.stat().st_mtime_ns != when]
    assert len(again) <= 2  # those that were being entered into the journals
    assert not [path.name for path in many.iterdir() if path.name.startswith(".")]


def test_devices_are_cards_or_the_cpu() -> None:
    assert parse_devices("0,1, 3") == ["cuda:0", "cuda:1", "cuda:3"]
    assert parse_devices("cpu:2") == ["cpu", "cpu"]
    assert parse_devices("cuda:1,cuda:0") == ["cuda:1", "cuda:0"]
    for wrong in ("cpu,0", "gpu", "", "cpu:0", "0;1"):
        with pytest.raises(InputError, match="--devices"):
            parse_devices(wrong)


def test_options_that_exclude_one_another_are_named(own_run: Run, call: Any, tmp_path: Path) -> None:
    for more, what in (
        (("--devices", "cpu:2", "--device", "cpu"), "--device"),
        (("--devices", "cpu:2", "--engine", "ray"), "--devices"),
        (("--address", "head:6379"), "--address"),
    ):
        code, text = call(*given(own_run, tmp_path / "out", *more))
        assert code == 2
        assert what in text
