"""New scans go through the checks of an image before they are predicted: the same codes as `medunet check` finds."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from medunet.base.files import read_json
from medunet.dataset.checks import case_checks
from medunet.dataset.checks.case_checks import check_case
from medunet.imaging.nifti import write_volume
from medunet.inference.backend import TorchBackend
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.scan import Scan
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.manifest import Accepted, Case
from medunet.records.model_card import ModelCard
from medunet.records.plan import Intensity, Plan
from medunet.transforms.chain import preprocess_chain

SHAPE = (20, 18, 9)
AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])


class Bright(nn.Module):
    """Stands in for a trained network: marks what is above 0 in the first channel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([-image[:, :1], image[:, :1], image[:, :1] - 9], 1)


def make_model(plan: Plan, modalities: dict[str, str]) -> Model:
    schemes = {name: "ct" if kind == "CT" else "zscore" for name, kind in modalities.items()}
    intensities = {
        name: Intensity(scheme=scheme, clip_low=-200, clip_high=200, mean=0, std=50)  # type: ignore[arg-type]
        for name, scheme in schemes.items()
    }
    description = Description.parse(
        {
            "name": "x",
            "layout": "nnunet",
            "channels": {name: {"modality": kind} for name, kind in modalities.items()},
            "labels": {"background": 0, "liver": 1, "tumour": 2},
        },
        "test",
    )
    plan = plan.model_copy(update={"intensities": intensities})
    card = ModelCard(medunet_version="0", description=description, plan=plan, fold=0)
    return Model(
        card, TorchBackend(Bright(), torch.device("cpu"), "fp32"), preprocess_chain(plan, with_label=False)
    )


@pytest.fixture
def model(tiny_plan: Plan) -> Model:
    return make_model(tiny_plan, {"CT": "CT"})


@pytest.fixture
def pair_model(tiny_plan: Plan) -> Model:
    return make_model(tiny_plan, {"CT": "CT", "PET": "PET"})


