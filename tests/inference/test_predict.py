"""Prediction of many scans: done ones skipped by content, failed ones named, windows blended without a seam."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.inference.backend import TorchBackend
from medunet.inference.given_scans import find_scans
from medunet.inference.model import Model
from medunet.inference.model_folder import read_card
from medunet.inference.predict import predict_scans
from medunet.inference.restore import to_label_map
from medunet.inference.scan import Scan
from medunet.networks.unet import UNet
from medunet.records.config import InferenceConfig, change_config
from medunet.records.description import Description, load_description
from medunet.records.manifest import Accepted
from medunet.records.model_card import WEIGHTS_FILES
from medunet.runs.run import Run

CPU = torch.device("cpu")


def load(run: Run) -> Model:
    return Model.load(run.folder.model(0), device=CPU, precision="fp32")


def scans_of(run: Run) -> list[Scan]:
    return find_scans([run.data_root / "imagesTr"], read_card(run.folder.model(0))).scans


def test_done_cases_are_skipped_until_image_model_or_options_change(own_run: Run, tmp_path):
    model, scans, out = load(own_run), scans_of(own_run)[:2], tmp_path / "out"
    options = InferenceConfig()

    def times() -> list[int]:
        return [(out / f"{scan.case}.nii.gz").stat().st_mtime_ns for scan in scans]

    assert predict_scans(model, scans, out, options) == {}
    first = times()
    predict_scans(model, scans, out, options)
    assert times() == first
    image = nib.load(scans[1].images[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), scans[1].images[0])
    predict_scans(model, scans, out, options)
    assert [a == b for a, b in zip(times(), first, strict=True)] == [True, False]
    changed = change_config({"dataset": "x"}, ["inference.overlap=0.25"], "t").inference
    predict_scans(model, scans, out, changed)
    assert times()[0] != first[0]
    second = times()
    predict_scans(model, scans, out, changed, overwrite=True)
    assert all(a != b for a, b in zip(times(), second, strict=True))


class Exhausted(torch.nn.Module):
    """Finds no memory so many times; a card's and a computer's allocators word it so."""

    def __init__(self, network: torch.nn.Module, error: Exception, count: int) -> None:
        super().__init__()
        self.network, self.errors = network, [error] * count

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.errors:
            raise self.errors.pop()
        return self.network(image)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_scan_that_memory_does_not_suffice_for_is_named_and_the_others_go_on(own_run, tmp_path, error):
    model, scans, out = load(own_run), scans_of(own_run)[:2], tmp_path / "out"
    exhausted = Exhausted(model.backend.network, error, len(model.memory.ways))
    short = replace(model, backend=TorchBackend(exhausted, CPU, "fp32"))
    failed = predict_scans(short, scans, out, InferenceConfig())
    assert failed == {scans[0].case: "memory ran out on cpu. Free memory."}
    assert not (out / scans[0].mask_name).exists()
    assert (out / scans[1].mask_name).exists()


def test_weights_that_do_not_fit_a_card_are_a_message(own_run: Run, monkeypatch: pytest.MonkeyPatch):
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(UNet, "to", exhausted)
    with pytest.raises(InputError, match=r"do not fit into the free memory.*--device cpu"):
        load(own_run)


def test_one_broken_scan_is_named_and_the_others_go_on(own_run: Run, tmp_path):
    model, scans, out = load(own_run), scans_of(own_run)[:3], tmp_path / "out"
    predict_scans(model, scans, out, InferenceConfig())
    scans[1].images[0].write_bytes(b"broken")
    failed = predict_scans(model, scans, out, InferenceConfig())
    assert list(failed) == [scans[1].case]
    assert str(tmp_path) not in failed[scans[1].case]
    assert not (out / f"{scans[1].case}.nii.gz").exists(), "an old mask must not pass for a new one"
    assert (out / f"{scans[2].case}.nii.gz").exists()
    assert read_json(out / "index.json")["failed"] == failed


def test_a_mask_is_kept_while_its_scan_is_out_of_reach(own_run: Run, tmp_path):
    """A network drive may be down; what was predicted from it is not lost."""
    model, scans, out = load(own_run), scans_of(own_run)[:2], tmp_path / "out"
    predict_scans(model, scans, out, InferenceConfig())
    index, mask = read_json(out / "index.json"), (out / scans[0].mask_name).read_bytes()
    image = scans[0].images[0].rename(tmp_path / "away")
    failed = predict_scans(model, scans, out, InferenceConfig())
    assert failed == {scans[0].case: f"{scans[0].images[0].name}: no such file (its earlier mask is kept)"}
    assert (out / scans[0].mask_name).read_bytes() == mask
    assert read_json(out / "index.json") == index
    image.rename(scans[0].images[0])
    assert predict_scans(model, scans, out, InferenceConfig()) == {}
    assert read_json(out / "index.json") == index


def test_steps_of_an_unknown_target_are_refused_before_a_scan_is_computed(own_run: Run, tmp_path):
    config = InferenceConfig.parse({"postprocess": {"spleen": [{"keep_largest": 1}]}}, "test")
    with pytest.raises(InputError, match="there is no target 'spleen'"):
        predict_scans(load(own_run), scans_of(own_run)[:1], tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_scan_that_would_give_an_empty_mask_silently_fails_loudly(own_run: Run, tmp_path):
    model, (scan, *_) = load(own_run), scans_of(own_run)
    image = nib.load(scan.images[0])
    array = np.asarray(image.dataobj).astype(np.float32)
    array[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(array, image.affine), scan.images[0])
    failed = predict_scans(model, [scan], tmp_path, InferenceConfig())
    assert failed == {
        scan.case: "N004 NaN or infinite voxels: CT: 1 of 9360 voxels (expected: finite voxels only). "
        "Copy or export the file again."
    }


@pytest.mark.parametrize("shape", [(9, 1, 7), (3, 200, 5), (1, 1, 2)])
def test_scans_smaller_than_a_patch_are_predicted(own_run: Run, tmp_path, shape):
    path = tmp_path / "small.nii.gz"
    array = np.random.default_rng(0).integers(-80, 120, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([-2.0, 2, 4, 1])), path)
    # one is longer than the training scans, and of two voxels none need be below 0
    accepted = tuple(Accepted(code=code, case="small", reason="-") for code in ("N026", "N028"))
    scan = Scan("small", [path], accepted=accepted)
    assert predict_scans(load(own_run), [scan], tmp_path / "out", InferenceConfig()) == {}
    assert nib.load(tmp_path / "out/small.nii.gz").shape == shape


def test_a_mask_never_replaces_a_scan_or_a_file_of_somebody_else(own_run: Run):
    model, scans = load(own_run), scans_of(own_run)
    images, labels = own_run.data_root / "imagesTr", own_run.data_root / "labelsTr"
    before = {path: path.read_bytes() for folder in (images, labels) for path in folder.iterdir()}
    with pytest.raises(InputError, match="would replace the scans"):
        predict_scans(model, scans, images, InferenceConfig(), overwrite=True)
    with pytest.raises(InputError, match="which medunet did not write"):
        predict_scans(model, scans, labels, InferenceConfig())
    assert {path: path.read_bytes() for folder in (images, labels) for path in folder.iterdir()} == before


def test_masks_of_other_labels_do_not_share_a_folder(own_run: Run, tmp_path):
    model, scans = load(own_run), scans_of(own_run)
    predict_scans(model, scans[:1], tmp_path, InferenceConfig())
    labels = {"background": 0, "spleen": 1, "kidney": 2}
    changed = {"labels": labels, "regions": {}, "region_order": ()}
    card = model.card.model_copy(update={"description": model.card.description.model_copy(update=changed)})
    with pytest.raises(InputError, match="spleen"):
        predict_scans(replace(model, card=card), scans[1:2], tmp_path, InferenceConfig())


def test_a_mask_left_by_a_kill_is_redone(own_run: Run, tmp_path):
    model, (scan, *_) = load(own_run), scans_of(own_run)
    predict_scans(model, [scan], tmp_path, InferenceConfig())
    whole = (tmp_path / f"{scan.case}.nii.gz").read_bytes()
    index = read_json(tmp_path / "index.json")
    index["cases"][scan.case] = {"begun": True}  # what stands there while a mask is being written
    (tmp_path / "index.json").write_text(json.dumps(index))
    (tmp_path / f"{scan.case}.nii.gz").write_bytes(b"half")
    assert predict_scans(model, [scan], tmp_path, InferenceConfig()) == {}
    assert (tmp_path / f"{scan.case}.nii.gz").read_bytes() == whole


def test_a_full_disk_stops_prediction_and_is_no_fault_of_the_case(own_run: Run, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="Free disk space"):
        predict_scans(load(own_run), scans_of(own_run), tmp_path, InferenceConfig())


@pytest.mark.parametrize(
    ("array", "affine", "reason"),
    [
        (np.ones((8, 8, 8, 3)), np.eye(4), "N005"),
        (np.zeros((8, 8, 8)), np.eye(4), "N011"),
        (
            np.eye(8)[None].repeat(8, 0),
            np.diag([60.0, 60, 60, 1]),
            "N007 implausible spacing: CT: 60 × 60 × 60 mm (expected: 0.005 to 12 mm along each axis)",
        ),
        (np.eye(8)[None].repeat(8, 0), np.diag([1.0, 1, 0, 1]), "N009"),
    ],
)
def test_scans_that_cannot_be_predicted_say_why(own_run: Run, tmp_path, array, affine, reason):
    image = nib.Nifti1Image(array.astype(np.float32), np.eye(4))
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "odd.nii")
    failed = predict_scans(
        load(own_run), [Scan("odd", [tmp_path / "odd.nii"])], tmp_path / "out", InferenceConfig()
    )
    assert reason in failed["odd"]
    assert "0x" not in failed["odd"]


def test_postprocessing_of_the_configuration_is_applied(own_run: Run, tmp_path):
    model, scans = load(own_run), scans_of(own_run)[:1]
    rules = ["inference.postprocess.tumour=[min_volume_ml: 1000000]"]
    predict_scans(model, scans, tmp_path, change_config({"dataset": "x"}, rules, "t").inference)
    mask = np.asarray(nib.load(tmp_path / f"{scans[0].case}.nii.gz").dataobj)
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("weights", ["best", "final"])
def test_changed_or_lost_weights_are_refused(own_run: Run, weights: str):
    folder = own_run.folder.model(0)
    path = folder / WEIGHTS_FILES[weights]
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=f"{path.name} is not the file that model"):
        Model.load(folder, device=CPU, precision="fp32", weights=weights)
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name} is missing"):
        Model.load(folder, device=CPU, precision="fp32", weights=weights)


CELLS = Description(
    name="cells",
    layout="png",
    channels={"grey": {"modality": "other"}},
    labels={"background": 0, "cell": 255},
)


def test_a_label_declared_as_255_is_written_as_255():
    probabilities = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]])[:, :, None, None]
    labels = to_label_map(probabilities, CELLS)
    assert labels.dtype == torch.uint8
    assert labels.flatten().tolist() == [0, 255, 0]


def test_label_maps_of_regions_and_of_labels():
    regions = load_description("brats_2018_2021")
    probabilities = torch.tensor([[0.9, 0.9, 0.9, 0.1], [0.1, 0.9, 0.9, 0.1], [0.1, 0.1, 0.9, 0.9]])[
        :, None, None
    ]
    assert to_label_map(probabilities, regions).flatten().tolist() == [2, 1, 4, 4]
    labels = regions.model_copy(update={"regions": {}, "region_order": ()})
    classes = torch.eye(4)[:, None, None]
    assert to_label_map(classes, labels).flatten().tolist() == [0, 1, 2, 4]
    empty = torch.zeros(4, 1, 1, 2)
    assert to_label_map(empty, labels).sum() == 0
