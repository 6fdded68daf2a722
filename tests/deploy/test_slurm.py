"""The scripts in deploy/slurm in a Slurm on this computer: parts, scancel, time limits, and a training put back."""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from slurm_cluster import SlurmCluster, absent_programs, free_ports, slurm_cluster

from medunet.commands.parts import part_of
from medunet.compute.processes import _listens
from medunet.imaging.nifti import read_header
from medunet.records.model_card import ModelCard
from medunet.runs.run import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(absent_programs()),
        reason=f"no {', '.join(absent_programs())}: install Debian's packages slurm-wlm and munge",
    ),
]
SCRIPTS = REPOSITORY / "deploy" / "slurm"
ONE_CORE = ["--cpus-per-task=1"]
SHORT = ["--set", "training.epochs=2", "--set", "training.steps_per_epoch=4"]
EXACT = ["--device", "cpu", "--backend", "torch", "--precision", "fp32"]

# `medunet`, but of one part only the first case is computed; in the first life a training takes its time, and one of
# its tasks does not come.
STAND_IN = """#!{python}
import os, sys, time
sys.path.insert(0, {repository!r})
if os.environ.get("LATE_TASK", "none") == os.environ.get("SLURM_PROCID") and "SLURM_RESTART_COUNT" not in os.environ:
    time.sleep(600)
from medunet.cli.app import main

def slow(owner, name, seconds):
    function, calls = getattr(owner, name), []
    def wait_then_call(*given, **options):
        calls.append(1)
        time.sleep(seconds(len(calls)))
        return function(*given, **options)
    setattr(owner, name, wait_then_call)

if os.environ.get("STALLED_PART") in sys.argv:
    from medunet.inference.model import Model
    slow(Model, "compute", lambda calls: 0 if calls == 1 else 600)
if "train" in sys.argv and "SLURM_RESTART_COUNT" not in os.environ:
    from medunet.training.module import SegmentationModule
    slow(SegmentationModule, "training_step", lambda calls: 2)
main()
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[SlurmCluster]:
    program = tmp_path / "bin" / "medunet"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, repository=str(REPOSITORY)))
    program.chmod(0o755)
    path = ":".join([str(program.parent), str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    with (
        tempfile.TemporaryDirectory(prefix="slurm") as folder,  # short: sockets are in it
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PATH", path)
        with slurm_cluster(Path(folder)) as cluster:
            yield cluster


def write_scans(run: Run, folder: Path) -> dict[int, list[str]]:
    """Write two scans for each of three parts; return the cases by part."""
    parts: dict[int, list[str]] = {1: [], 2: [], 3: []}
    images = sorted((run.data_root / "imagesTr").iterdir())
    folder.mkdir()
    for number in range(100):
        part = parts[part_of(name := f"scan_{number:02d}", 3)]
        if len(part) < 2:
            shutil.copy(images[number % len(images)], folder / f"{name}.nii.gz")
            part.append(name)
    return parts


def test_array_job_of_which_one_task_is_cancelled(
    finished_run: Run, slurm: SlurmCluster, tmp_path: Path, call
) -> None:
    parts = write_scans(finished_run, tmp_path / "scans")
    out = tmp_path / "masks"
    given = [finished_run.folder.model(0), tmp_path / "scans", "--out", out, *EXACT]
    script = SCRIPTS / "predict_array.sbatch"
    job = slurm.submit(script, ["--array=1-3", *ONE_CORE], given, STALLED_PART="2/3")
    first, left = parts[2]
    slurm.until(lambda: (out / f"{first}.nii.gz").exists(), f"{first} is predicted")
    slurm.until(lambda: [state for state, _ in slurm.states(job).values()].count("COMPLETED") == 2, "two end")
    slurm.call("scancel", f"{job}_2")
    states = slurm.wait(job)
    assert (states["1"], states["2"][0], states["3"]) == (
        ("COMPLETED", "0:0"),
        "CANCELLED",
        ("COMPLETED", "0:0"),
    )
    log = (slurm.work / f"medunet-predict-{job}_1.log").read_text()
    assert "part 1 of 3 2 of 6 cases" in log

    done = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert {path.name.removesuffix(".nii.gz") for path in done} == {*parts[1], first, *parts[3]}
    assert all(read_header(path).shape for path in done)
    code, text = call("predict", *given, "--missing", "--dry-run", "--part", "all/3")
    assert (code, f"missing {left} (part 2): begun, but not finished" in text) == (1, True), text
    assert "missing 1 of 6 cases part 2 of 3 have missing cases" in text

    again = slurm.submit(script, ["--array=2", *ONE_CORE], given, PARTS="3")
    assert slurm.wait(again) == {"2": ("COMPLETED", "0:0")}
    assert call("predict", *given, "--missing", "--dry-run", "--part", "all/3")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done  # nothing twice
    assert not list(out.glob(".*"))


def test_an_array_that_does_not_count_the_parts_is_refused(slurm: SlurmCluster) -> None:
    script = SCRIPTS / "predict_array.sbatch"
    jobs = [slurm.submit(script, [f"--array={array}", *ONE_CORE], []) for array in ("0-1", "2,3")]
    for job in jobs:
        assert set(slurm.wait(job).values()) == {("FAILED", "2:0")}
    assert "set PARTS" in (slurm.work / f"medunet-predict-{jobs[0]}_0.log").read_text()


def test_time_limits_of_a_prediction_and_of_a_training(
    finished_run: Run, own_run: Run, slurm: SlurmCluster, tmp_path: Path, call
) -> None:
    parts = write_scans(finished_run, tmp_path / "scans")
    out = tmp_path / "masks"
    given = [finished_run.folder.model(0), tmp_path / "scans", "--out", out, *EXACT]
    options: list[object] = ["--array=2", *ONE_CORE]
    stalled = slurm.submit(SCRIPTS / "predict_array.sbatch", options, given, PARTS="3", STALLED_PART="2/3")
    fold = own_run.folder.fold(0)
    shutil.rmtree(fold)
    trained = slurm.submit(
        SCRIPTS / "train.sbatch",
        ["--time=60", "--signal=TERM@600", *ONE_CORE],
        [own_run.folder.root, "--data-root", own_run.data_root, "--fold", "0", "--device", "cpu"],
    )
    first, left = parts[2]
    slurm.until(lambda: (out / f"{first}.nii.gz").exists(), f"{first} is predicted")
    slurm.limit(stalled, minutes=0)  # Slurm looks every half minute
    log = slurm.work / f"medunet-train-{trained}.log"
    slurm.until(lambda: log.exists() and re.search(r"Train \d+%", log.read_text()), "steps are trained")
    slurm.limit(trained, minutes=9)
    slurm.until(lambda: slurm.states(trained)[""][0] == "PENDING", "the training is put back")
    slurm.limit(trained, minutes=60)

    ((state, _),) = slurm.wait(stalled).values()
    assert state == "TIMEOUT"
    assert [path.name for path in out.glob("*.nii.gz")] == [f"{first}.nii.gz"]
    code, text = call("predict", *given, "--missing", "--dry-run")
    assert (code, "missing 5 of 6 cases" in text, f"missing {left}: begun" in text) == (1, True, True), text
    code, text = call("predict", *given)
    assert (code, "Predict: 6 of 6 cases" in text) == (0, True), text
    assert call("predict", *given, "--missing", "--dry-run")[0] == 0

    assert slurm.wait(trained) == {"": ("COMPLETED", "0:0")}
    text = log.read_text()
    assert f"Putting job {trained} back into the queue." in text
    assert "Resuming fold 0 at step" in text
    assert "already running" not in text
    card = ModelCard.read(fold / "model" / "model.json")
    assert card.fold == 0
    epochs = (fold / "training.csv").read_text().splitlines()
    assert len(epochs) == 1 + own_run.config.training.epochs  # none is lost or twice


def test_a_cancelled_training_is_not_put_back(own_run: Run, slurm: SlurmCluster) -> None:
    shutil.rmtree(own_run.folder.fold(0))
    given = [own_run.folder.root, "--data-root", own_run.data_root, "--fold", "0", "--device", "cpu"]
    job = slurm.submit(SCRIPTS / "train.sbatch", ONE_CORE, given)
    log = slurm.work / f"medunet-train-{job}.log"
    slurm.until(lambda: log.exists() and "Training fold 0" in log.read_text(), "training begins")
    slurm.call("scancel", job)
    ((state, _),) = slurm.wait(job).values()
    assert state == "CANCELLED"
    assert "back into the queue" not in log.read_text()


def log_of(slurm: SlurmCluster, job: str, task: str) -> Path:
    """Return the log of one task of an array of trainings."""
    (row,) = slurm.call("scontrol", "show", "job", f"{job}_{task}", "-o").splitlines()
    return slurm.work / f"medunet-train-{re.match(r'JobId=([0-9]+)', row)[1]}.log"


def goes_on(log: str, network: str) -> bool:
    """Return whether a stopped training went on, or began again because it was stopped before its first step."""
    begun_again = "before the first step" in log or "with no step in work" in log
    return begun_again or f"Resuming {network} at step" in log


def test_an_array_of_folds_and_seeds_of_which_one_task_is_put_back(own_run: Run, slurm: SlurmCluster) -> None:
    shutil.rmtree(own_run.folder.root / "folds")
    given = [own_run.folder.root, "--data-root", own_run.data_root, "--device", "cpu", *SHORT]
    job = slurm.submit(SCRIPTS / "train.sbatch", ["--array=0,3", *ONE_CORE], given, SEEDS="2")
    slurm.until(lambda: set(slurm.states(job)) == {"0", "3"}, "both tasks are there")
    slurm.until(lambda: {state for state, _ in slurm.states(job).values()} == {"RUNNING"}, "both run")
    logs = {task: log_of(slurm, job, task) for task in ("0", "3")}
    for log in logs.values():
        slurm.until(lambda log=log: log.exists() and "Training fold" in log.read_text(), "training begins")
    slurm.call("scancel", "--signal=TERM", f"{job}_3.0")  # as Slurm does before a time limit
    slurm.until(lambda: slurm.states(job)["3"][0] == "PENDING", "one is put back")
    assert slurm.wait(job) == dict.fromkeys(("0", "3"), ("COMPLETED", "0:0"))

    texts = {task: log.read_text() for task, log in logs.items()}
    assert "Training fold 0 on" in texts["0"]
    assert "Resuming" not in texts["0"]
    assert goes_on(texts["3"], "fold 1, seed 1")
    assert f"Putting job {job}_3 back into the queue." in texts["3"]
    folder = own_run.folder
    models = sorted(folder.root.glob("folds/**/model.json"))
    assert models == [folder.fold(0) / "model/model.json", folder.fold(1) / "seeds/1/model/model.json"]
    assert [ModelCard.read(path).fold for path in models] == [0, 1]
    rows = [path.parent.with_name("training.csv").read_text().splitlines() for path in models]
    assert [len(lines) for lines in rows] == [3, 3]


@pytest.mark.parametrize(
    ("array", "arguments", "seeds", "says"),
    [
        (["--array=0"], ["--fold", "1"], {}, "leave out --fold, or set SEEDS"),
        (["--array=0"], ["--member=1"], {"SEEDS": "2"}, "leave out --member"),
        ([], [], {"SEEDS": "2"}, "give --seeds 2"),
    ],
)
def test_an_array_whose_numbers_would_be_overruled_is_refused(
    slurm: SlurmCluster, array: list[object], arguments: list[object], seeds: dict[str, str], says: str
) -> None:
    job = slurm.submit(SCRIPTS / "train.sbatch", [*array, *ONE_CORE], ["runs/liver", *arguments], **seeds)
    assert set(slurm.wait(job).values()) == {("FAILED", "2:0")}
    assert says in (slurm.work / f"medunet-train-{job}.log").read_text()


def train_together(run: Run, slurm: SlurmCluster, port: int, **environment: str) -> tuple[str, Path]:
    """Submit a training by two tasks, one on each node; return the job and its log."""
    shutil.rmtree(run.folder.root / "folds")
    given = [run.folder.root, "--data-root", run.data_root, "--device", "cpu", *SHORT]
    options: list[object] = ["--nodes=2", "--ntasks-per-node=1", *ONE_CORE]
    main = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # the names of the two nodes are in no DNS
    job = slurm.submit(SCRIPTS / "train.sbatch", options, given, **main, **environment)
    return job, slurm.work / f"medunet-train-{job}.log"


def is_put_back_and_ends(job: str, log: Path, run: Run, slurm: SlurmCluster) -> None:
    slurm.call("scancel", "--signal=TERM", f"{job}.0")
    slurm.until(lambda: slurm.states(job)[""][0] == "PENDING", "the training is put back")
    assert slurm.wait(job) == {"": ("COMPLETED", "0:0")}
    assert goes_on(log.read_text(), "fold 0")
    assert len((run.folder.fold(0) / "training.csv").read_text().splitlines()) == 3


def test_two_tasks_train_together_and_are_put_back(own_run: Run, slurm: SlurmCluster) -> None:
    job, log = train_together(own_run, slurm, *free_ports(1))
    slurm.until(
        lambda: log.exists() and "Training fold 0 on CPU in 2 processes" in log.read_text(), "both train"
    )
    is_put_back_and_ends(job, log, own_run, slurm)


def test_a_task_that_waits_for_another_is_put_back(own_run: Run, slurm: SlurmCluster) -> None:
    (port,) = free_ports(1)
    job, log = train_together(own_run, slurm, port, LATE_TASK="1")
    slurm.until(lambda: _listens("127.0.0.1", port), "the first task waits")
    is_put_back_and_ends(job, log, own_run, slurm)
    assert log.read_text().count("Training fold 0 on CPU in 2 processes") == 1


# `medunet`, which asks Ray for its nodes, with and without the token, and keeps Ray's files before they are removed.
LOOKS_AT_RAY = """#!{python}
import json, os, pathlib, shutil, stat, subprocess, sys
sys.path.insert(0, {repository!r})
from medunet.base import ray_engine
from medunet.cli.app import main

