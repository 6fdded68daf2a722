"""Reading results folders and ZIPs of nnU-Net: what is imported, and what is refused by name."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunet_models import EXAMPLES
from safetensors.torch import load_file

from medunet.base.errors import DataError, InputError
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import read_channels
from medunet.inference.model import Model
from medunet.inference.nnunet.checkpoint import read_checkpoint
from medunet.inference.nnunet.import_model import import_model
from medunet.inference.nnunet.plans import read_plans
from medunet.networks.builder import build_network
from medunet.records.description import load_description
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder
from medunet.training.finetune import load_pretrained

SLICES, REGIONS, PICTURES, FLAT, RESIDUAL, LOWRES, CASCADE = EXAMPLES
WEIGHTS = "weights.safetensors"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of a results folder with two folds, which tests may change."""
    return shutil.copytree(SLICES.results, tmp_path / "results" / SLICES.results.name)


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit a JSON file in place."""
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))


# ---- what is imported --------------------------------------------------------------------------------------------


def test_folds_become_the_models_of_a_run(results: Path, tmp_path: Path):
    done = import_model(results, tmp_path / "out")
    assert (done.configuration, done.folds, done.checkpoint) == (
        "3d_fullres",
        ("0", "1"),
        "checkpoint_final.pth",
    )
    cards = [ModelCard.read(RunFolder(tmp_path / "out").model(fold) / "model.json") for fold in (0, 1)]
    assert [card.fold for card in cards] == [0, 1]
    card = cards[0]
    assert card.description.labels == {"background": 0, "organ": 1, "lesion": 2}
    assert card.plan.patch_size == (32, 24, 8)  # nnU-Net's reversed
    assert card.plan.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2))
    assert card.plan.spacing_mm == (1.0, 1.1, 3.6)
    assert card.nnunet is not None
    assert card.nnunet.normalisation[0].scheme == "ct"
    assert card.inference.mirror == ("left_right", "posterior_anterior", "inferior_superior")
    assert cards[0].weights_sha256 != cards[1].weights_sha256
    assert ModelCard.parse(card.to_dict(), "test") == card


def test_importing_again_changes_nothing(results: Path, tmp_path: Path):
    import_model(results, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    import_model(results, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def test_importing_again_drops_folds_that_are_gone(results: Path, tmp_path: Path):
    import_model(results, tmp_path / "out")
    shutil.rmtree(results / "fold_0")
    import_model(results, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "folds").iterdir()] == ["1"]


def test_zip_as_nnunet_exports_it_is_the_same_model(tmp_path: Path):
    archive = tmp_path / "model.zip"
    root = CASCADE.folder / "results"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(root.rglob("*.*")):
            packed.write(path, path.relative_to(root))
    with pytest.raises(InputError, match=r"several trained models .*3d_cascade_fullres.*--configuration"):
        import_model(archive, tmp_path / "out")
    done = import_model(archive, tmp_path / "out", configuration="3d_cascade_fullres")
    import_model(CASCADE.results, tmp_path / "from_folder")
    assert done.previous is not None
    assert done.previous.configuration == "3d_lowres"
    files = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*")]
    assert Path("previous/folds/0/model/weights.safetensors") in files
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "from_folder" / file).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["from_folder", "out"]


def test_best_checkpoint_is_taken_where_there_is_no_final_one(results: Path, tmp_path: Path):
    for fold in ("fold_0", "fold_1"):
        (results / fold / "checkpoint_final.pth").rename(results / fold / "checkpoint_best.pth")
    done = import_model(results, tmp_path / "out")
    assert done.checkpoint == "checkpoint_best.pth"
    assert done.notes == ("no fold has checkpoint_final.pth: checkpoint_best.pth is taken",)
    with pytest.raises(InputError, match=r"no fold_<k> has checkpoint_final\.pth"):
        import_model(results, tmp_path / "out", checkpoint="final")


def test_a_fold_without_checkpoint_and_another_trainer_are_noted(results: Path, tmp_path: Path):
    (results / "fold_1" / "checkpoint_final.pth").unlink()
    path = results / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "trainer_name": "nnUNetTrainerOther"}, path)
    done = import_model(results, tmp_path / "out")
    assert done.folds == ("0",)
    assert done.notes[0] == "fold 1: without checkpoint_final.pth, left out"
    assert "trained by nnUNetTrainerOther" in done.notes[1]


def test_plans_of_earlier_versions_are_converted(results: Path, tmp_path: Path):
    import_model(results, tmp_path / "new")

    def age(plans: dict[str, Any]) -> None:
        settings = plans["configurations"]["3d_fullres"]
        given = settings.pop("architecture")["arch_kwargs"]
        settings |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 8,
            "unet_max_num_features": 16,
            "n_conv_per_stage_encoder": given["n_conv_per_stage"],
            "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
            "conv_kernel_sizes": given["kernel_sizes"],
            "pool_op_kernel_sizes": given["strides"],
            "num_pool_per_axis": [1, 2, 2],
        }

    change(results / "plans.json", age)
    import_model(results, tmp_path / "old")
    cards = [ModelCard.read(RunFolder(tmp_path / name).model(0) / "model.json") for name in ("new", "old")]
    assert cards[0] == cards[1]


def test_numbers_of_older_numpy_are_read(results: Path, tmp_path: Path):
    path = results / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(path) as packed:
        content = {name: packed.read(name) for name in packed.namelist()}
    (pickled,) = (name for name in content if name.endswith("/data.pkl"))
    assert b"numpy._core.multiarray" in content[pickled], "the checkpoint has none: the test says nothing"
    content[pickled] = content[pickled].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(path, "w") as packed:
        for name, value in content.items():
            packed.writestr(name, value)
    assert read_checkpoint(path).configuration == "3d_fullres"


def test_weights_begin_a_training_of_the_same_network(tmp_path: Path):
    """medunet's own training starts from an imported model where its plan has the same network."""
    import_model(RESIDUAL.results, tmp_path / "out")
    folder = RunFolder(tmp_path / "out").model(0)
    card = ModelCard.read(folder / "model.json")
    network = build_network(card.plan, card.description)
    loaded = load_pretrained(network, card.plan, card.description, folder)
    assert not loaded.left
    assert not loaded.adapted
    given = load_file(folder / WEIGHTS)
    assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


