"""`medunet import-model` and `medunet predict` with the imported model, as on the command line."""

from pathlib import Path

import numpy as np
import pytest
from nnunet_models import CASE, EXAMPLES, Example

from medunet.base.files import read_json_object
from medunet.imaging.volumes import read_label
from medunet.records.model_card import ModelCard

SLICES, _, PICTURES, _, _, _, CASCADE = EXAMPLES
IDS = ("slices", "pictures", "cascade")


@pytest.mark.parametrize("example", [SLICES, PICTURES, CASCADE], ids=IDS)
def test_import_then_predict_gives_nnunets_masks(call, tmp_path: Path, example: Example):
    out, masks = tmp_path / "model", tmp_path / "masks"
    code, text = call("import-model", example.results, "--out", out)
    assert code == 0, text
    assert f"Import: {example.configuration} of nnU-Net, fold" in text
    assert "segments organ, lesion" in text
    options = ("--device", "cpu", "--precision", "fp32", "--backend", "torch")
    code, text = call("predict", out, example.folder / "scans", "--out", masks, *options)
    assert code == 0, text
    (mask,) = (path for path in masks.iterdir() if path.name.startswith(CASE))
    assert mask.suffix == (".png" if example is PICTURES else ".gz")
    np.testing.assert_array_equal(read_label(mask).array, example.labels(*example.folds))
    code, text = call("predict", out, example.folder / "scans", "--out", masks, *options)
    assert code == 0, text
    assert "a case (read" not in text, "the mask was predicted again"


def test_masks_of_other_rules_are_predicted_again(call, tmp_path: Path):
    out, masks = tmp_path / "model", tmp_path / "masks"
    call("import-model", SLICES.results, "--out", out)
    command = (
        "predict",
        out,
        SLICES.folder / "scans",
        "--out",
        masks,
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--fold",
        "0",
    )
    call(*command)
    path = out / "folds" / "0" / "model" / "model.json"
    card = ModelCard.read(path)
    assert card.nnunet is not None
    moved = card.nnunet.normalisation[0].model_copy(update={"mean": 0.0})
    rules = card.nnunet.model_copy(update={"normalisation": (moved,)})
    card.model_copy(update={"nnunet": rules}).write(path)
    code, text = call(*command)
    assert code == 0, text
    assert "another plan or description of the model" in text
    assert read_json_object(masks / "index.json")["cases"][CASE]["windows"] > 0


def test_openvino_computes_imported_models(call, tmp_path: Path):
    pytest.importorskip("openvino")
    out, masks = tmp_path / "model", tmp_path / "masks"
    call("import-model", CASCADE.results, "--out", out)
    options = ("--device", "cpu", "--precision", "fp32", "--backend", "openvino")
    code, text = call("predict", out, CASCADE.folder / "scans", "--out", masks, *options)
    assert code == 0, text
    found, expected = read_label(masks / f"{CASE}.nii.gz").array, CASCADE.labels("0")
    assert (found != expected).sum() <= 0.001 * (expected > 0).sum()


def test_imported_models_are_exported_with_nnunets_rules(call, tmp_path: Path):
    pytest.importorskip("openvino")
    out = tmp_path / "model"
    call("import-model", PICTURES.results, "--out", out)
    code, text = call("export", out, "--to", "openvino", "--out", tmp_path / "exported")
    assert code == 0, text
    steps = read_json_object(tmp_path / "exported" / "export.json")["preprocessing"]
    assert "R: divide by 255." in steps
    assert all("mean" not in step for step in steps)


def test_final_weights_of_an_imported_model_are_explained(call, tmp_path: Path):
    out = tmp_path / "model"
    call("import-model", SLICES.results, "--out", out)
    command = ("predict", out, SLICES.folder / "scans", "--out", tmp_path / "masks", "--weights", "final")
    code, text = call(*command, "--device", "cpu")
    assert code == 2
    assert "`medunet import-model --checkpoint` chooses the checkpoint" in text
