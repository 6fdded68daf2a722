"""The benchmark of kills, once for some of its stages, and that it would see what is lost, twice or half."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

BENCHMARK = REPOSITORY / "benchmarks" / "kills.py"
has_ray = importlib.util.find_spec("ray") is not None


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(
    ("engine", "stage", "kinds"),
    [
        ("local", "predict", ["worker", "driver"]),
        pytest.param(
            *("ray", "import-dicom", ["worker", "node", "driver"]),
            marks=pytest.mark.skipif(not has_ray, reason="Ray is not installed"),
        ),
    ],
    ids=["local", "ray"],
)
def test_kills_lose_nothing(engine: str, stage: str, kinds: list[str]) -> None:
    command = [sys.executable, BENCHMARK, "--engine", engine, "--stages", stage, "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [
        line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith(f"| {stage}")
    ]
    assert [row[1] for row in rows] == kinds
    assert [row[3] for row in rows] == ["1"] * len(kinds)  # the kill hit
    assert [row[5:] for row in rows] == [["0", "0", "0"]] * len(kinds)


def test_what_is_lost_twice_or_half_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARK.parent)
    import kills

    def write(name: str, **files: str) -> Any:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return kills.units_in(tmp_path / name)

    index = '{"cases": {"a": {"seconds": 1, "sha": 5}, "b": {"sha": 6}}, "failed": {}}'
    whole = write("whole", **{"t.csv": "case\na\nb\n", "index.json": index, "a.nii.gz": "a"})
    slower = write(
        "slower", **{"t.csv": "case\na\nb\n", "index.json": index.replace("1", "2"), "a.nii.gz": "a"}
    )
    wrong = write(
        "wrong",
        **{
            "t.csv": "case\na\na\n",
            "index.json": index.replace("6", "7"),
            ".a.nii.gz.x.nii.gz": "half",
            "c.nii.gz": "c",
        },
    )
    counts = [kills.Count("score", "worker"), kills.Count("score", "worker")]
    kills.compare(whole, slower, counts[0])
    kills.compare(whole, wrong, counts[1])
    assert [(count.lost, count.twice, count.half) for count in counts] == [(0, 0, 0), (3, 3, 1)]
