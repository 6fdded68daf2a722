"""Pages of 2D pictures: one picture in colour, lengths and areas in pixels, nothing of a patient's directions."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pictures import describe_pictures, draw_discs, write_pictures

from medunet.dataset.manifest import make_manifest
from medunet.records.label_rules import LabelRules
from medunet.records.run_folder import RunFolder
from medunet.reporting.report import report_run
from medunet.reporting.scans import load_scan
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.tables import read_scores, write_scores


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose masks are the discs moved by two pixels to the right."""
    data, run = write_pictures(tmp_path / "data"), RunFolder(tmp_path / "run")
    description = describe_pictures()
    make_manifest(description, data).write(run.manifest)
    run.predictions.mkdir(parents=True)
    pairs = []
    for number in range(4):
        mask = np.roll(draw_discs(number)[1] > 0, 2, axis=1).astype(np.uint8)
        path = run.predictions / f"disc_{number:02d}.png"
        Image.fromarray(mask).save(path)
        pairs.append(Pair(path.stem, data / f"labels/{path.name}", path))
    targets = description.targets
    objects = LabelRules(description.labels, description.instances_as)
    scores = score_pairs(pairs, targets, targets, rules_reference=objects)
    write_scores(scores, run.root, about={}, targets=targets, mask_ending=".png")
    return run


def test_pages_speak_of_pixels(run: RunFolder, tmp_path: Path) -> None:
    index = report_run(run, tmp_path / "data", scores=read_scores(run.scores))
    page = (index.parent / "cases/disc_01.html").read_text()
    area = np.count_nonzero(draw_discs(1)[1])
    cells = re.findall(r'data-heading="(?:Reference|Predicted|Difference) px">(.*?)</td>', page)
    assert cells == [str(area), str(area), "0"]
    assert "40 × 56 pixels, no spacing known" in page
    assert "red, green, blue" in page
    for html in (page, index.read_text()):
        text = re.sub(
            r"data:image/png;base64,[^\"]+|<style>.*?</style>|<script>.*?</script>", "", html, flags=re.DOTALL
        )
        assert "HD95 px" in text
        assert "in pixels" in text
        assert not re.search(r"\bmm\b|\bml\b|[Aa]xial|patient is left|inferior", text)
    assert page.count("<img") >= 2  # the worst error, and the picture


def test_scan_is_in_colour_with_its_masks(run: RunFolder, tmp_path: Path) -> None:
    description, root = describe_pictures(), tmp_path / "data"
    case = make_manifest(description, root).cases[2]
    scan = load_scan(case, description, root, run.predictions / "disc_02.png")
    picture, numbers = draw_discs(2)
    upright = scan.image[::-1, ::-1, 0]  # RAS+ runs leftwards and upwards
    assert np.array_equal(upright.transpose(1, 0, 2), picture)
    assert scan.reference is not None
    assert scan.prediction is not None
    assert np.array_equal(scan.reference[::-1, ::-1, 0].T, numbers > 0)
    assert np.array_equal(scan.prediction[::-1, ::-1, 0].T, np.roll(numbers > 0, 2, axis=1))