found = {{}}
share = ray_engine.RayEngine.share
def look_then_share(self, *given):
    import ray
    found["cores"] = [node["Resources"]["CPU"] for node in ray.nodes()]
    found["memory"] = [node["Resources"]["memory"] for node in ray.nodes()]
    found["dashboard"] = ray._private.worker.global_worker.node.webui_url or None
    return share(self, *given)
ray_engine.RayEngine.share = look_then_share
greet = ray_engine._Actor._greet
def greet_and_note(self, *about):
    found.setdefault("nodes", []).append(about[-1])
    return greet(self, *about)
ray_engine._Actor._greet = greet_and_note
code = 0
try:
    main()
except SystemExit as end:
    code = end.code
token = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"])
asks = ["ray", "health-check", "--address", sys.argv[sys.argv.index("--address") + 1]]
for name, more in {{"friend": {{}}, "stranger": {{"RAY_AUTH_TOKEN": "0" * 64}}}}.items():
    found[name] = subprocess.run(asks, env=os.environ | more, capture_output=True).returncode
found |= {{"mode": oct(token.stat().st_mode & 0o777), "token": token.read_text(), "folder": os.environ["RAY_TMPDIR"]}}
def sockets(folder, names):
    return [name for name in names if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode)]
shutil.copytree(found["folder"], os.environ["KEPT"], ignore=sockets, symlinks=True)
pathlib.Path(os.environ["FOUND"]).write_text(json.dumps(found))
sys.exit(code)
"""

OTHER_RAY = """#!/bin/sh
case "$*" in "start --address"*) {first} ;; esac
exec {ray} "$@"
"""


def submit_with_ray(
    run: Run, slurm: SlurmCluster, folder: Path, other: str, num_nodes: int, memory: str
) -> str:
    """Submit a prediction by Ray, before which the nodes but the head do something; return the job's id."""
    slurm.environment.pop("RAY_AUTH_TOKEN", None)
    program = folder / "bin" / "medunet"
    program.write_text(LOOKS_AT_RAY.format(python=sys.executable, repository=str(REPOSITORY)))
    ray = folder / "bin" / "ray"
    ray.write_text(OTHER_RAY.format(first=other, ray=Path(sys.executable).with_name("ray")))
    ray.chmod(0o755)
    scans = folder / "scans of Quisling"
    write_scans(run, scans)
    for path in list(scans.iterdir()):
        path.rename(path.with_name(f"Jubilee_{path.name}"))
    script = folder / "predict_ray.sbatch"  # adapted, as users do
    script.write_text((SCRIPTS / script.name).read_text().replace("--mem=64G", memory))
    return slurm.submit(
        script,
        [f"--nodes={num_nodes}", "--cpus-per-task=2"],
        [run.folder.model(0), scans, "--out", folder / "masks", *EXACT],
        memory=None,
        PYTHONPATH=str(REPOSITORY),  # of the workers, which Ray starts
        KEPT=str(folder / "kept"),
        FOUND=str(folder / "found.json"),
        JOIN_WITHIN_S="3600",  # longer than the tests wait
    )


