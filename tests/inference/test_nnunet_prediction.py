"""Imported models against nnU-Net 2.8.1: preprocessed arrays, logits and masks of models that segment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_models import EXAMPLES, Example

from medunet.base.errors import InputError
from medunet.compute.choice_cache import BackendName
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import read_channels
from medunet.inference.ensemble import Ensemble
from medunet.inference.memory import Way
from medunet.inference.model import Model
from medunet.inference.nnunet.prepare import preprocess
from medunet.inference.prepare import Prepared
from medunet.inference.scan_blocks import order_of, walk_blocks
from medunet.inference.stream import open_stream
from medunet.records.run_folder import RunFolder

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


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_folds_are_averaged_as_logits(imported: Path, backend: BackendName):
    if backend == "openvino":
        pytest.importorskip("openvino")
    example, out = EXAMPLES[0], imported / "slices-3d_fullres"
    alone = example.load(out)
    folders = [RunFolder(out).model(fold) for fold in example.folds]
    joint = Model.load(folders, device=torch.device("cpu"), precision="fp32", backend=backend)
    volume = read_channels(example.scans)
    before = volume.array.copy()
    found = joint.predict_volume(volume)
    assert_same(found, example.labels("0", "1"))
    np.testing.assert_array_equal(volume.array, before)
    differs = found != alone.predict_volume(volume)
    assert differs.any(), "the second fold changes nothing: the test says little"


def test_configurations_are_averaged_as_probabilities_on_the_scan(
    imported: Path, monkeypatch: pytest.MonkeyPatch
):
    """As nnU-Net's ensembles of configurations: logits are resampled, and their softmax is averaged."""
    example = EXAMPLES[0]
    models = tuple(example.load(imported / "slices-3d_fullres", fold) for fold in example.folds)
    config, volume = models[0].card.inference, read_channels(example.scans)

    def scan() -> Volume:
        return replace(volume, array=volume.array.copy())

    prepared = models[0].prepare_volume(scan())
    assert prepared.placement is not None
    blocks = []
    for model in models:
        stream = model.open(prepared, config, Way(1))
        walked = walk_blocks([model.source(stream, prepared)])
        blocks.append([(targets, part.probabilities(regions=False)) for targets, (part,) in walked])
    expected = np.zeros(prepared.placement.shape, np.uint8)
    view = prepared.placement.view(expected, order_of(stream.axis))
    for (targets, one), (_, other) in zip(*blocks, strict=True):
        view[targets] = (one + other).argmax(0).numpy()
    ensemble = Ensemble(models, (config,))
    assert (ensemble.compute(ensemble.prepare_volume(scan()), config) != expected).mean() < 1e-4
    monkeypatch.setattr(Ensemble, "_common_axis", lambda *_: None)  # as if they saw other parts of the scan
    assert (ensemble.compute(ensemble.prepare_volume(scan()), config) != expected).mean() < 1e-4
