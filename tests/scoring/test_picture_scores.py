"""Masks of pictures: numbered objects as one label, distances in the plane and in pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medunet.base.errors import InputError
from medunet.records.label_rules import LabelRules
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair, find_pairs
from medunet.scoring.tables import write_scores

TARGETS = {"nucleus": (1,)}


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_numbered_objects_are_scored_in_the_plane(tmp_path: Path) -> None:
    reference = np.zeros((30, 44), np.uint16)
    reference[4:14, 5:17], reference[18:24, 20:40] = 7, 312
    prediction = np.roll(reference > 0, 3, axis=1).astype(np.uint8)
    pair = Pair("a", save(tmp_path / "r.png", reference), save(tmp_path / "p.png", prediction))
    objects = LabelRules({"background": 0, "nucleus": 1}, instances_as=1)
    (score,) = score_pairs([pair], TARGETS, TARGETS, rules_reference=objects)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (reference > 0, prediction > 0)]
    farthest = max(ndimage.distance_transform_edt(~edges[1 - side])[edges[side]].max() for side in (0, 1))
    overlap = np.count_nonzero((reference > 0) & (prediction > 0))
    assert score.hd_mm == farthest == 3
    assert score.dice == pytest.approx(2 * overlap / (np.count_nonzero(reference) + prediction.sum()))
    assert score.reference_ml * 1000 == pytest.approx(np.count_nonzero(reference))
    numbered = Pair("a", pair.reference, save(tmp_path / "n.tif", prediction.astype(np.uint16) * 900))
    (same,) = score_pairs([numbered], TARGETS, TARGETS, rules_reference=objects, rules_prediction=objects)
    assert same.prediction_sha256 != score.prediction_sha256
    same = replace(same, prediction_sha256=score.prediction_sha256)
    assert repr(same) == repr(score)  # a score that was not computed is NaN


def test_pictures_are_paired_by_stem(tmp_path: Path) -> None:
    pixels = np.ones((4, 6), np.uint8)
    for name in ("r/a.png", "r/b.TIF", "p/a.tif", "p/c.png", "p/b.png", "p/notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).touch()
        else:
            save(tmp_path / name, pixels)
    pairs, unmatched = find_pairs(tmp_path / "r", tmp_path / "p")
    assert [(pair.case, pair.prediction.name) for pair in pairs if pair.prediction] == [
        ("a", "a.tif"),
        ("b", "b.png"),
    ]
    assert unmatched == ["c.png"]
    (tmp_path / "p/a.nii.gz").touch()  # previews beside volumes are no masks
    assert find_pairs(tmp_path / "r", tmp_path / "p")[1] == []
    (tmp_path / "p/a.nii.gz").unlink()
    save(tmp_path / "p/a.png", pixels)
    with pytest.raises(InputError, match=r"both a\.png and a\.tif"):
        find_pairs(tmp_path / "r", tmp_path / "p")


def test_summary_names_the_files_as_they_are(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.ones((4, 6), np.uint8))
    scores = score_pairs([Pair("a", path, path)], TARGETS, TARGETS)
    write_scores(scores, tmp_path, about={}, targets=TARGETS, mask_ending=".png")
    assert '"prediction_file": "a.png"' in (tmp_path / "summary.json").read_text()