@pytest.mark.usefixtures("one_ray")
def test_ray_goes_on_without_a_node_that_does_not_start(
    finished_run: Run, slurm: SlurmCluster, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    job = submit_with_ray(finished_run, slurm, tmp_path, "echo no route; exit 1", 2, "--mem-per-cpu=2000")
    states = slurm.wait(job)
    log = (slurm.work / f"medunet-ray-{job}.log").read_text()
    assert states == {"": ("COMPLETED", "0:0")}, log
    assert f"Ray has 1 of 2 nodes. See medunet-ray-{job}-ray.log." in log
    assert "no route" in (slurm.work / f"medunet-ray-{job}-ray.log").read_text()
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 6


@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(("num_nodes", "memory"), [(1, "--mem=4000"), (2, "--mem-per-cpu=2000")])
def test_ray_predicts_behind_a_token_and_leaves_nothing(
    finished_run: Run, slurm: SlurmCluster, tmp_path: Path, num_nodes: int, memory: str
) -> None:
    pytest.importorskip("ray")
    job = submit_with_ray(finished_run, slurm, tmp_path, "sleep 25", num_nodes, memory)
    out = tmp_path / "masks"
    names = {path.name for path in (tmp_path / "scans of Quisling").iterdir()}
    states = slurm.wait(job)
    log = (slurm.work / f"medunet-ray-{job}.log").read_text()
    assert states == {"": ("COMPLETED", "0:0")}, log
    assert {path.name for path in out.glob("*.nii.gz")} == names
    assert all(read_header(out / name).shape for name in names)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["cores"] == [2.0] * num_nodes, (slurm.work / f"medunet-ray-{job}-ray.log").read_text()
    assert found["memory"] == [4000 * 2**20 * 9 // 10] * num_nodes
    assert len(set(found["nodes"])) == num_nodes
    assert ("Ray has 2 of 2 nodes." in log) == (num_nodes == 2)
    assert (found["mode"], len(found["token"])) == ("0o600", 64)
    assert (found["friend"], found["stranger"]) == (0, 1)
    assert not found["dashboard"]
    files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(files) > 5
    texts = [path.read_bytes() + path.name.encode() for path in files]
    assert not [
        path for path, text in zip(files, texts, strict=True) if b"Jubilee" in text or b"Quisling" in text
    ]
    assert not Path(found["folder"]).exists()
    assert not list(slurm.work.glob(".medunet-ray*"))
