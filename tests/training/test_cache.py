"""The cache holds what was preprocessed, on disk and in memory, notices damage, and names every case that fails."""

import json
import os
import pickle
import shutil
import signal
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc2
import numpy as np
import pytest

from medunet.base.errors import DataError, InputError
from medunet.base.pool import Workers
from medunet.runs.run import Run
from medunet.training import cache
from medunet.training.cache import load_into_memory, prepare_cases, ram_needed_gb
from medunet.training.data import PatchDataset


def prepared(run: Run, folder: Path | None = None):
    cases, _ = run.read_manifest().split_fold(0)
    return prepare_cases(
        cases,
        run.read_manifest().description,
        run.read_plan(),
        run.data_root,
        folder or run.folder.cache,
        seed=0,
    )


def contents(cases) -> list[tuple]:
    """Return all that prepared cases hold."""
    return [
        (case.id, case.image[:].tobytes(), case.label[:].tobytes(), sorted(case.locations),
         *(case.locations[name].tobytes() for name in sorted(case.locations)))
        for case in cases
    ]  # fmt: skip


def in_processes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let any work be shared by so many processes."""
    monkeypatch.setattr(cache, "_LITTLE_WORK", 0)
    monkeypatch.setattr(cache, "choose_workers", lambda *_, **__: Workers(number))


@pytest.mark.parametrize("shared", [False, True])
def test_patches_from_disk_equal_those_from_memory(finished_run: Run, tmp_path: Path, shared: bool):
    on_disk = prepared(finished_run, tmp_path)
    in_memory = load_into_memory(on_disk, 1.0, shared=shared)
    kind = np.memmap if shared else np.ndarray
    assert all(isinstance(case.image[:], kind) and isinstance(case.label[:], kind) for case in in_memory)
    assert not any(isinstance(case.image, np.ndarray) for case in on_disk)
    assert contents(in_memory) == contents(on_disk)
    config = finished_run.config.training
    one, other = (
        PatchDataset(cases, finished_run.read_plan(), config, seed=0) for cases in (on_disk, in_memory)
    )
    for index in range(12):
        first, second = one[(0, index)], other[(0, index)]
        for key in ("image", "label"):
            np.testing.assert_array_equal(first[key].numpy(), second[key].numpy())


def test_cases_travel_between_processes_as_paths(finished_run: Run, tmp_path: Path):
    on_disk = prepared(finished_run, tmp_path)
    for cases in (on_disk, load_into_memory(on_disk, 1.0, shared=True)):
        before = contents(cases)  # all files are open
        sent = pickle.dumps(cases)
        assert len(sent) < 1000 * len(cases) < sum(len(image) for _, image, *_ in before)
        assert contents(pickle.loads(sent)) == before


def test_what_is_over_the_limit_stays_on_disk_and_says_so(finished_run: Run, capsys):
    cases = prepared(finished_run)
    needed_gb = ram_needed_gb(cases)
    assert load_into_memory(cases, 1.01 * needed_gb, shared=False) is not cases
    assert "over the limit" not in capsys.readouterr().err
    for shared in (False, True):
        assert load_into_memory(cases, 0.99 * needed_gb, shared=shared) is cases
        assert "over the limit" in capsys.readouterr().err


def test_what_the_disk_cannot_hold_unpacked_stays_compressed_and_says_so(
    finished_run: Run, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    cases = prepared(finished_run, tmp_path)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0.99e9 * ram_needed_gb(cases)))
    assert load_into_memory(cases, 1.0, shared=True) is cases
    assert "of the cache's disk" in capsys.readouterr().err
    assert not list(tmp_path.glob("*_image.npy"))


def test_another_batch_size_needs_no_preprocessing(finished_run: Run):
    plan = finished_run.read_plan().model_copy(update={"batch_size": 7, "patch_size": (16, 16, 8)})
    before = {path.name: path.stat().st_mtime_ns for path in finished_run.folder.cache.iterdir()}
    cases, _ = finished_run.read_manifest().split_fold(0)
    description = finished_run.read_manifest().description
    prepare_cases(cases, description, plan, finished_run.data_root, finished_run.folder.cache, seed=0)
    assert {path.name: path.stat().st_mtime_ns for path in finished_run.folder.cache.iterdir()} == before


def test_another_description_or_version_is_preprocessed_anew(
    finished_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    cases, _ = finished_run.read_manifest().split_fold(0)
    description, plan = finished_run.read_manifest().description, finished_run.read_plan()

    def num_files(description=description, plan=plan, seed=0) -> int:
        prepare_cases(cases[:1], description, plan, finished_run.data_root, tmp_path, seed=seed)
        return len(list(tmp_path.iterdir()))

    assert num_files() == num_files() == 4
    assert num_files(description.model_copy(update={"sided": not description.sided})) == 8
    assert num_files(plan=plan.model_copy(update={"crop_nonzero": not plan.crop_nonzero})) == 12
    monkeypatch.setattr(cache, "__version__", "0.0")
    assert num_files() == 16


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap_two_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = next(i for i in range(len(data) * 2 // 3, len(data) - 1) if data[i] != data[i + 1])
    data[place], data[place + 1] = data[place + 1], data[place]
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = (truncate, empty, swap_two_bytes, remove)


@pytest.mark.parametrize("ending", ["_image.b2nd", "_label.b2nd", "_locations.npy"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again_and_named(
    finished_run: Run, tmp_path: Path, capsys, damage, ending: str
):
    before = contents(prepared(finished_run, tmp_path))
    path = sorted(tmp_path.glob(f"*{ending}"))[1]
    others = {
        each: each.stat().st_mtime_ns for each in tmp_path.iterdir() if each.name[:32] != path.name[:32]
    }
    damage(path)
    capsys.readouterr()
    assert contents(prepared(finished_run, tmp_path)) == before
    said = capsys.readouterr().err
    assert said.count("preprocessed again") == 1
    assert path.name in said
    assert "Case case_" in said
    assert all(each.stat().st_mtime_ns == time_ns for each, time_ns in others.items())
    prepared(finished_run, tmp_path)
    assert capsys.readouterr().err == ""


def change_a_number(path: Path) -> None:
    entry = json.loads(path.read_text())
    entry["num_locations"]["liver"] -= 1
    path.write_text(json.dumps(entry))


@pytest.mark.parametrize("damage", [truncate, empty, change_a_number])
def test_an_entry_that_cannot_be_trusted_is_made_again(finished_run: Run, tmp_path: Path, capsys, damage):
    before = contents(prepared(finished_run, tmp_path))
    damage(sorted(tmp_path.glob("*.json"))[0])
    assert contents(prepared(finished_run, tmp_path)) == before
    assert "is damaged" in capsys.readouterr().err


def test_what_a_kill_left_without_its_entry_is_made_again(finished_run: Run, tmp_path: Path):
    before = contents(prepared(finished_run, tmp_path))
    entry = sorted(tmp_path.glob("*.json"))[0]
    entry.unlink()
    truncate(entry.with_name(f"{entry.stem}_image.b2nd"))
    assert contents(prepared(finished_run, tmp_path)) == before
    assert entry.exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_unpacked_array_is_made_again(finished_run: Run, tmp_path: Path, capsys, damage):
    on_disk = prepared(finished_run, tmp_path)
    before = contents(load_into_memory(on_disk, 1.0, shared=True))
    path = sorted(tmp_path.glob("*_image.npy"))[0]
    times = {each: each.stat().st_mtime_ns for each in tmp_path.glob("*.npy") if each != path}
    damage(path)
    assert contents(load_into_memory(on_disk, 1.0, shared=True)) == before
    assert (f"{path.name} of the cache is damaged" in capsys.readouterr().err) == (damage is not remove)
    assert {each: each.stat().st_mtime_ns for each in times} == times


def test_a_full_disk_is_said(finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_, **__):
        raise RuntimeError("Could not append the buffer")  # as Blosc2 does

    monkeypatch.setattr(blosc2, "asarray", fail)
    with pytest.raises(InputError, match=r"image\.b2nd: cannot be written.*Free disk space"):
        prepared(finished_run, tmp_path)


@pytest.mark.slow
def test_processes_prepare_the_same_files(finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepared(finished_run, tmp_path / "here")
    in_processes(monkeypatch, 2)
    prepared(finished_run, tmp_path / "apart")
    here, apart = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("here", "apart")
    )
    assert here == apart


@pytest.mark.parametrize("num_processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_all_cases_that_fail_are_named_and_the_others_kept(
    own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_processes: int
):
    if num_processes:
        in_processes(monkeypatch, num_processes)
    cases, _ = own_run.read_manifest().split_fold(0)
    first, last = cases[0], cases[-1]
    (own_run.data_root / first.images["CT"]).write_bytes(b"no scan")
    shutil.copy(own_run.data_root / cases[1].images["CT"], own_run.data_root / str(last.label))
    with pytest.raises(DataError) as caught:
        prepared(own_run, tmp_path / "cache")
    head, *rows = str(caught.value).splitlines()
    assert head.startswith(f"2 of {len(cases)} cases cannot be preprocessed")
    assert len(rows) == 2
    assert f"case {first.id}: {first.id}.nii.gz" in rows[0]
    assert f"case {last.id}: " in rows[1]
    assert len(list((tmp_path / "cache").glob("*.json"))) == len(cases) - 2
    monkeypatch.undo()
    shutil.copy(own_run.data_root / cases[1].images["CT"], own_run.data_root / first.images["CT"])
    with pytest.raises(DataError, match=f"^case {last.id}: "):  # one alone
        prepared(own_run, tmp_path / "cache")


def test_an_unforeseen_fault_names_its_case(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_):
        raise MemoryError if len(list(tmp_path.glob("*.json"))) == 1 else ValueError("odd")

    cases, _ = finished_run.read_manifest().split_fold(0)
    prepare_cases(
        cases[:1],
        finished_run.read_description(),
        finished_run.read_plan(),
        finished_run.data_root,
        tmp_path,
        seed=0,
    )
    monkeypatch.setattr(cache, "find_locations", fail)
    with pytest.raises(DataError, match=rf"case {cases[1].id}: memory ran out\. Free memory"):
        prepared(finished_run, tmp_path)
    (next(tmp_path.glob("*.json"))).unlink()
    with pytest.raises(DataError, match=rf"case {cases[1].id}: cannot be preprocessed \(ValueError: odd\)"):
        prepared(finished_run, tmp_path)


def die_on_the_second(job, **more):
    """Prepare a case as the system lets it, which ends the process of one for want of memory."""
    if job.case.id == DOOMED:
        os.kill(os.getpid(), signal.SIGKILL)
    return REAL_WRITE_CASE(job, **more)


REAL_WRITE_CASE, DOOMED = cache._write_case, "case_02"


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_case_that_takes_its_process_with_it_is_named(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_processes: int
):
    in_processes(monkeypatch, num_processes)
    monkeypatch.setattr(cache, "_write_case", die_on_the_second)
    cases, _ = finished_run.read_manifest().split_fold(0)
    assert DOOMED in [case.id for case in cases]
    with pytest.raises(
        DataError, match=rf"case {DOOMED}: its process was killed.*memory ran out.*free memory"
    ):
        prepared(finished_run, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == len(cases) - 1


def test_unfinished_files_of_killed_processes_go(finished_run: Run, tmp_path: Path):
    for name, age_s in ((".old.b2nd", 7200), (".young.b2nd", 60)):
        (tmp_path / name).write_bytes(b"part")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    prepared(finished_run, tmp_path)
    assert [path.name for path in tmp_path.glob(".*")] == [".young.b2nd"]


def test_a_batch_of_one_holds_foreground_as_often_as_asked(finished_run: Run):
    plan = finished_run.read_plan().model_copy(update={"batch_size": 1, "patch_size": (2, 2, 2)})
    shares = {}
    for share in (0.0, 0.5, 1.0):
        config = finished_run.config.training.model_copy(update={"foreground_share": share})
        patches = PatchDataset(prepared(finished_run), plan, config, seed=0)
        shares[share] = np.mean([bool((patches[(0, index)]["label"] > 0).any()) for index in range(100)])
    assert shares[0.0] + 0.2 < shares[0.5] < shares[1.0] == 1.0


def test_folds_that_begin_together_preprocess_each_case_once(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, written = cache.write_entry, []

    def note(folder: Path, key: str, *rest: object) -> None:
        written.append(key)
        write(folder, key, *rest)

    monkeypatch.setattr(cache, "write_entry", note)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: prepared(finished_run, tmp_path), range(2))
    assert len(written) == len(set(written)) == len(first)
    assert contents(first) == contents(second)
    assert not list(tmp_path.glob(".*"))
