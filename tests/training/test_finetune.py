"""A model's weights begin another training, whatever its classes and channels."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medunet.base.errors import InputError
from medunet.base.files import hash_file, read_json_object
from medunet.commands.train import run_train
from medunet.networks.builder import build_network
from medunet.planning.planner import make_plan
from medunet.records.config import PlanningConfig, change_config
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.runs.run import Run, open_run
from medunet.training.finetune import load_pretrained
from medunet.training.module import SegmentationModule
from medunet.training.probe import ComputeChoice

EXCLUSIVE = Description.parse(
    {"name": "e", "layout": "pairs", "channels": {"PET": {"modality": "PET"}, "CT": {"modality": "CT"}},
     "labels": {"background": 0, "kidney": 1, "tumour": 2}},
    "test",
)  # fmt: skip


def test_the_same_dataset_loads_whole(finished_run: Run):
    network = build_network(finished_run.read_plan(), finished_run.read_description())
    folder = finished_run.folder.model(0)
    loaded = load_pretrained(network, finished_run.read_plan(), finished_run.read_description(), folder)
    assert not loaded.adapted
    assert not loaded.left
    given = load_file(folder / "weights.safetensors")
    assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


def test_classes_and_channels_are_joined_by_name(finished_run: Run):
    folder = finished_run.folder.model(0)
    given = load_file(folder / "weights.safetensors")  # outputs: liver, tumour; inputs: CT
    torch.manual_seed(0)
    network = build_network(finished_run.read_plan(), EXCLUSIVE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loaded = load_pretrained(network, finished_run.read_plan(), EXCLUSIVE, folder)
    after = network.state_dict()
    heads = [name for name in after if name.startswith("heads.")]
    assert set(heads) < set(loaded.adapted)
    for name in heads:  # background, kidney, tumour
        assert torch.equal(after[name][2], given[name][1])
        assert torch.equal(after[name][:2], before[name][:2])
    (first,) = set(loaded.adapted) - set(heads)
    assert torch.equal(after[first][:, 1], given[first][:, 0])  # CT
    assert torch.equal(after[first][:, 0], given[first].mean(1))  # PET, new
    assert "tumour" in loaded.summary()


def first_convolution(network: torch.nn.Module) -> str:
    return next(name for name, weight in network.state_dict().items() if weight.ndim > 2)


def kept_model(folder: Path, run: Run, plan: Plan, description: Description) -> dict[str, torch.Tensor]:
    """Write a model folder with random weights, and return them."""
    torch.manual_seed(1)
    weights = build_network(plan, description).state_dict()
    save_file(weights, folder / "weights.safetensors")
    card = ModelCard.read(run.folder.model(0) / "model.json")
    kept = {"plan": plan, "description": description}
    card.model_copy(update={**kept, "weights_sha256": hash_file(folder / "weights.safetensors")}).write(
        folder / "model.json"
    )
    return weights


def copy_card(folder: Path, run: Run) -> None:
    """Write the run's model card for the weights that lie in a folder."""
    card = ModelCard.read(run.folder.model(0) / "model.json")
    changed = {"weights_sha256": hash_file(folder / "weights.safetensors")}
    card.model_copy(update=changed).write(folder / "model.json")


def test_channels_in_another_order_are_joined_by_name(finished_run: Run, tmp_path: Path):
    given = kept_model(tmp_path, finished_run, finished_run.read_plan(), EXCLUSIVE)  # PET, CT
    turned = EXCLUSIVE.model_copy(update={"channels": dict(reversed(EXCLUSIVE.channels.items()))})
    network = build_network(finished_run.read_plan(), turned)
    load_pretrained(network, finished_run.read_plan(), turned, tmp_path)
    first = first_convolution(network)
    assert torch.equal(network.state_dict()[first], given[first].flip(1))


def test_neighbouring_slices_are_joined_about_the_middle_one(finished_run: Run, tmp_path: Path):
    plan = make_plan(
        finished_run.read_plan().fingerprint, finished_run.read_description(),
        PlanningConfig(dimensions=2, base_features=8, patch_size=(16, 16), context_slices=3),
        memory_gb=1.0, memory_why="given",
    )  # fmt: skip
    wider = plan.model_copy(update={"context_slices": 5})
    given = kept_model(tmp_path, finished_run, plan, EXCLUSIVE)
    network = build_network(wider, EXCLUSIVE)
    load_pretrained(network, wider, EXCLUSIVE, tmp_path)
    first = first_convolution(network)
    loaded = network.state_dict()[first]
    for channel in (0, 1):  # the middle three of five are the three of before
        middle = loaded[:, 5 * channel + 1 : 5 * channel + 4]
        assert torch.equal(middle, given[first][:, 3 * channel : 3 * channel + 3])