def test_scans_are_turned_first_where_the_reader_turns_them(results: Path, tmp_path: Path):
    change(results / "plans.json", lambda plans: plans.update(image_reader_writer="SimpleITKIOWithReorient"))
    import_model(results, tmp_path / "out")
    folder = RunFolder(tmp_path / "out").model(0)
    model = Model.load(folder, device=torch.device("cpu"), precision="fp32")
    (scan,) = SLICES.scans
    image = nib.load(scan)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("IRP")
    )
    masks = []
    for each in (image, image.as_reoriented(turn)):
        mask = model.predict(np.asarray(each.dataobj), each.affine)
        masks.append(np.asarray(nib.as_closest_canonical(nib.Nifti1Image(mask, each.affine)).dataobj))
    assert (masks[0] > 0).any()
    np.testing.assert_array_equal(masks[0], masks[1])


def test_cards_of_medunets_own_models_have_no_new_keys(tiny_plan: Plan):
    """The hashes of their plans and cards, by which masks and runs are resumed, stay."""
    card = ModelCard(medunet_version="0", description=load_description("phantoms"), plan=tiny_plan, fold=0)
    assert "nnunet" not in card.to_dict()
    assert "mask_inputs" not in card.plan.hash_input


# ---- what is refused ---------------------------------------------------------------------------------------------


class Evil:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_not_run(results: Path, tmp_path: Path):
    path = results / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "logging": Evil(tmp_path / "made")}, path)
    with pytest.raises(
        DataError, match=r"fold_0/checkpoint_final\.pth: holds posix\.mkdir, which could run code"
    ):
        import_model(results, tmp_path / "out")
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "out").exists()


def test_other_pickles_are_never_opened(results: Path, tmp_path: Path):
    for name in ("plans.pkl", "dataset_fingerprint.json", "fold_0/debug.json", "postprocessing.pkl"):
        (results / name).write_bytes(b"\x80\x04 not a pickle")
    import_model(results, tmp_path / "out")


