"""An import into a folder that holds one already: what has not changed is kept, and nothing is lost by a kill."""

import os
import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest
from tiny_dicom import load_volume, make_series, write_series, write_slices, write_study

from medunet.dataset.dicom import conversion, importer
from medunet.dataset.dicom.importer import import_tree
from medunet.records.manifest import Manifest


def test_one_modality_has_one_manifest_and_an_old_one_goes(tmp_path: Path) -> None:
    write_study(tmp_path / "tree")
    out = tmp_path / "out"
    import_tree(tmp_path / "tree", out)
    shutil.rmtree(tmp_path / "tree" / "y")
    (out / "images" / "p0001_s02.nii.gz").unlink()
    import_tree(tmp_path / "tree", out)
    assert sorted(path.name for path in out.glob("manifest*")) == ["manifest.json"]


def test_another_tree_joins_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_series(tmp_path / "monday", 5, lambda one, index: setattr(one, "SliceThickness", 9), series="1")
    write_series(tmp_path / "friday", 6, series="2")
    import_tree(tmp_path / "monday", out)
    imported = import_tree(tmp_path / "friday", out)
    assert {row.case: row.faults for row in imported.rows} == {"p0001_s01": ("D011",), "p0001_s02": ()}
    assert [fault.case for fault in imported.faults] == ["p0001_s01"]
    assert [case.id for case in Manifest.read(out / "manifest.json").cases] == ["p0001_s01", "p0001_s02"]


def test_what_has_not_changed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_study(tree)
    first = import_tree(tree, out)
    saved = {name: (out / name).read_bytes() for name in ("series.json", "checks.json", "originals.csv")}
    converted = record_conversions(monkeypatch)
    assert import_tree(tree, out) == first
    assert converted == []
    assert {name: (out / name).read_bytes() for name in saved} == saved
    repaired = import_tree(tree, out, repair=True)
    assert sorted(converted) == ["p0001_s01", "p0001_s02", "p0002_s01"]  # made otherwise now
    assert [row.status for row in repaired.rows] == ["imported"] * 3


def record_conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the cases whose pixels are read from now on."""
    converted: list[str] = []
    convert = importer.convert

    def record(job: conversion.Job) -> conversion.Outcome:
        if not job.part.is_refused:
            converted.append(job.case)
        return convert(job)

    monkeypatch.setattr(importer, "convert", record)
    return converted


def test_a_changed_series_is_made_anew_and_a_spoilt_one_leaves_no_image(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    paths = write_series(tree, 8)
    import_tree(tree, out)
    paths[-1].unlink()
    assert import_tree(tree, out).rows[0].shape == (12, 10, 7)
    paths[3].unlink()
    (row,) = import_tree(tree, out).rows
    assert (row.status, row.faults) == ("refused", ("D002",))
    assert list((out / "images").iterdir()) == []
    assert not list(out.glob("manifest*"))


def test_a_series_that_becomes_one_volume_again_leaves_no_second(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    slices = make_series(6) + make_series(6)
    for place, one in enumerate(slices):
        one.SOPInstanceUID, one.EchoTime = f"1.2.3.{place}", 95 if place >= 6 else 12
    paths = write_slices(slices, tree)
    assert [row.case for row in import_tree(tree, out).rows] == ["p0001_s01", "p0001_s02"]
    for path in paths[6:]:
        path.unlink()
    assert [row.case for row in import_tree(tree, out).rows] == ["p0001_s01"]
    assert [path.name for path in (out / "images").iterdir()] == ["p0001_s01.nii.gz"]


def test_an_import_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_study(tree)
    write = conversion.write_volume
    calls: list[Path] = []

    def stop_at_the_second(path: Path, *rest: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.with_name(f".{path.stem}.half.nii.gz").write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(conversion, "write_volume", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        import_tree(tree, out, workers=1)
    monkeypatch.setattr(conversion, "write_volume", write)
    assert not (out / "series.json").exists()
    with (out / "series.partial.jsonl").open("a") as stream:
        stream.write('{"case": "p0001_s02", "pat')  # a line that a kill has cut off
    converted = record_conversions(monkeypatch)
    imported = import_tree(tree, out)
    assert converted == ["p0001_s02"]
    assert [row.status for row in imported.rows] == ["imported", "imported", "refused"]
    assert sorted(path.name for path in (out / "images").iterdir()) == [
        "p0001_s01.nii.gz",
        "p0001_s02.nii.gz",
    ]
    assert not (out / "series.partial.jsonl").exists()
    fresh = import_tree(tree, tmp_path / "fresh")
    assert imported == fresh


def test_a_kill_between_a_new_volume_and_its_row_leaves_no_old_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    paths = write_series(tree, 8)
    import_tree(tree, out)
    paths[-1].unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importer.Journal, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            import_tree(tree, out, workers=1)
    assert (out / "images/p0001_s01.nii.gz").exists()
    assert import_tree(tree, out).rows[0].shape == (12, 10, 7)


def test_a_file_changed_without_another_size_is_read_again(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    paths = write_series(tree, 5)
    import_tree(tree, out)
    for path in paths:
        one = pydicom.dcmread(path)
        one.RescaleIntercept = -1000  # as long as -1024
        before = path.stat()
        one.save_as(path)
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    import_tree(tree, out)
    assert load_volume(out, "p0001_s01")[0].min() == -1000


def test_what_killed_processes_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path / "tree")
    out = tmp_path / "out"
    import_tree(tmp_path / "tree", out)
    names = {path.name for path in out.rglob("*")}
    shutil.rmtree(out)
    work = importer.run_parallel

    def die(*given: Any) -> Any:
        (out / "images").mkdir()
        (out / "images" / ".p0001_s01.nii.gz.abcd1234.nii.gz").touch()  # by a worker; others go on
        yield from work(*given)

    monkeypatch.setattr(importer, "run_parallel", die)
    out.mkdir()
    (out / ".series.csv.abcd1234.tmp").touch()
    import_tree(tmp_path / "tree", out)
    assert {path.name for path in out.rglob("*")} == names
