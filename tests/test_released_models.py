"""The models that medunet ships: small, whole, licensed, and of use on their own example; a whole head is refused."""

import os
import re
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from medunet.phantoms.brain import MODALITIES, make_brain
from medunet.runs.packages import open_package, read_package

FOLDER = REPOSITORY / "medunet" / "models"
MODELS = sorted(FOLDER.glob("*.zip"))
HOW = ("--device", "cpu", "--precision", "fp32", "--backend", "torch")
HEAD = Path(
    os.environ.get("MEDUNET_HEAD_T1", "/usr/share/mricron/templates/ch2.nii.gz")
)  # Debian's mricron-data

each_model = pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user_data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


def test_two_models_are_shipped():
    assert [path.stem for path in MODELS] == ["hippocampus", "nuclei"]


def test_hippocampus_has_five_members_trained_on_all_cases():
    package = read_package(FOLDER / "hippocampus.zip")
    assert [member.seed for member in package.members] == [0, 1, 2, 3, 4]
    assert {member.fold for member in package.members} == {"all"}
    assert {member.num_training_cases for member in package.members} == {190}
    assert package.weights_licence == "CC-BY-SA-4.0"


@each_model
def test_they_are_small_whole_and_licensed(path: Path):
    folder, package = open_package(path)  # verifies every SHA-256
    sizes = [(folder / member.folder / "weights.safetensors").stat().st_size for member in package.members]
    assert max(sizes) <= 4_000_000
    assert path.stat().st_size <= 16_000_000
    assert {member.weights for member in package.members} == {"final"}
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert package.weights_licence in settings["license"].split(" AND ")
    text = f"medunet/models/{package.weights_licence}.txt"
    assert text in settings["license-files"]
    assert (REPOSITORY / text).stat().st_size > 5000
    assert package.attribution
    assert package.attribution in " ".join((FOLDER / "README.md").read_text().split())


def test_nuclei_is_one_network_scored_on_pictures_that_were_left_out():
    folder, package = open_package(FOLDER / "nuclei.zip")
    (member,) = package.members
    assert (member.fold, member.num_training_cases) == (0, 434)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "On held-out scans of fold 0" in card
    (dice,) = re.findall(r"^\| nucleus \| (0\.\d+) \(.* \| 108 \| 108 \|", card, re.MULTILINE)
    assert float(dice) >= 0.915
    assert "HD95 in px" in card
    assert " mm" not in card.split("## Scores")[1].split("## Limits")[0]


def test_nuclei_are_found_in_its_example(tmp_path: Path, call):
    picture = tmp_path / "picture.png"
    assert call("models", "nuclei", "--example", picture)[0] == 0
    assert call("predict", "nuclei", picture, "--out", tmp_path / "masks", *HOW)[0] == 0
    mask, grey = (np.asarray(Image.open(path)) for path in (tmp_path / "masks/picture.png", picture))
    grey = grey[..., :3].mean(axis=2)
    assert 0.02 < (mask > 0).mean() < 0.5
    assert grey[mask > 0].mean() > 2 * grey[mask == 0].mean()  # they shine in the dark


def test_hippocampus_is_scored_on_scans_that_were_left_out():
    folder, package = open_package(FOLDER / "hippocampus.zip")
    card = (folder / "MODEL_CARD.md").read_text()
    (scores,) = re.findall(r"^## Scores\n\n(.+?)\n\n", card, re.MULTILINE | re.DOTALL)
    assert "Of the recipe, not of these weights" in scores
    assert "trained on 190 scans, 38 of the scored ones among them" in scores
    for target in package.targets:
        (dice,) = re.findall(rf"^\| {target} \| (0\.\d+) \(", card, re.MULTILINE)
        assert float(dice) > 0.87


def test_hippocampus_finds_the_structures_of_its_example(tmp_path: Path, call):
    scan = tmp_path / "scan.nii.gz"
    assert call("models", "hippocampus", "--example", scan)[0] == 0
    assert call("predict", "hippocampus", scan, "--out", tmp_path / "masks", *HOW)[0] == 0
    labels = np.asarray(nib.load(tmp_path / "masks" / "scan.nii.gz").dataobj).astype(int)
    _, *sizes_mm3 = np.bincount(labels.ravel())
    assert len(sizes_mm3) == 2
    assert all(800 < size_mm3 < 4000 for size_mm3 in sizes_mm3)  # the anterior and the posterior part


def check_refused(scan: Path, tmp_path: Path, call) -> None:
    code, text = call("predict", "hippocampus", scan, "--out", tmp_path / "masks", *HOW)
    assert code == 1
    assert "N028 field of view unlike the training scans'" in text
    assert list((tmp_path / "masks").glob("*.nii.gz")) == []


def test_a_synthetic_head_is_refused_by_hippocampus(tmp_path: Path, call):
    head = make_brain(0, spacing_mm=(2.0, 2.0, 2.0))
    image = np.ascontiguousarray(head.image[..., MODALITIES.index("T1w")])
    nib.save(nib.Nifti1Image(image, head.affine), tmp_path / "head.nii.gz")
    check_refused(tmp_path / "head.nii.gz", tmp_path, call)


def test_a_real_head_is_refused_by_hippocampus(tmp_path: Path, call):
    if not HEAD.is_file():
        pytest.skip("the whole head is absent: install Debian's mricron-data, or set MEDUNET_HEAD_T1 to a T1")
    check_refused(HEAD, tmp_path, call)
