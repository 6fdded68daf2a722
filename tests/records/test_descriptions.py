"""The shipped descriptions: each is read, and its values and regions are those of its dataset."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medunet.base.errors import InputError
from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.layouts.patterns import scan_folder
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description, load_description

FOLDER = Path(__file__).parents[2] / "data_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_expected_descriptions_are_shipped() -> None:
    assert NAMES == [
        "brats_2018_2021",
        "brats_2023_glioma",
        "dsb2018_nuclei",
        "lits_2017",
        "msd_task01_brain_tumour",
        "msd_task02_heart",
        "msd_task03_liver",
        "msd_task04_hippocampus",
        "msd_task05_prostate",
        "msd_task06_lung",
        "msd_task07_pancreas",
        "msd_task08_hepatic_vessel",
        "msd_task09_spleen",
        "msd_task10_colon",
        "phantoms",
        "totalsegmentator",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_description_is_read_written_and_read_again(name: str, tmp_path: Path) -> None:
    description = load_description(name)
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
    description = load_description(name)
    targets = {region: set(values) for region, values in description.targets.items()}
    assert targets == {"whole_tumour": whole, "tumour_core": core, "enhancing_tumour": enhancing}
    assert list(description.channels) == ["FLAIR", "T1w", "T1gd", "T2w"]
    oedema = description.labels["oedema"]
    assert description.written_values["whole_tumour"] == oedema


@pytest.mark.parametrize("name", ["msd_task03_liver", "lits_2017", "phantoms"])
def test_liver_includes_tumour(name: str) -> None:
    description = load_description(name)
    assert description.targets == {"liver": (1, 2), "tumour": (2,)}
    assert description.written_values == {"liver": 1, "tumour": 2}


def test_sidedness_and_exclusive_labels() -> None:
    hippocampus = load_description("msd_task04_hippocampus")
    assert (hippocampus.regions, hippocampus.sided) == ({}, False)
    assert hippocampus.targets == {"anterior": (1,), "posterior": (2,)}
    assert load_description("totalsegmentator").sided


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
    assert load_description(name).patient_of(case_id) == patient


def test_unknown_description_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="msd_task03_liver"):
        load_description("msd_task99")


WITH_IGNORE = {
    "name": "liver",
    "layout": "pairs",
    "channels": {"CT": {"modality": "CT"}},
    "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 255},
}


def test_ignore_is_no_target() -> None:
    labels = Description.model_validate(WITH_IGNORE)
    assert labels.ignore_value == 255
    assert labels.foreground == ("liver", "tumour")
    assert labels.targets == {"liver": (1,), "tumour": (2,)}
    assert labels.written_values == {"liver": 1, "tumour": 2}
    regions = {"regions": {"organ": ("liver", "tumour"), "tumour": ("tumour",)}}
    nested = Description.model_validate(WITH_IGNORE | regions | {"region_order": ("organ", "tumour")})
    assert nested.targets == {"organ": (1, 2), "tumour": (2,)}
    assert nested.written_values == {"organ": 1, "tumour": 2}
    assert load_description("msd_task03_liver").ignore_value is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "ignore": 1}}, "no foreground label"),
        (
            {
                "labels": {"background": 0, "liver": 1, "ignore": 2},
                "regions": {"a": ("liver", "ignore")},
                "region_order": ("a",),
            },
            r"regions\.a: \['ignore'\]",
        ),
        ({"labels": {"background": 0, "cell": 1, "ignore": 2}, "instances": True}, "instances: .*'ignore'"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 1}}, "share a value"),
    ],
)
def test_ignore_is_refused_as_a_target(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Description.model_validate(WITH_IGNORE | change)


@pytest.mark.parametrize(
    ("values", "faults"),
    [
        ((0, 1, 2, 255), []),
        ((0, 255), [("L003", "every voxel is 0 or ignored")]),
        ((0, 1, 254), [("L001", "254 in 36 voxels")]),
    ],
)
def test_the_check_knows_the_ignored_value(
    tmp_path: Path, values: tuple[int, ...], faults: list[tuple[str, str]]
) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    image = np.random.default_rng(0).normal(size=(6, 4, 3 * len(values))).astype(np.float32)
    label = np.repeat(np.array(values, dtype=np.uint8), 3)[None, None].repeat(6, 0).repeat(4, 1)
    label[:3] = values[0]
    write_volume(tmp_path / "imagesTr" / "a.nii.gz", image, np.diag([2.0, 1.0, 3.0, 1.0]))
    write_volume(tmp_path / "labelsTr" / "a.nii.gz", label, np.diag([2.0, 1.0, 3.0, 1.0]))
    description = Description.model_validate(WITH_IGNORE)
    (case,) = scan_folder(description, tmp_path).cases
    found, _ = check_case(case, description, tmp_path)
    assert [(fault.code, fault.measured) for fault in found] == faults


@pytest.mark.real_data
def test_totalsegmentator_names_are_those_of_its_own_file(shared_data: Path) -> None:
    """The label map carries its own table of names, as an extension of the header."""
    header = nib.load(shared_data / "ct_abdomen" / "totalsegmentator_labels.nii.gz").header
    table = str(header.extensions[0].get_content())
    own = {name: int(value) for value, name in re.findall(r'Key="(\d+)".*?CDATA\[(.*?)\]', table)}
    labels = dict(load_description("totalsegmentator").labels)
    assert labels.pop("background") == 0
    assert labels == own
    assert (labels["liver"], labels["spleen"], len(labels)) == (5, 1, 117)