def test_a_zip_cannot_write_elsewhere(tmp_path: Path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../plans.json", "{}")
    with pytest.raises(DataError, match=r"'\.\./plans\.json', which is outside the folder"):
        import_model(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_damaged_and_foreign_checkpoints_are_named(results: Path, tmp_path: Path):
    path = results / "fold_1" / "checkpoint_final.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"fold_1/checkpoint_final\.pth: "):
        import_model(results, tmp_path / "out")
    torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match="no checkpoint of nnU-Net v2"):
        import_model(results, tmp_path / "out")


def test_what_medunet_does_not_have_is_named_all_at_once(results: Path, tmp_path: Path):
    def edit(plans: dict[str, Any]) -> None:
        settings = plans["configurations"]["3d_fullres"]
        plans["image_reader_writer"] = "Tiff3DIO"
        settings["preprocessor_name"] = "OtherPreprocessor"
        settings["normalization_schemes"] = ["OtherNormalization"]
        settings["resampling_fn_data"] = "resample_other"
        settings["resampling_fn_probabilities_kwargs"]["order"] = 3
        given = settings["architecture"]["arch_kwargs"]
        given["norm_op"] = "torch.nn.modules.GroupNorm"
        given["nonlin"] = "torch.nn.ReLU"
        given["n_conv_per_stage"] = [2, 3, 2]
        given["strides"][0] = [1, 2, 2]

    change(results / "plans.json", edit)
    with pytest.raises(InputError) as caught:
        import_model(results, tmp_path / "out")
    named = (
        *(
            "Tiff3DIO",
            "OtherPreprocessor",
            "OtherNormalization",
            "resample_other",
            "GroupNorm",
            "torch.nn.ReLU",
        ),
        *("[2, 3, 2", "strides [1, 2, 2] of the first stage", "probabilities of order 3"),
    )
    assert [text for text in named if text not in str(caught.value)] == []


@pytest.mark.parametrize("key", ["transpose_forward", "original_median_spacing_after_transp"])
def test_plans_that_lack_a_key_are_named(results: Path, tmp_path: Path, key: str):
    change(results / "plans.json", lambda plans: plans.pop(key))
    with pytest.raises(InputError, match=rf"not as nnU-Net v2 writes it \(KeyError: '{key}'\)"):
        import_model(results, tmp_path / "out")


def test_a_patch_that_does_not_fit_the_strides_is_named(results: Path, tmp_path: Path):
    change(
        results / "plans.json",
        lambda plans: plans["configurations"]["3d_fullres"].update(patch_size=[7, 24, 32]),
    )
    with pytest.raises(InputError, match=r"\[32, 24, 7\] is not divisible by the strides"):
        import_model(results, tmp_path / "out")


def test_another_architecture_is_named(results: Path, tmp_path: Path):
    def edit(plans: dict[str, Any]) -> None:
        architecture = plans["configurations"]["3d_fullres"]["architecture"]
        architecture["network_class_name"] = "dynamic_network_architectures.architectures.primus.Primus"

    change(results / "plans.json", edit)
    with pytest.raises(InputError, match="network Primus: medunet has PlainConvUNet and ResidualEncoderUNet"):
        import_model(results, tmp_path / "out")


def test_weights_of_another_network_are_refused(results: Path, tmp_path: Path):
    def edit(plans: dict[str, Any]) -> None:
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [
            8,
            16,
            32,
        ]

    change(results / "plans.json", edit)
    with pytest.raises(
        InputError, match=r"fold_0/checkpoint_final\.pth: its weights are not those of the network"
    ):
        import_model(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_trainer_with_batch_norm_is_refused(results: Path, tmp_path: Path):
    path = results / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    name = "encoder.stages.0.0.convs.0.norm.running_mean"
    torch.save({**content, "network_weights": {**content["network_weights"], name: torch.zeros(8)}}, path)
    with pytest.raises(InputError, match=r"running_mean has no place"):
        import_model(results, tmp_path / "out")


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("dataset.json", r"dataset\.json is missing"),
        ("plans.json", "no trained model of nnU-Net v2"),
        ("fold_0", "no fold_<k> has"),
    ],
)
def test_missing_files_are_named(results: Path, tmp_path: Path, remove: str, message: str):
    shutil.rmtree(results / "fold_1")
    if remove == "fold_0":
        (results / "fold_0" / "checkpoint_final.pth").unlink()
    else:
        (results / remove).unlink()
    with pytest.raises(InputError, match=message):
        import_model(results, tmp_path / "out")


def test_a_cascade_needs_its_earlier_stage(tmp_path: Path):
    alone = shutil.copytree(CASCADE.results, tmp_path / "results" / CASCADE.results.name)
    with pytest.raises(
        InputError, match="refines the masks of 3d_lowres, whose trained model is not beside it"
    ):
        import_model(alone, tmp_path / "out")
    import_model(CASCADE.results, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "previous")
    folder = RunFolder(tmp_path / "out").model(0)
    with pytest.raises(InputError, match="the earlier stage of this cascade is missing"):
        Model.load(folder, device=torch.device("cpu"), precision="fp32")


def test_a_refused_cascade_leaves_nothing(tmp_path: Path):
    root = shutil.copytree(CASCADE.results.parent, tmp_path / "results")
    (root / CASCADE.results.name / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        import_model(root, tmp_path / "out", configuration="3d_cascade_fullres")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_not_written_to(results: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text("dataset: liver\n")
    with pytest.raises(InputError, match="holds something else than an imported model"):
        import_model(results, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.yaml"]


def test_labels_are_in_the_order_of_the_outputs(results: Path):
    """nnU-Net's outputs follow the labels' values, however dataset.json orders them."""
    plans = json.loads((results / "plans.json").read_text())
    dataset = json.loads((results / "dataset.json").read_text())
    dataset["labels"] = {"lesion": 2, "background": 0, "organ": 1}
    read = read_plans(plans, dataset, "3d_fullres", trainer="nnUNetTrainer", mirror_axes=(), where="test")
    assert list(read.description.targets) == ["organ", "lesion"]
    dataset["labels"] = {"background": 0, "organ": 1, "lesion": 3}
    with pytest.raises(InputError, match=r"values \[0, 1, 3\] are not consecutive"):
        read_plans(plans, dataset, "3d_fullres", trainer="nnUNetTrainer", mirror_axes=(), where="test")


def test_picture_values_beyond_eight_bits_are_refused(tmp_path: Path):
    model = PICTURES.load(tmp_path / "out")
    volume = read_channels(PICTURES.scans * 3)
    with pytest.raises(DataError, match="not those of a colour picture"):
        model.prepare_volume(Volume(volume.array * 300, volume.header))


def test_an_empty_scan_is_refused(tmp_path: Path):
    model = FLAT.load(tmp_path / "out")
    volume = read_channels(FLAT.scans)
    with pytest.raises(DataError, match="all voxels are zero"):
        model.prepare_volume(Volume(volume.array * 0, volume.header))