def test_weights_that_cannot_be_read_are_named(finished_run: Run, tmp_path: Path):
    (tmp_path / "weights.safetensors").write_bytes(b"cut short")
    copy_card(tmp_path, finished_run)
    network = build_network(finished_run.read_plan(), finished_run.read_description())
    with pytest.raises(InputError, match="cannot be read"):
        load_pretrained(network, finished_run.read_plan(), finished_run.read_description(), tmp_path)


def test_weights_of_another_model_than_the_card_are_refused(finished_run: Run, tmp_path: Path):
    """They have every name and shape right, and would load without a word."""
    shutil.copytree(finished_run.folder.model(0), tmp_path, dirs_exist_ok=True)
    given = load_file(tmp_path / "weights.safetensors")
    save_file({name: weight + 1 for name, weight in given.items()}, tmp_path / "weights.safetensors")
    network = build_network(finished_run.read_plan(), finished_run.read_description())
    with pytest.raises(
        InputError, match=r"init_from.*not the file that model\.json was written with.*Copy both"
    ):
        load_pretrained(network, finished_run.read_plan(), finished_run.read_description(), tmp_path)


def test_another_network_is_refused(finished_run: Run, tmp_path: Path):
    network = build_network(finished_run.read_plan(), finished_run.read_description())
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    copy_card(tmp_path, finished_run)
    with pytest.raises(InputError, match="no weight of that model fits"):
        load_pretrained(network, finished_run.read_plan(), finished_run.read_description(), tmp_path)
    with pytest.raises(InputError, match=r"holds no model\.json"):
        load_pretrained(network, finished_run.read_plan(), finished_run.read_description(), tmp_path / "none")


def test_a_frozen_encoder_stays_as_it_was_given(finished_run: Run, own_run: Run):
    folder = finished_run.folder.model(0)
    changes = [f"training.init_from={folder}", "training.freeze_encoder=true", "training.epochs=1", "seed=5"]
    run = open_run(own_run.folder.root, own_run.data_root, changes=changes)
    for path in sorted(run.folder.fold(0).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    run_train(run)
    given = load_file(folder / "weights.safetensors")
    trained = load_file(run.folder.model(0) / "weights.safetensors")
    moved = {name for name, value in trained.items() if not torch.equal(value, given[name])}
    assert moved
    assert not any(name.startswith("encoder.") for name in moved)
    assert read_json_object(run.folder.fold(0) / "initial_weights.json")["left"] == {}
    assert str(folder) not in run.folder.config.read_text()


def without_fold(run: Run, changes: list[str]) -> Run:
    """Remove all that was trained, and change the configuration."""
    shutil.rmtree(run.folder.fold(0))
    return open_run(run.folder.root, run.data_root, changes=changes)


def test_a_frozen_encoder_needs_weights_that_it_keeps(own_run: Run):
    with pytest.raises(InputError, match="random"):
        run_train(without_fold(own_run, ["training.freeze_encoder=true"]))


def test_a_model_that_knows_the_held_out_cases_is_named(own_run: Run, finished_run: Run, capsys):
    changes = [f"training.init_from={finished_run.folder.model(0)}", "training.fold=1", "training.epochs=1"]
    run_train(without_fold(own_run, changes))
    assert "was trained on" in " ".join(capsys.readouterr().err.split())


def test_a_training_begun_from_a_model_is_not_begun_again_without(own_run: Run, finished_run: Run):
    given = [f"training.init_from={finished_run.folder.model(0)}", "training.epochs=1"]
    run_train(without_fold(own_run, given))
    shutil.rmtree(own_run.folder.fold(0) / "checkpoints")  # as if killed before the first one
    with pytest.raises(InputError, match="--from"):
        run_train(open_run(own_run.folder.root, own_run.data_root))


def test_the_statistics_of_a_frozen_batch_norm_stand_still(finished_run: Run, tiny_plan: Plan):
    network = tiny_plan.network.model_copy(update={"norm": "batch"})
    plan = tiny_plan.model_copy(update={"network": network})
    config = change_config({"dataset": "phantoms"}, ["training.freeze_encoder=true"], "test")
    module = SegmentationModule(plan, finished_run.read_description(), config, ComputeChoice("fp32"), "id")
    module.train()
    module.on_train_start()
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    module.network(torch.randn(2, 1, *plan.patch_size))
    moved = {
        name for name, value in module.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert any(name.startswith("decoder.") for name in moved)
    assert not any(name.startswith("encoder.") for name in moved)
