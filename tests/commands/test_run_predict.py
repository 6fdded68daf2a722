"""`medunet predict` where a choice of backend, made for other weights, cannot be kept."""

from typing import Any

import pytest

from medunet.base.files import read_json
from medunet.compute import choice_cache
from medunet.compute.choice_cache import Choice
from medunet.inference import model_folder, probe
from medunet.inference.openvino_backend import ConversionError
from medunet.runs.run import Run


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_torch_predicts_where_openvino_cannot_compute_these_weights(
    own_run: Run, call, monkeypatch: pytest.MonkeyPatch, tmp_path, backend: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ConversionError("OpenVINO computes other logits than torch", hint="Use --backend torch.")

    choose = probe.choose_for_model

    def remembered(*given: Any, **options: Any) -> Choice:
        return choose(*given, **options) if given[4] == "torch" else Choice(backend="openvino")

    monkeypatch.setattr(choice_cache, "read_settings", dict)
    monkeypatch.setattr(model_folder, "find_converted", refuse)
    monkeypatch.setattr(probe, "choose_for_model", remembered)
    image = next(iter(sorted((own_run.data_root / "imagesTr").iterdir())))
    given = ("--out", tmp_path / "out", "--device", "cpu", "--precision", "fp32", "--backend", backend)
    code, text = call("predict", own_run.folder.model(0), image, *given)
    assert "OpenVINO computes other logits than torch" in text
    if backend == "openvino":
        assert code == 2
        return
    assert code == 0, text
    (entry,) = read_json(tmp_path / "out" / "index.json")["cases"].values()
    assert entry["backend"] == "torch"
