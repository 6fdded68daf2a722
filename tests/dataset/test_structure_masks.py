"""One mask for each structure: recognised, merged into one label map, and nothing dropped without a word."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_layouts import AFFINE, SHAPE, ask
from typer.testing import CliRunner, Result

from medunet.base.errors import InputError
from medunet.cli.app import app
from medunet.dataset import structure_masks
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.manifest import make_manifest
from medunet.dataset.structure_masks import find_structure_cases, merge_structures
from medunet.imaging.nifti import write_volume
from medunet.imaging.volumes import read_label
from medunet.records.description import load_description

STRUCTURES = ("liver", "spleen", "zebra")


def label_map(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, SHAPE).astype(np.uint8)


def write(root: Path, names: tuple[str, ...] = STRUCTURES, masks: str = "segmentations/") -> Path:
    for seed in range(3):
        scan = np.random.default_rng(seed).integers(-1000, 900, SHAPE).astype(np.int16)
        case = root / f"s{seed}"
        (case / masks).mkdir(parents=True)
        write_volume(case / "ct.nii.gz", scan, AFFINE)
        for value, name in enumerate(names, 1):
            mask = (label_map(seed) == value).astype(np.uint8)
            write_volume(case / f"{masks}{name}.nii.gz", mask * (255 if value == 2 else 1), AFFINE)
    return root


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


@pytest.mark.parametrize("masks", ["segmentations/", "masks/", ""])
def test_masks_are_merged_and_give_a_dataset_that_the_check_passes(tmp_path: Path, masks: str) -> None:
    root, out = write(tmp_path / "data", masks=masks), tmp_path / "out"
    with pytest.raises(
        InputError, match=r"one mask for each of 3 structures \(liver, spleen, zebra\), in 3 case"
    ):
        ask(root)
    result = call("merge-masks", root, out)
    assert result.exit_code == 0, result.output
    assert "3 of 3 cases with 3 structures" in result.output
    for seed in range(3):
        np.testing.assert_array_equal(read_label(out / f"labels/s{seed}.nii.gz").array, label_map(seed))
        assert (out / f"images/s{seed}.nii.gz").read_bytes() == (root / f"s{seed}/ct.nii.gz").read_bytes()
    assert (
        call("manifest", out / "dataset.yaml", "--data-root", out, "--run", tmp_path / "run").exit_code == 0
    )
    description = load_description(str(out / "dataset.yaml"))
    assert description.labels == {"background": 0, "liver": 1, "spleen": 2, "zebra": 3}
    faults = check_manifest(make_manifest(description, out), out)
    assert [fault.code for fault in faults if fault.severity == "error"] == []
    with pytest.raises(InputError, match="is not empty"):
        merge_structures(root, out)


def test_structures_of_totalsegmentator_keep_its_values_and_some_may_be_chosen(tmp_path: Path) -> None:
    names = ("liver", "kidney_left", "kidney_right")
    merged = merge_structures(write(tmp_path / "a", names), tmp_path / "b", ["liver", "kidney_left"])
    assert merged.description.labels == {"background": 0, "liver": 5, "kidney_left": 3}
    assert not merged.description.sided
    assert set(np.unique(read_label(tmp_path / "b/labels/s0.nii.gz").array)) == {0, 5, 3}


def _lose(case: Path) -> None:
    (case / "segmentations/spleen.nii.gz").unlink()


def _shift(case: Path) -> None:
    shifted = AFFINE + np.array([[0, 0, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    write_volume(case / "segmentations/spleen.nii.gz", np.ones(SHAPE, np.uint8), shifted)


def _overlap(case: Path) -> None:
    write_volume(case / "segmentations/spleen.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)


def _break(case: Path) -> None:
    (case / "segmentations/spleen.nii.gz").write_bytes(b"x")


def _smooth(case: Path) -> None:
    values = np.linspace(0, 255, int(np.prod(SHAPE))).astype(np.uint8).reshape(SHAPE)
    write_volume(case / "segmentations/spleen.nii.gz", values, AFFINE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_smooth, "s1/segmentations/spleen.nii.gz has 119 values above 0, up to 255, where a mask has one"),
        (_lose, "no mask of spleen"),
        (_shift, "s1/segmentations/spleen.nii.gz is not on the grid of s1/ct.nii.gz"),
        (_overlap, "masks overlap: "),
        (_break, "spleen.nii.gz: "),
    ],
)
def test_a_case_at_fault_is_named_and_the_others_are_merged(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    root = write(tmp_path / "data")
    spoil(root / "s1")
    write_volume(root / "stray.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    result = call("merge-masks", root, tmp_path / "out")
    assert result.exit_code == 1
    assert "2 of 3 cases" in result.output
    assert f"failed s1: {message}" in result.output
    assert "left out stray.nii.gz" in result.output
    assert sorted(path.name for path in (tmp_path / "out/labels").iterdir()) == ["s0.nii.gz", "s2.nii.gz"]


def test_later_structures_overwrite_earlier_ones_in_the_order_given(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    _overlap(root / "s1")
    merged = merge_structures(root, tmp_path / "out", ["spleen", "liver", "zebra"])
    assert merged.failed == {}
    assert merged.overlaps["spleen and liver"] == int((label_map(1) == 1).sum())
    label = read_label(tmp_path / "out/labels/s1.nii.gz").array
    liver = merged.description.labels["liver"]
    np.testing.assert_array_equal(label == liver, label_map(1) == 1)


def test_other_folders_hold_no_structures(tmp_path: Path) -> None:
    for paths in (
        ["images/a.nii.gz", "labels/a.nii.gz"],
        [f"p{n}/{name}.nii.gz" for n in (1, 2) for name in ("t1", "t2", "flair", "seg")],
        [f"p{n}/{name}.nii.gz" for n in (1, 2) for name in ("ct", "label")],
        [f"p{n}/p{n}_{name}.nii.gz" for n in (1, 2) for name in ("t1", "seg")],
    ):
        assert find_structure_cases(paths) == []
    with pytest.raises(InputError, match="no cases with an image and masks named after structures"):
        merge_structures(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="no case has a mask of lung"):
        merge_structures(write(tmp_path / "data"), tmp_path / "out", ["lung"])


def test_a_call_that_is_killed_leaves_no_half_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write(tmp_path / "data"), tmp_path / "out"
    link = structure_masks._link

    def stop_at_the_second(source: Path, target: Path) -> None:
        if target.name == "s1.nii.gz":
            raise KeyboardInterrupt
        link(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(structure_masks, "_link", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            merge_structures(root, out, workers=1)
    assert not list(out.glob("[!.]*"))
    assert merge_structures(root, out, workers=1).num_written == 3
    assert {path.name for path in out.iterdir()} == {"images", "labels", "dataset.yaml"}
