"""A coarse model finds a region, a fine one predicts there: nothing is cut off, and nothing is left out silently."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medunet.base.errors import DataError, InputError
from medunet.base.files import read_json
from medunet.imaging.nifti import write_volume
from medunet.imaging.volume import Header
from medunet.imaging.volumes import read_header, read_volume
from medunet.inference.backend import TorchBackend
from medunet.inference.mask_index import backend_of_masks
from medunet.inference.memory_budget import MemoryBudget
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.roi_model import RoiModel, _find_channels, with_roi
from medunet.inference.scan import Scan
from medunet.records.config import InferenceConfig
from medunet.records.description import Description, load_description
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan, Shown
from medunet.transforms.chain import preprocess_chain

OPTIONS = InferenceConfig()
AFFINE = np.diag([-2.0, 2.0, 4.0, 1.0])
SHAPE = (60, 50, 20)
ORGANS = Description(
    name="organs",
    layout="pairs",
    channels={"CT": {"modality": "CT"}},
    labels={"background": 0, "liver": 3, "spleen": 7},
)


class ByThreshold(torch.nn.Module):
    """Labels voxels by their HU alone: the first target above one threshold, the second one above another."""

    def __init__(self, plan: Plan, thresholds_hu: tuple[float, float], *, regions: bool) -> None:
        super().__init__()
        ct = plan.intensities["CT"]
        assert ct.mean is not None
        assert ct.std is not None
        self.limits = [(value - ct.mean) / ct.std for value in thresholds_hu]
        self.regions, self.shapes = regions, []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(image.shape)
        first, second = (20 * (image - limit) for limit in self.limits)
        return torch.cat([first, second] if self.regions else [image * 0, first, first + second], 1)


def make_model(
    plan: Plan, thresholds_hu: tuple[float, float], description: Description | None = None, **card: Any
) -> Model:
    description = description or load_description("phantoms")
    shown = Shown(field_of_view_mm=(500.0,) * 3, darkest={})
    plan = plan.model_copy(update={"fingerprint": plan.fingerprint.model_copy(update={"shown": shown})})
    network = ByThreshold(plan, thresholds_hu, regions=bool(description.regions))
    about = {"final_weights_sha256": "f" * 64, **card}
    made = ModelCard(medunet_version="0", description=description, plan=plan, fold=0, **about)
    backend = TorchBackend(network, torch.device("cpu"), "fp32")
    return Model(made, backend, preprocess_chain(plan, with_label=False), "final")


@pytest.fixture
def fine(tiny_plan: Plan) -> Model:
    """Labels what is above 90 HU as liver, and above 170 HU as tumour."""
    return make_model(tiny_plan.model_copy(update={"spacing_mm": (2.0, 2.0, 4.0)}), (90, 170))


@pytest.fixture
def coarse(tiny_plan: Plan) -> Model:
    """At 6 mm: labels what is above 130 HU as liver, and above 190 HU as spleen."""
    plan = tiny_plan.model_copy(update={"spacing_mm": (6.0, 6.0, 6.0)})
    return make_model(plan, (130, 190), ORGANS)


def write_scan(folder: Path, case: str = "a", **boxes_hu: tuple[slice, slice, slice]) -> Scan:
    """Write a scan of noise about 0 HU with boxes that add their HU, such as hu150=...."""
    array = np.random.default_rng(0).normal(0, 5, SHAPE).astype(np.float32)
    for name, box in boxes_hu.items():
        array[box] += int(name[2:])
    write_volume(folder / f"{case}.nii.gz", array, AFFINE)
    return Scan(case, [folder / f"{case}.nii.gz"])


def box(*spans: tuple[int, int]) -> tuple[slice, slice, slice]:
    first, second, third = (slice(*span) for span in spans)
    return first, second, third


def predict(model: Any, scan: Scan, out: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    assert predict_scans(model, [scan], out, OPTIONS) == {}
    return read_volume(out / scan.mask_name).array, read_json(out / "index.json")["cases"][scan.case]


ORGAN = box((20, 30), (15, 27), (8, 12))


@pytest.mark.parametrize("regions", [True, False])
def test_the_mask_is_that_of_the_whole_scan_in_the_box_and_empty_outside(
    tiny_plan: Plan, coarse: Model, tmp_path: Path, regions: bool
) -> None:
    fine = make_model(tiny_plan, (90, 170), None if regions else ORGANS)
    far = box((50, 55), (40, 45), (1, 3))  # only the fine model sees it
    scan = write_scan(tmp_path, hu150=ORGAN, hu180=box((24, 26), (18, 20), (9, 11)), hu110=far)
    whole, plain = predict(fine, scan, tmp_path / "whole")
    mask, entry = predict(with_roi(fine, coarse, margin_mm=10), scan, tmp_path / "roi")
    assert len(np.unique(mask)) == 3
    (i, j, k) = (slice(*span) for span in entry["roi_box"])
    np.testing.assert_array_equal(mask[i, j, k], whole[i, j, k])
    assert whole[far].any()
    whole[i, j, k] = 0
    assert np.count_nonzero(mask) + np.count_nonzero(whole) == np.count_nonzero(
        read_volume(tmp_path / "whole/a.nii.gz").array
    )
    # 10 mm are 5 voxels of 2 mm, and 3 of 4 mm; the coarse mask may be off by half of its voxels.
    expected = [(15, 35), (10, 32), (5, 15)]
    np.testing.assert_allclose(entry["roi_box"], expected, atol=2)
    assert entry["roi_growths"] == 0
    assert 1 < entry["windows"] < plain["windows"]
    assert not {"roi", "roi_box", "roi_growths"} & set(plain)


def test_an_organ_that_reaches_over_the_box_is_whole(
    fine: Model, coarse: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The coarse model sees only a part of it; the organ ends at a face of the scan at one side."""
    caplog.set_level(logging.INFO)
    scan = write_scan(tmp_path, hu110=box((0, 56), (15, 27), (8, 12)), hu40=ORGAN)
    whole, _ = predict(fine, scan, tmp_path / "whole")
    mask, entry = predict(with_roi(fine, coarse, margin_mm=8), scan, tmp_path / "roi")
    np.testing.assert_array_equal(mask, whole)
    assert entry["roi_box"][0] == [0, entry["roi_box"][0][1]]
    assert 56 < entry["roi_box"][0][1] <= 60
    assert entry["roi_growths"] == 3  # by 4, 8 and 16 voxels at both ends
    assert entry["roi_box"][1][1] < 40
    lines = [line for line in caplog.messages if line.startswith("a: labels reach")]
    assert len(lines) == 3
    assert "(right, left), which grows there, to" in lines[0]


