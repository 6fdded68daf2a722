"""The shipped descriptions: each is read, and its values and regions are those of its dataset."""

import re
from pathlib import Path

import nibabel as nib
import pytest

from medunet.dataset.layouts import scan_folder
from medunet.errors import InputError
from medunet.records import Description, load_description

FOLDER = Path(__file__).parents[2] / "data_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_expected_descriptions_are_shipped() -> None:
    assert NAMES == [
        "brats_2018_2021",
        "brats_2023_glioma",
        "lits_2017",
        "msd_task01_brain_tumour",
        "msd_task03_liver",
        "msd_task04_hippocampus",
        "phantoms",
        "totalsegmentator",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_description_is_read_written_and_read_again(name: str, tmp_path: Path) -> None:
    description = load_description(name, FOLDER)
    assert description.name == name
    assert description.title
    assert description.licence
    description.write(tmp_path / "again.json")
    assert Description.read(tmp_path / "again.json") == description
    assert scan_folder(description, tmp_path).cases == ()  # its layout is one that is read


@pytest.mark.parametrize(
    ("name", "whole", "core", "enhancing"),
    [
        ("msd_task01_brain_tumour", {1, 2, 3}, {2, 3}, {3}),
        ("brats_2018_2021", {1, 2, 4}, {1, 4}, {4}),
        ("brats_2023_glioma", {1, 2, 3}, {1, 3}, {3}),
    ],
)
def test_brain_regions_fit_their_label_values(
    name: str, whole: set[int], core: set[int], enhancing: set[int]
) -> None:
    description = load_description(name, FOLDER)
    targets = {region: set(values) for region, values in description.targets.items()}
    assert targets == {"whole_tumour": whole, "tumour_core": core, "enhancing_tumour": enhancing}
    assert list(description.channels) == ["FLAIR", "T1w", "T1gd", "T2w"]
    oedema = description.labels["oedema"]
    assert description.written_values["whole_tumour"] == oedema


@pytest.mark.parametrize("name", ["msd_task03_liver", "lits_2017", "phantoms"])
def test_liver_includes_tumour(name: str) -> None:
    description = load_description(name, FOLDER)
    assert description.targets == {"liver": (1, 2), "tumour": (2,)}
    assert description.written_values == {"liver": 1, "tumour": 2}


def test_sidedness_and_exclusive_labels() -> None:
    hippocampus = load_description("msd_task04_hippocampus", FOLDER)
    assert (hippocampus.regions, hippocampus.sided) == ({}, False)
    assert hippocampus.targets == {"anterior": (1,), "posterior": (2,)}
    assert load_description("totalsegmentator", FOLDER).sided


@pytest.mark.parametrize(
    ("name", "case_id", "patient"),
    [
        ("brats_2018_2021", "Brats18_TCIA01_131_1", "Brats18_TCIA01_131"),
        ("brats_2018_2021", "BraTS19_CBICA_AAB_1", "BraTS19_CBICA_AAB"),
        ("brats_2018_2021", "BraTS20_Training_001", "BraTS20_Training_001"),
        ("brats_2018_2021", "BraTS2021_00002", "BraTS2021_00002"),
        ("brats_2018_2021", "TCGA-FG-6692", "TCGA-FG-6692"),
        ("brats_2023_glioma", "BraTS-GLI-00012-001", "00012"),
        ("msd_task03_liver", "liver_12", "12"),
    ],
)
def test_patient_of_a_case(name: str, case_id: str, patient: str) -> None:
    assert load_description(name, FOLDER).patient_of(case_id) == patient


def test_unknown_description_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="msd_task03_liver"):
        load_description("msd_task99", FOLDER)


@pytest.mark.real_data
def test_totalsegmentator_names_are_those_of_its_own_file(shared_data: Path) -> None:
    """The label map carries its own table of names, as an extension of the header."""
    header = nib.load(shared_data / "ct_abdomen" / "totalsegmentator_labels.nii.gz").header
    table = str(header.extensions[0].get_content())
    own = {name: int(value) for value, name in re.findall(r'Key="(\d+)".*?CDATA\[(.*?)\]', table)}
    labels = dict(load_description("totalsegmentator", FOLDER).labels)
    assert labels.pop("background") == 0
    assert labels == own
    assert (labels["liver"], labels["spleen"], len(labels)) == (5, 1, 117)
