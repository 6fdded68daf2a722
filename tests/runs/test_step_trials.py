"""Dice of held-out masks with steps tried on them: as counted by plain NumPy, resumed, and never without a reason."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medunet.base.errors import DataError
from medunet.base.files import write_json
from medunet.imaging.nifti import read_header, write_mask, write_volume
from medunet.records.config import PostprocessStep
from medunet.records.description import Description
from medunet.runs import step_trials
from medunet.runs.step_trials import HeldOut, try_steps

SHAPE, SPACING_MM = (20, 18, 9), (1.0, 1.5, 3.0)
LABELS = {"background": 0, "liver": 1, "tumour": 2, "ignore": 7}
PLAIN = Description(
    name="tiny",
    layout="pairs",
    channels={"CT": {"modality": "CT"}},
    labels=LABELS,
)
REGIONS = PLAIN.model_copy(
    update={
        "regions": {"organ": ("liver", "tumour"), "tumour": ("tumour",)},
        "region_order": ("organ", "tumour"),
    }
)
KEEP = {"liver": (PostprocessStep(keep_largest=True),)}


@pytest.fixture
def cohort(tmp_path: Path) -> list[HeldOut]:
    """Random blobs; of the second case both label and mask lack the tumour, of the third the mask is missing."""
    rng = np.random.default_rng(0)
    held = []
    for number in range(3):
        label, mask = (_blobs(rng) for _ in range(2))
        if number == 1:
            label[label == 2], mask[mask == 2] = 0, 0
        label[:3] = 7
        path, predicted = tmp_path / f"labels/c{number}.nii.gz", tmp_path / f"masks/c{number}.nii.gz"
        write_volume(path, label, np.diag([*SPACING_MM, 1.0]))
        write_mask(predicted, mask, read_header(path))
        held.append(HeldOut(f"c{number}", path, None if number == 2 else predicted))
    _write_index(tmp_path / "masks", PLAIN)
    return held


def _write_index(folder: Path, description: Description) -> None:
    targets = {name: list(values) for name, values in description.targets.items()}
    write_json(folder / "index.json", {"labels": description.labels, "targets": targets, "cases": {}})


def _blobs(rng: np.random.Generator) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5)
    return np.digitize(smooth, np.quantile(smooth, [0.6, 0.85])).astype(np.uint8)


def load(path: Path) -> np.ndarray:
    import nibabel as nib

    return np.asarray(nib.load(path).dataobj)


def dice(label: np.ndarray, mask: np.ndarray, values: tuple[int, ...]) -> float:
    """Return Dice by its definition, ignored voxels left out."""
    kept = label != 7
    first, second = np.isin(label, values) & kept, np.isin(mask, values) & kept
    total = first.sum() + second.sum()
    return 2 * (first & second).sum() / total if total else math.nan


@pytest.mark.parametrize("description", [PLAIN, REGIONS], ids=["labels", "regions"])
def test_dice_as_numpy_counts_it(cohort, description, tmp_path):
    _write_index(tmp_path / "masks", description)
    first = next(iter(description.targets))
    tried = try_steps(cohort, description, [{}, {first: (PostprocessStep(keep_largest=True),)}], about="Try")
    for case, result in zip(cohort[:2], tried[:2], strict=True):
        label, mask = load(case.label), load(tmp_path / f"masks/{case.case}.nii.gz")
        values = description.targets[first]
        parts, count = ndimage.label(np.isin(mask, values), np.ones((3, 3, 3)))
        sizes = ndimage.sum_labels(parts > 0, parts, range(1, count + 1))
        kept = np.where(np.isin(mask, values) & (parts != 1 + np.argmax(sizes)), 0, mask)
        assert not np.array_equal(kept, mask)
        for row, array in zip(result.dice, (mask, kept), strict=True):
            expected = [dice(label, array, each) for each in description.targets.values()]
            assert row == pytest.approx(expected, nan_ok=True)
        volumes = [
            np.isin(label, each).sum() * math.prod(SPACING_MM) / 1000 for each in description.targets.values()
        ]
        assert result.volumes_ml == pytest.approx(volumes)
        assert result.spacing_mm == 1.5
    assert math.isnan(tried[1].dice[0][1])
    assert tried[2].dice == [[0.0, 0.0]] * 2


def test_a_stopped_call_goes_on(cohort, tmp_path, monkeypatch):
    journal, compute, computed = tmp_path / "partial.jsonl", step_trials._compute, []

    def note(held, *arguments):
        computed.append(held.case)
        return compute(held, *arguments)

    def stop_at_the_third(held, *arguments):
        if held.case == "c2":
            raise KeyboardInterrupt
        return note(held, *arguments)

    monkeypatch.setattr(step_trials, "_compute", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        try_steps(cohort, PLAIN, [{}], about="Try", journal=journal)
    monkeypatch.setattr(step_trials, "_compute", note)
    with journal.open("a") as stream:
        stream.write('{"key": "incomple')
    again = try_steps(cohort, PLAIN, [{}], about="Try", journal=journal)
    assert computed == ["c0", "c1", "c2"]
    fresh = try_steps(cohort, PLAIN, [{}], about="Try")
    for one, other in zip(again, fresh, strict=True):
        assert one.dice[0] == pytest.approx(other.dice[0], nan_ok=True)
    computed.clear()
    try_steps(cohort, PLAIN, [KEEP], about="Try", journal=journal)  # other steps
    assert len(computed) == 3
    mask = cohort[0].mask
    write_mask(mask, np.zeros(SHAPE, np.uint8), read_header(cohort[0].label))
    computed.clear()
    changed = try_steps(cohort, PLAIN, [KEEP], about="Try", journal=journal)
    assert computed == ["c0"]
    assert changed[0].dice == [[0.0, 0.0]]


def test_all_that_cannot_be_read_is_named_with_its_reason(cohort, tmp_path):
    cohort[0].mask.write_bytes(b"no mask")
    write_volume(cohort[1].label, np.zeros((4, 5, 6), np.uint8), np.diag([*SPACING_MM, 1.0]))
    with pytest.raises(DataError) as error:
        try_steps(cohort, PLAIN, [{}], about="Try")
    text = str(error.value)
    assert "2 of 3 held-out cases" in text
    assert "case c0: " in text
    assert "case c1: the prediction's shape" in text
    assert str(tmp_path) not in text


def test_processes_count_as_one_does(cohort):
    alone = try_steps(cohort, PLAIN, [{}, KEEP], about="Try", workers=1)
    many = try_steps(cohort, PLAIN, [{}, KEEP], about="Try", workers=2)
    for one, other in zip(alone, many, strict=True):
        assert np.array_equal(one.dice, other.dice, equal_nan=True)