def test_false_labels_at_the_border_do_not_make_the_box_grow(
    fine: Model, coarse: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are connected with nothing that the coarse model found, and a line says that they are cut."""
    caplog.set_level(logging.INFO)
    speck = box((32, 60), (15, 27), (8, 12))  # beside the organ, across the box's end
    scan = write_scan(tmp_path, hu150=ORGAN, hu110=speck)
    mask, entry = predict(with_roi(fine, coarse, margin_mm=10), scan, tmp_path / "roi")
    assert entry["roi_growths"] == 0
    stop = entry["roi_box"][0][1]
    assert 33 < stop < 40
    assert mask[stop - 1, 20, 10]
    assert not mask[stop:].any()
    (line,) = (line for line in caplog.messages if "not connected" in line)
    assert line.startswith("a: labels at the end of the region of interest (")


def test_without_a_margin_the_box_still_grows(fine: Model, coarse: Model, tmp_path: Path) -> None:
    scan = write_scan(tmp_path, hu110=box((8, 50), (15, 27), (8, 12)), hu40=ORGAN)
    whole, _ = predict(fine, scan, tmp_path / "whole")
    mask, entry = predict(with_roi(fine, coarse, margin_mm=0), scan, tmp_path / "roi")
    np.testing.assert_array_equal(mask, whole)
    assert entry["roi_growths"] <= 6


def test_where_the_coarse_model_finds_nothing_the_whole_scan_is_predicted(
    fine: Model, coarse: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scan = write_scan(tmp_path, hu110=ORGAN)
    whole, _ = predict(fine, scan, tmp_path / "whole")
    mask, entry = predict(with_roi(fine, coarse), scan, tmp_path / "roi")
    assert whole.any()
    np.testing.assert_array_equal(mask, whole)
    assert (entry["roi_box"], entry["roi_growths"]) == (None, 0)
    assert "a: the coarse model finds no liver or spleen, so the whole scan is predicted." in caplog.messages


def test_only_the_chosen_targets_make_the_region(fine: Model, coarse: Model, tmp_path: Path) -> None:
    spleen = box((6, 12), (6, 12), (4, 7))
    scan = write_scan(tmp_path, hu150=ORGAN, hu198=spleen)
    both, entry = predict(with_roi(fine, coarse, margin_mm=6), scan, tmp_path / "both")
    assert both[ORGAN].any()
    assert both[spleen].any()
    mask, own = predict(with_roi(fine, coarse, ["spleen"], margin_mm=6), scan, tmp_path / "spleen")
    assert not mask[ORGAN].any()
    np.testing.assert_array_equal(mask[spleen], both[spleen])
    assert own["roi"]["targets"] == ["spleen"]
    assert entry["roi"]["targets"] == ["liver", "spleen"]


def test_the_coarse_models_postprocessing_bounds_the_region(
    fine: Model, tiny_plan: Plan, tmp_path: Path
) -> None:
    inference = InferenceConfig.parse({"postprocess": {"liver": [{"keep_largest": True}]}}, "test")
    plan = tiny_plan.model_copy(update={"spacing_mm": (6.0, 6.0, 6.0)})
    coarse = make_model(plan, (130, 190), ORGANS, inference=inference)
    scan = write_scan(tmp_path, hu150=ORGAN, hu149=box((50, 56), (40, 46), (2, 5)))
    mask, _ = predict(with_roi(fine, coarse), scan, tmp_path / "roi")
    assert mask[ORGAN].any()
    assert not mask[50:].any()


def test_a_region_smaller_than_a_patch_and_a_scan_smaller_than_one(
    fine: Model, coarse: Model, tmp_path: Path
) -> None:
    array = np.zeros((9, 8, 3), np.float32) + np.random.default_rng(0).normal(0, 5, (9, 8, 3))
    array[3:7, 2:6, 1:2] += 150
    write_volume(tmp_path / "small.nii.gz", array.astype(np.float32), AFFINE)
    scan = Scan("small", [tmp_path / "small.nii.gz"])
    whole, _ = predict(fine, scan, tmp_path / "whole")
    mask, _ = predict(with_roi(fine, coarse), scan, tmp_path / "roi")
    assert mask.any()
    np.testing.assert_array_equal(mask, whole)
    large = write_scan(tmp_path, hu150=box((30, 36), (20, 26), (8, 12)))
    mask, entry = predict(with_roi(fine, coarse, margin_mm=0), large, tmp_path / "tight")
    assert mask[31:35, 21:25, 9:11].all()
    windows: Any = fine.backend
    assert {shape[2:] for shape in windows.network.shapes} == {(16, 16, 8)}
    assert np.ptp(entry["roi_box"], axis=1).max() < 16


def changed(fine: Model, coarse: Model, name: str) -> Any:
    """Return a model that differs from `with_roi(fine, coarse)` in one thing."""
    if name == "whole":
        return fine
    if name == "margin":
        return with_roi(fine, coarse, margin_mm=21)
    if name == "targets":
        return with_roi(fine, coarse, ["liver"])
    if name == "weights":
        card = coarse.card.model_copy(update={"final_weights_sha256": "e" * 64})
    elif name == "options":
        card = coarse.card.model_copy(update={"inference": InferenceConfig(overlap=0.25)})
    else:
        return with_roi(fine, replace(coarse, backend=replace(coarse.backend, precision="bf16")))  # type: ignore[type-var]
    return with_roi(fine, replace(coarse, card=card))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("whole", "the whole scan"),
        ("margin", "a margin of 21 mm instead of 20"),
        ("targets", "a region around liver instead of liver, spleen"),
        ("weights", "other weights of the coarse model"),
        ("options", "other options of inference of the coarse model"),
        ("precision", "another precision of the coarse model"),
    ],
)
def test_a_mask_of_another_region_is_made_again(
    fine: Model, coarse: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, why: str
) -> None:
    caplog.set_level(logging.INFO)
    scan, out = write_scan(tmp_path, hu150=ORGAN), tmp_path / "out"
    time_of = lambda: (out / "a.nii.gz").stat().st_mtime_ns  # noqa: E731
    predict(with_roi(fine, coarse), scan, out)
    first = time_of()
    predict(with_roi(fine, coarse, ["spleen", "liver"]), scan, out)  # the same in another order
    assert time_of() == first
    predict(changed(fine, coarse, name), scan, out)
    second = time_of()
    assert second > first
    assert f"1 of 1 cases is predicted again: {why} (1)." in caplog.messages
    predict(changed(fine, coarse, name), scan, out)
    assert time_of() == second
    predict(with_roi(fine, coarse), scan, out)
    assert time_of() > second


def test_the_coarse_models_backend_in_a_folder_is_known(fine: Model, coarse: Model, tmp_path: Path) -> None:
    """So that a benchmark under load repeats no masks."""
    card = coarse.card.model_copy(update={"final_weights_sha256": "c" * 64})
    backend = replace(coarse.backend, precision="bf16")  # type: ignore[type-var]
    model = with_roi(fine, replace(coarse, card=card, backend=backend))
    predict(model, write_scan(tmp_path, hu150=ORGAN), tmp_path / "out")
    assert backend_of_masks(tmp_path / "out", card, "cpu") == ("torch", "bf16")
    assert backend_of_masks(tmp_path / "out", fine.card, "cpu") == ("torch", "fp32")
    assert backend_of_masks(tmp_path / "out", card, "cuda") is None


def test_many_scans_beside_each_other(fine: Model, coarse: Model, tmp_path: Path) -> None:
    scans = [write_scan(tmp_path, f"p{n}", hu150=box((20 - 3 * n, 30), (15, 27), (8, 12))) for n in range(4)]
    scans.insert(2, write_scan(tmp_path, "nothing"))
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    given = [*scans[:3], Scan("broken", [tmp_path / "broken.nii.gz"]), *scans[3:]]
    model = with_roi(fine, coarse)
    assert list(predict_scans(model, given, tmp_path / "out", OPTIONS, ahead=True)) == ["broken"]
    entries = read_json(tmp_path / "out/index.json")["cases"]
    for scan in scans:
        mask, entry = predict(model, scan, tmp_path / "alone")
        np.testing.assert_array_equal(mask, read_volume(tmp_path / "out" / scan.mask_name).array)
        assert entries[scan.case]["roi_box"] == entry["roi_box"]
        assert entries[scan.case]["windows"] == entry["windows"]
    assert len({str(entry["roi_box"]) for entry in entries.values()}) == 5


def test_the_fine_network_takes_the_memory_of_the_box(
    fine: Model, coarse: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_scan(tmp_path, hu150=ORGAN)
    model = with_roi(fine, coarse, margin_mm=8)
    assert model.coarse.budget is model.fine.budget
    claims: list[float] = []
    claim = MemoryBudget.claim_first

    def record(budget: MemoryBudget, sizes: Any) -> Any:
        claims.append(sizes[0])
        return claim(budget, sizes)

    monkeypatch.setattr(MemoryBudget, "claim_first", record)
    prepared = model.prepare(scan.images)
    assert claims == [model.estimate([read_header(scan.images[0])]).main_bytes]
    model.compute(prepared, OPTIONS)
    shape = [stop - start for start, stop in prepared.found["roi_box"]]
    part, whole = (
        fine.memory.predicting(each, each, OPTIONS, fine.memory.ways[0]).main_bytes for each in (shape, SHAPE)
    )
    assert claims[-1] == pytest.approx(part, rel=0.001)
    assert claims[-1] < whole * 0.998


def test_both_images_are_in_the_estimate(fine: Model, coarse: Model) -> None:
    """512 x 512 x 400 voxels of 0.8 x 0.8 x 1 mm: at 2 x 2 x 4 mm and at 6 mm."""
    shape = (512, 512, 400)
    header = Header(Path("ct"), shape, np.diag([0.8, 0.8, 1.0, 1.0]), np.dtype(np.int16))
    voxels, fine_voxels, coarse_voxels = 512 * 512 * 400, 205 * 205 * 100, 69 * 69 * 67
    by_step: dict[str, int] = {}
    for part in with_roi(fine, coarse).estimate([header]).parts:
        by_step[part.step] = by_step.get(part.step, 0) + part.num_bytes
    # As stored, in float32 and copied for the coarse model; then the images.
    assert by_step["read"] == (2 + 4 + 4) * voxels + 4 * coarse_voxels + 50_000_000
    # The mask of the coarse model, its network, and both images.
    own = coarse.memory.predicting(shape, (69, 69, 67), OPTIONS, coarse.memory.ways[-1]).main_bytes
    assert by_step["predict"] == own + 4 * (fine_voxels + coarse_voxels)


def test_a_scan_that_does_not_fit_fails_before_it_is_read(
    fine: Model, coarse: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_scan(tmp_path, hu150=ORGAN)
    monkeypatch.setattr(MemoryBudget, "free_bytes", lambda _: 1000)
    with pytest.raises(DataError, match=r"takes about .* GB"):
        with_roi(fine, coarse).prepare(scan.images, read=lambda: pytest.fail("read"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ["liver", "kidney"]}, r"no \['kidney'\].*Choose from \['liver', 'spleen'\]"),
        ({"margin_mm": -1}, "-1 mm is no margin"),
        ({"margin_mm": float("nan")}, "nan mm is no margin"),
        ({"margin_mm": float("inf")}, "inf mm is no margin"),
    ],
)
def test_what_makes_no_region_is_refused(fine: Model, coarse: Model, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        with_roi(fine, coarse, **options)


def channels(**modalities: str) -> Description:
    return ORGANS.model_copy(
        update={
            "channels": Description.model_validate(
                {
                    "name": "x",
                    "layout": "pairs",
                    "labels": {"background": 0, "liver": 1},
                    "channels": {name: {"modality": modality} for name, modality in modalities.items()},
                }
            ).channels
        }
    )


def test_channels_are_joined_by_name() -> None:
    fine = channels(t1="MR", t2="MR", pet="PET")
    assert _find_channels(channels(t2="MR", t1="MR"), fine) == (1, 0)
    assert _find_channels(channels(pet="PET"), fine) == (2,)
    assert _find_channels(channels(ct="CT"), channels(scan="CT")) == (0,)
    assert _find_channels(channels(ct="other"), channels(scan="CT")) == (0,)
    for given, words in (
        (channels(flair="MR"), r"needs flair \(MR\), but .* have t1 \(MR\), t2 \(MR\), pet \(PET\)"),
        (channels(t1="CT"), r"needs t1 \(CT\)"),
    ):
        with pytest.raises(InputError, match=words):
            _find_channels(given, fine)
    with pytest.raises(InputError, match="needs MR"):
        _find_channels(channels(MR="MR"), channels(MR="CT"))


def test_the_coarse_model_gets_its_own_channels(tiny_plan: Plan, tmp_path: Path) -> None:
    """It takes the second of two channels, in which alone the organ is."""
    both = Description(
        name="both",
        layout="pairs",
        channels={"other": {"modality": "CT"}, "CT": {"modality": "CT"}},
        labels={"background": 0, "liver": 3, "spleen": 7},
    )
    ct = tiny_plan.intensities["CT"]
    plan = tiny_plan.model_copy(update={"intensities": {"other": ct, "CT": ct}})
    first, second = write_scan(tmp_path, "first"), write_scan(tmp_path, "second", hu150=ORGAN)
    fine = make_model(plan, (90, 170), both)
    model = with_roi(fine, make_model(tiny_plan, (130, 190), ORGANS), margin_mm=8)
    assert isinstance(model, RoiModel)
    prepared = model.prepare([*first.images, *second.images])
    assert prepared.fine.image.shape[0] == 2
    found = model._find(prepared.coarse, lambda _: None)
    assert found is not None
    assert found.spans == [(part.start, part.stop) for part in ORGAN]
