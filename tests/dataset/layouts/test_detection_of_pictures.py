"""Folders of pictures: whether label values are instances, classes or one mask, and which channels there are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_layouts import ask, cases
from tiny_pictures import draw_discs, write_pictures

from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.manifest import make_manifest


def numbered_discs(number: int) -> np.ndarray:
    """Discs cut into 8 or more numbered objects, not as many in each."""
    label = draw_discs(number)[1]
    label[label > 0] = np.arange((label > 0).sum()) % (8 + number) + 1
    return label


@pytest.mark.parametrize(
    ("draw", "labels", "instances"),
    [
        (lambda number: draw_discs(number)[1], {"background": 0, "object": 1}, True),  # numbers from 300 on
        (numbered_discs, {"background": 0, "object": 1}, True),
        (lambda number: (draw_discs(number)[1] > 0) * 255, {"background": 0, "label_255": 255}, False),
        (
            lambda number: draw_discs(number)[1] % 299,
            {"background": 0, "label_1": 1, "label_2": 2, "label_3": 3},
            False,
        ),
    ],
    ids=["large numbers", "many objects", "binary", "classes"],
)
def test_pictures_with_instances_or_masks(
    tmp_path: Path, draw: Callable[[int], np.ndarray], labels: dict[str, int], instances: bool
) -> None:
    write_pictures(tmp_path, 3)
    for number in range(3):
        Image.fromarray(draw(number).astype(np.uint16)).save(tmp_path / f"labels/disc_0{number}.png")
    found = ask(tmp_path)
    assert (found.description.labels, found.description.instances) == (labels, instances)
    assert list(found.description.channels) == ["red", "green", "blue"]
    faults = check_manifest(make_manifest(found.description, tmp_path), tmp_path)
    assert [fault.code for fault in faults if fault.severity == "error"] == []


def test_grey_pictures_with_suffixed_masks(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    for path in (tmp_path / "images").iterdir():
        Image.open(path).convert("L").save(path)
    (tmp_path / "labels").rename(tmp_path / "masks")
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    found = ask(tmp_path)
    assert list(found.description.channels) == ["grey"]
    assert cases(found, tmp_path)["disc_00"] == ("images/disc_00.png", "masks/disc_00_mask.png", "train")
