"""The synthetic scans of packages have a model's channels, and pass the checks of its scans."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import describe, plan_network

from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.nifti import write_volume
from medunet.phantoms.example import example_kinds
from medunet.records.description import Description
from medunet.records.plan import Plan, Shown


def of(**changes: Any) -> Description:
    return Description.parse({**describe().to_dict(), **changes}, "test")


def small_plan(**changes: Any) -> Plan:
    plan = plan_network("plain", spacing_mm=(2.0, 1.5, 4.0))
    return plan.model_copy(update={"median_shape": (30, 40, 12), **changes})


CT = of(channels={"CT": {"modality": "CT"}}, labels={"background": 0, "spleen": 1})
LIVER = of(channels={"CT": {"modality": "CT"}})
MR = {"T1": {"modality": "MR"}, "FLAIR": {"modality": "MR"}}


@pytest.mark.parametrize(
    ("description", "kinds"),
    [
        (describe(), ["synthetic blobs"]),
        (CT, ["synthetic blobs"]),
        (LIVER, ["a synthetic CT of an abdomen", "synthetic blobs"]),
        (of(channels=MR), ["a synthetic MR scan of a head (T1w, FLAIR)", "synthetic blobs"]),
        (of(channels={**MR, "DWI": {"modality": "MR"}}), ["synthetic blobs"]),
        (of(layout="png"), ["synthetic blobs"]),
    ],
)
def test_a_phantom_is_chosen_by_channels_and_labels(description, kinds):
    assert list(example_kinds(description, small_plan())) == kinds


@pytest.mark.parametrize(
    "description", [describe(), describe(3), CT, LIVER], ids=["MR", "3 MR", "CT", "liver"]
)
def test_scans_pass_the_checks_of_a_model(tmp_path: Path, description: Description):
    plan = small_plan()
    known = {"percentile_00_5": 20.0, "percentile_99_5": 180.0, "mean": 90.0, "std": 30.0}
    shown = Shown(
        field_of_view_mm=(300.0, 250.0, 200.0), darkest=dict.fromkeys(description.channels, -1000.0)
    )
    if description.channels.keys() != {"CT"}:
        shown = shown.model_copy(update={"darkest": {}})
    changes = {"intensities": dict.fromkeys(description.channels, known), "shown": shown}
    fingerprint = plan.fingerprint.model_copy(update=changes)
    plan = plan.model_copy(update={"fingerprint": fingerprint})
    for make in example_kinds(description, plan).values():
        image, affine = make(0)
        assert np.array_equal(image, make(0)[0])
        assert not np.array_equal(image, make(1)[0])
        write_volume(tmp_path / "x.nii.gz", image, affine)
        images = [tmp_path / "x.nii.gz"] * len(description.channels)
        checked = CheckedScan("x", images, description, fingerprint)
        assert len(checked.read().array) == len(description.channels)
        assert checked.faults == []


def test_a_picture_has_the_colours_of_the_description():
    names = {name: {"modality": "other"} for name in ("red", "green", "blue")}
    image, _ = example_kinds(of(layout="png", channels=names), small_plan())["synthetic blobs"](0)
    assert (image.shape, image.dtype) == ((30, 40, 1, 3), np.uint8)


def test_the_head_has_the_contrasts_in_the_order_of_the_channels():
    plan = small_plan(spacing_mm=(6.0, 6.0, 6.0))
    (make, _) = example_kinds(of(channels=MR), plan).values()
    (other, _) = example_kinds(of(channels=dict(reversed(MR.items()))), plan).values()
    assert np.array_equal(make(0)[0], other(0)[0][..., ::-1])
