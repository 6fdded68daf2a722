"""Imported models against nnU-Net 2.8.1: preprocessed arrays, logits and masks of models that segment."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_models import EXAMPLES, Example

from medunet.base.errors import InputError
from medunet.imaging.volumes import read_channels
from medunet.inference.model import Model
from medunet.inference.nnunet.folds import compute_folds, predict_folds
from medunet.inference.nnunet.prepare import preprocess
from medunet.inference.prepare import Prepared
from medunet.inference.stream import open_stream

EACH = pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example.name}-{example.configuration}"
)


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imported")


@pytest.fixture
def model(example: Example, imported: Path) -> Model:
    return example.load(imported / f"{example.name}-{example.configuration}")


def scan_of(example: Example, model: Model) -> list[Path]:
    """Return a path for each channel: a picture holds all of them."""
    scans = example.scans
    return scans * (len(model.card.description.channels) // len(scans))


def prepare(example: Example, model: Model) -> Prepared:
    return model.prepare_volume(read_channels(scan_of(example, model)))


def stream_logits(model: Model, prepared: Prepared, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the logits `(K, I, J, K)` of the windows, without the padding of the image to the patch."""
    card = model.card
    stream = open_stream(
        model.backend,
        prepared.image.as_tensor(),
        card.plan,
        card.inference,
        regions=bool(card.description.regions),
        as_nnunet=True,
    )
    slabs = [slab.logits.clone() for slab in stream.slabs()]
    logits = torch.cat(slabs, 1).movedim(1, 1 + stream.axis)
    for axis, n in enumerate(shape, start=1):
        logits = logits.narrow(axis, (logits.shape[axis] - n) // 2, n)
    return logits


@EACH
def test_preprocessed_array_is_nnunets(example: Example, model: Model):
    volume, rules = read_channels(scan_of(example, model)), model.card.nnunet
    assert rules is not None
    mask = example_mask(example) if rules.previous else None
    found = preprocess(volume, model.card.plan, rules, mask).image
    np.testing.assert_allclose(found, example.prepared(), rtol=1e-6, atol=1e-4)  # values may be raw ones


def example_mask(example: Example) -> np.ndarray:
    """Return the mask that nnU-Net's earlier stage gave to its cascade."""
    return Example(example.name, "3d_lowres").labels("0").astype(np.uint8)


@EACH
def test_logits_are_nnunets(example: Example, model: Model):
    expected = example.logits("0")
    found = stream_logits(model, prepare(example, model), expected.shape[1:])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-3)


@EACH
def test_mask_is_nnunets(example: Example, model: Model):
    found, expected = model.compute(prepare(example, model), model.card.inference), example.labels("0")
    assert_same(found, expected)
    truth = example.truth()
    for value in (1, 2):
        assert dice(found == value, truth == value) >= 0.7, "the model does not segment: the test says little"


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert equal labels in at least 99.9% of the foreground, and a Dice of at least 0.999 for each label."""
    foreground = (expected > 0) | (found > 0)
    assert foreground.any()
    assert (found == expected)[foreground].mean() >= 0.999
    for value in np.unique(expected)[1:]:
        assert dice(found == value, expected == value) >= 0.999


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_shifts_of_windows_are_refused(imported: Path):
    model = EXAMPLES[0].load(imported / "slices-3d_fullres")
    shifted = model.card.inference.model_copy(update={"shifts": 2})
    with pytest.raises(InputError, match="have no shifts"):
        model.compute(prepare(EXAMPLES[0], model), shifted)


def test_folds_are_averaged_as_logits(imported: Path):
    example = EXAMPLES[0]
    models = [example.load(imported / "slices-3d_fullres", fold) for fold in example.folds]
    volume = read_channels(example.scans)
    before = volume.array.copy()
    found = predict_folds(models, volume)
    assert_same(found, example.labels("0", "1"))
    np.testing.assert_array_equal(volume.array, before)
    alone = compute_folds(models[:1], models[0].prepare_volume(volume))
    assert (found != alone).any(), "the second fold changes nothing: the test says little"
