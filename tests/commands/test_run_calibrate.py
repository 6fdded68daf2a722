"""`medunet calibrate` and `medunet predict --fast`: costs on held-out cases in the card, printed; masks not stale."""

import pytest

from medunet.base.files import read_json
from medunet.records.model_card import ModelCard
from medunet.runs.run import Run

pytest.importorskip("openvino")
pytest.importorskip("nncf")


def test_costs_are_measured_once_and_printed(own_run: Run, call, tmp_path):
    folder, root = own_run.folder, own_run.data_root
    given = ("--data-root", root, "--device", "cpu")
    code, text = call(
        "predict", folder.root, "--fold", 0, "--precision", "int8", "--backend", "openvino", *given
    )
    assert code == 2
    assert "medunet calibrate RUN" in text
    masks = read_json(folder.predictions / "index.json")["cases"]

    code, text = call("calibrate", folder.root, *given)
    assert code == 0, text
    card = ModelCard.read(folder.model(0) / "model.json")
    assert set(card.costs) == {"int8", "fast"}
    _, validation = own_run.read_manifest().split_fold(0)
    for way, cost in card.costs.items():
        assert f"{way}: mean Dice differs by" in text
        assert cost.num_cases == len(validation)
        assert cost.num_patients == len({case.patient for case in validation})
        assert cost.weights_sha256 == card.final_weights_sha256
        assert set(cost.targets) == set(card.description.targets)
        assert cost.seconds > 0
    assert card.costs["int8"].quantised_sha256
    assert not card.costs["fast"].quantised_sha256
    kept = folder.fold(0) / "calibration"
    times = {path: path.stat().st_mtime_ns for path in kept.glob("*/*.nii.gz")}
    assert len(times) == 3 * len(validation)

    assert call("calibrate", folder.root, *given)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times, "done cases are kept"
    assert ModelCard.read(folder.model(0) / "model.json") == card

    code, text = call("predict", folder.root, "--fold", 0, *given)
    assert "predicted again" not in text, "the card's costs make no mask stale"
    assert read_json(folder.predictions / "index.json")["cases"] == masks
    for options, words in (
        (("--precision", "int8", "--backend", "openvino"), "int8: mean Dice differs by"),
        (("--fast",), "--fast: mean Dice differs by"),
    ):
        out = tmp_path / words[:6].strip("-: ")
        image = next(iter(sorted((root / "imagesTr").iterdir())))
        code, text = call("predict", folder.root, image, "--out", out, "--device", "cpu", *options)
        assert code == 0, text
        assert words in text
        (entry,) = read_json(out / "index.json")["cases"].values()
        assert entry["window_options"]["overlap"] == (0.25 if "--fast" in options else 0.5)
        assert entry["precision"] == ("int8" if "int8" in options else "fp32")
    (int8,) = read_json(tmp_path / "int8" / "index.json")["cases"].values()
    assert int8["quantised_sha256"] == card.costs["int8"].quantised_sha256