def hounsfield(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Return a body at 40 HU in air, with an organ of 110."""
    image = np.full(shape, -1000.0)
    image[3:-3, 3:-3] = 40
    image[6:12, 6:12, 3:7] = 110
    return (image + np.random.default_rng(seed).normal(0, 8, shape)).astype(np.int16)


def save(
    path: Path, image: np.ndarray, sform: np.ndarray, qform: np.ndarray | None, unit: str = "mm"
) -> None:
    nifti = nib.Nifti1Image(image, None)
    nifti.header.set_xyzt_units(unit)
    nifti.set_sform(sform, 0 if sform is None else 1)
    nifti.set_qform(qform, 0 if qform is None else 1)
    nib.save(nifti, path)


def moved(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[2, 3] += mm
    return affine


def sheared() -> np.ndarray:
    affine = AFFINE.copy()
    affine[1, 2] = 1.2
    return affine


def with_nan() -> np.ndarray:
    image = hounsfield().astype(np.float32)
    image[2, 3, 4] = np.nan
    return image


LONG = np.diag([1e6, 1e6, 1e6, 1.0])
SCALED = np.diag([0.001, 0.001, 0.001, 1.0])
KINDS: dict[str, tuple[Any, str]] = {
    "good": (lambda path: save(path, hounsfield(), AFFINE, AFFINE), ""),
    "sform moved": (lambda path: save(path, hounsfield(), moved(18), AFFINE), "N008"),
    "sform mirrored": (lambda path: save(path, hounsfield(), AFFINE * [[-1], [1], [1], [1]], AFFINE), "N008"),
    "no form": (lambda path: save(path, hounsfield(), None, None), "N015"),
    "metres": (lambda path: save(path, hounsfield(), SCALED @ AFFINE, SCALED @ AFFINE, "meter"), "N016"),
    "metres said mm": (lambda path: save(path, hounsfield(), SCALED @ AFFINE, SCALED @ AFFINE), "N007"),
    "nanometres said mm": (lambda path: save(path, hounsfield(), LONG @ AFFINE, LONG @ AFFINE), "N007"),
    "sheared": (lambda path: save(path, hounsfield(), sheared(), None), "N010"),
    "NaN": (lambda path: save(path, with_nan(), AFFINE, AFFINE), "N004"),
    "as stored": (lambda path: save(path, hounsfield() + np.int16(1024), AFFINE, AFFINE), "N019"),
    "8 bits": (
        lambda path: save(
            path, (np.clip(hounsfield(), -160, 240) * 0.6 + 100).astype(np.uint8), AFFINE, AFFINE
        ),
        "N026",
    ),
    "four frames": (lambda path: save(path, np.stack([hounsfield()] * 4, -1), AFFINE, AFFINE), "N005"),
    "constant": (lambda path: save(path, np.ones(SHAPE, np.int16), AFFINE, AFFINE), "N011"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_finds_what_the_check_finds(tmp_path: Path, model: Model, kind: str):
    write, code = KINDS[kind]
    write(tmp_path / "x.nii.gz")
    case = Case(id="x", patient="x", images={"CT": "x.nii.gz"}, split="test")
    checked, _ = check_case(case, model.card.description, tmp_path)
    failed = predict_scans(model, [Scan("x", [tmp_path / "x.nii.gz"])], tmp_path / "out", InferenceConfig())
    entry = read_json(tmp_path / "out/index.json")["cases"].get("x", {})
    assert [fault.code for fault in checked] == ([code] if code else [])
    of_the_model = ("N019", "N026")  # warnings of the check; the training scans are in HU
    errors = [fault for fault in checked if fault.severity == "error" or fault.code in of_the_model]
    assert bool(failed) == bool(errors)
    for fault in errors:
        assert f"{fault.code} " in failed["x"]
        assert fault.measured in failed["x"]
        assert fault.hint in failed["x"]
        assert not (tmp_path / "out/x.nii.gz").exists()
    if not errors:
        kept = [row["code"] for row in entry["faults"] if row["code"] not in ("N025", "N027")]
        assert kept == [fault.code for fault in checked]


def test_a_file_cut_off_says_so_and_all_faults_are_named_at_once(tmp_path: Path, model: Model):
    save(tmp_path / "cut.nii.gz", hounsfield(), AFFINE, AFFINE)
    content = (tmp_path / "cut.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    save(tmp_path / "two.nii.gz", with_nan(), moved(18), AFFINE)
    scans = [Scan(name, [tmp_path / f"{name}.nii.gz"]) for name in ("cut", "two")]
    failed = predict_scans(model, scans, tmp_path / "out", InferenceConfig())
    assert failed["cut"].startswith("N003 truncated or corrupt voxels")
    assert "N008" in failed["two"]
    assert "N004" in failed["two"]
    assert "--accept N008" in failed["two"]
    assert "--accept N004" not in failed["two"], "nothing can be predicted with it"
    assert str(tmp_path) not in str(failed)


def test_an_accepted_fault_is_predicted_and_kept(tmp_path: Path, model: Model):
    save(tmp_path / "x.nii.gz", hounsfield(), moved(18), AFFINE)
    accepted = (Accepted(code="N008", case="x", reason="the sform is right"),)
    scan = Scan("x", [tmp_path / "x.nii.gz"], accepted=accepted)
    assert predict_scans(model, [scan], tmp_path / "out", InferenceConfig()) == {}
    (row,) = read_json(tmp_path / "out/index.json")["cases"]["x"]["faults"]
    assert (row["code"], row["severity"], row["accepted"]) == ("N008", "error", "the sform is right")


def test_masks_of_earlier_versions_are_checked_before_they_are_kept(tmp_path: Path, model: Model):
    for name, sform in (("good", AFFINE), ("bad", moved(18))):
        save(tmp_path / f"{name}.nii.gz", hounsfield(), sform, AFFINE)
    accepted = (Accepted(code="N008", case="*", reason="-"),)
    scans = [Scan(name, [tmp_path / f"{name}.nii.gz"], accepted=accepted) for name in ("good", "bad")]
    predict_scans(model, scans, tmp_path / "out", InferenceConfig())
    index = read_json(tmp_path / "out/index.json")
    for entry in index["cases"].values():
        del entry["faults"]
    (tmp_path / "out/index.json").write_text(json.dumps(index))
    before = (tmp_path / "out/good.nii.gz").stat().st_mtime_ns
    plain = [Scan(scan.case, scan.images) for scan in scans]
    assert list(predict_scans(model, plain, tmp_path / "out", InferenceConfig())) == ["bad"]
    assert (tmp_path / "out/good.nii.gz").stat().st_mtime_ns == before
    assert read_json(tmp_path / "out/index.json")["cases"]["good"]["faults"] == []


def test_a_scan_is_decoded_once(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "x.nii.gz", hounsfield(), AFFINE, AFFINE)
    read: list[str] = []
    decode = case_checks.read_stored

    def count(*arguments: Any, **options: Any) -> Any:
        read.append("x")
        return decode(*arguments, **options)

    monkeypatch.setattr(case_checks, "read_stored", count)
    monkeypatch.setattr("medunet.imaging.volumes.read_stored", None)  # no other reader is asked
    assert predict_scans(model, [Scan("x", [tmp_path / "x.nii.gz"])], tmp_path / "o", InferenceConfig()) == {}
    assert read == ["x"]


@pytest.mark.parametrize(
    ("factor", "rotated", "found"),
    [(1, False, 0), (1.9, False, 0), (2.2, False, 1), (0.11, False, 1), (1, True, 0)],
)
def test_a_spacing_far_from_that_of_training_is_a_warning(tmp_path, model: Model, factor, rotated, found):
    affine = AFFINE @ np.diag([factor, factor, factor, 1.0])
    image = hounsfield((18, 16, 8))
    if rotated:  # axes in another order: the body's spacing is the same
        image, affine = image.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    write_volume(tmp_path / "x.nii.gz", image, affine)
    checked = model.check("x", [tmp_path / "x.nii.gz"])
    checked.read()
    assert [fault.code for fault in checked.faults] == ["N025"] * found
    assert all("2 × 2 × 4 mm" in fault.expected for fault in checked.faults)


def test_a_ct_without_air_that_is_offset_is_told_by_the_training_scans(tmp_path, model: Model):
    inside = np.random.default_rng(0).normal(60, 20, SHAPE).astype(np.int16)
    for name, image in (("good", inside), ("offset", inside + np.int16(1024))):
        write_volume(tmp_path / f"{name}.nii.gz", image, AFFINE)
        accepted = (Accepted(code="N027", case="*", reason="-"),)
        checked = model.check(name, [tmp_path / f"{name}.nii.gz"], accepted=accepted)
        checked.read()
        codes = [fault.code for fault in checked.faults]
        assert codes == (["N027"] if name == "offset" else [])


def test_channels_on_two_grids_are_refused_until_resampling_is_allowed(tmp_path, pair_model: Model):
    write_volume(tmp_path / "ct.nii.gz", hounsfield(), AFFINE)
    uptake = np.abs(np.random.default_rng(1).normal(2, 1, (10, 9, 8))).astype(np.float32)
    write_volume(tmp_path / "pet.nii.gz", uptake, np.diag([-4.0, -4.0, 4.5, 1.0]))
    images = [tmp_path / "ct.nii.gz", tmp_path / "pet.nii.gz"]
    out = tmp_path / "out"
    failed = predict_scans(pair_model, [Scan("x", images)], out, InferenceConfig())
    assert failed["x"].startswith("P004 modalities differ in shape: PET: shape 10×9×8")
    assert "--allow-resample" in failed["x"]
    assert predict_scans(pair_model, [Scan("x", images, resample=True)], out, InferenceConfig()) == {}
    assert nib.load(out / "x.nii.gz").shape == SHAPE
    (row,) = read_json(out / "index.json")["cases"]["x"]["faults"]
    assert (row["code"], row["accepted"]) == ("P004", "resampled to the grid of the first channel")


def test_masks_of_channels_on_one_grid_stay_when_resampling_is_allowed(tmp_path, pair_model: Model):
    images = [tmp_path / "ct.nii.gz", tmp_path / "pet.nii.gz"]
    for path, noise in zip(images, (0, 1), strict=True):
        image = hounsfield() if not noise else np.random.default_rng(1).normal(20, 4, SHAPE)
        write_volume(path, image, AFFINE)
    out = tmp_path / "out"
    entries = []
    for resample in (False, True):
        assert predict_scans(pair_model, [Scan("x", images, resample=resample)], out, InferenceConfig()) == {}
        entries.append((read_json(out / "index.json"), (out / "x.nii.gz").stat().st_mtime_ns))
    assert entries[0] == entries[1]


def test_a_copy_of_the_ct_is_no_pet(tmp_path, pair_model: Model):
    for name in ("ct", "pet"):
        write_volume(tmp_path / f"{name}.nii.gz", hounsfield(), AFFINE)
    images = [tmp_path / "ct.nii.gz", tmp_path / "pet.nii.gz"]
    failed = predict_scans(pair_model, [Scan("x", images)], tmp_path / "out", InferenceConfig())
    assert failed["x"].startswith("N029 another modality than the model's: PET: 53% of the voxels")
    assert "P007" in failed["x"]


@pytest.mark.parametrize("name", ["x.nrrd", "x.mha", "x.mhd", "X.NII.GZ", "x.hdr"])
def test_masks_of_other_formats_are_nifti_on_the_same_grid(tmp_path, model: Model, name: str):
    volume = hounsfield()
    if name == "x.hdr":
        nib.save(nib.Nifti1Pair(volume, AFFINE), tmp_path / name)
    elif name.lower().endswith("gz"):
        write_volume(tmp_path / name.lower(), volume, AFFINE)
        (tmp_path / name.lower()).rename(tmp_path / name)
    else:
        image = sitk.GetImageFromArray(volume.T)
        image.SetSpacing((2.0, 2.0, 4.0))  # L P S axes are those of AFFINE
        sitk.WriteImage(image, tmp_path / name)
    assert predict_scans(model, [Scan("x", [tmp_path / name])], tmp_path / "out", InferenceConfig()) == {}
    mask = nib.load(tmp_path / "out/x.nii.gz")
    np.testing.assert_allclose(mask.affine, AFFINE, atol=1e-6)
    assert mask.shape == SHAPE
    assert np.asarray(mask.dataobj)[8, 8, 4] == 1


def test_a_case_that_lacks_a_channel_fails_alone(tmp_path, model: Model):
    write_volume(tmp_path / "x.nii.gz", hounsfield(), AFFINE)
    scans = [
        Scan("half", [tmp_path / "x.nii.gz"], trouble="no image for PET"),
        Scan("x", [tmp_path / "x.nii.gz"]),
    ]
    failed = predict_scans(model, scans, tmp_path / "out", InferenceConfig())
    assert failed == {"half": "no image for PET"}
    assert read_json(tmp_path / "out/index.json")["failed"] == failed
