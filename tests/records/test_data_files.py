"""Headers that name separate data files: found, and refused wherever they lie outside."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from corruptions import describe

from medunet.base.errors import DataError, InputError
from medunet.dataset.checks.case_checks import check_case
from medunet.imaging.formats import FORMATS
from medunet.imaging.volumes import read_header, read_label
from medunet.records.data_files import data_files, outside_data_file
from medunet.records.data_root import file_path
from medunet.records.manifest import Case


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with headers beside their data, and a data file outside it."""
    folder = tmp_path / "root/labels"
    folder.mkdir(parents=True)
    array = np.zeros((4, 5, 6), np.uint8)
    array[1:3, 2:4, 2:5] = 1
    image = sitk.GetImageFromArray(array)
    for name in ("x.mhd", "d.nhdr"):
        sitk.WriteImage(image, str(folder / name))
    sitk.WriteImage(image, str(folder / "packed.mhd"), True)
    sitk.WriteImage(image, str(folder / "one.nrrd"))
    nib.save(nib.Nifti1Pair(array.T, np.eye(4)), folder / "pair.hdr")
    (folder / "d.nhdr").rename(folder / "d.nrrd")
    (tmp_path / "secret").mkdir()
    shutil.copy(folder / "x.raw", tmp_path / "secret/s.raw")
    return tmp_path / "root"


def test_data_beside_its_header_is_found_and_read(root: Path) -> None:
    folder = root / "labels"
    names = {"x.mhd": ["x.raw"], "packed.mhd": ["packed.zraw"], "d.nrrd": ["d.raw"], "one.nrrd": []}
    names |= {"pair.hdr": ["pair.img"], "pair.img": ["pair.hdr"], "absent.mhd": []}
    for name, expected in names.items():
        assert [path.name for path in data_files(folder / name)] == expected
        assert outside_data_file(folder / name) == outside_data_file(folder / name, root) == ""
        if name != "absent.mhd":
            assert read_label(folder / name).array.sum() == 12
    below = folder / "below"
    below.mkdir()
    (folder / "x.raw").rename(below / "y.raw")
    text = (folder / "x.mhd").read_text()
    (folder / "x.mhd").write_text(text.replace("x.raw", "below/y.raw"))
    assert read_label(folder / "x.mhd").array.sum() == 12
    for number in range(1, 5):
        (folder / f"s{number:02d}.raw").write_bytes(bytes(30))
    (folder / "x.mhd").write_text(text.replace("x.raw", "s%02d.raw 1 4 1"))
    assert [path.name for path in data_files(folder / "x.mhd")] == [
        "s01.raw",
        "s02.raw",
        "s03.raw",
        "s04.raw",
    ]
    assert read_label(folder / "x.mhd").array.shape == (6, 5, 4)


def test_the_table_of_formats_knows_the_other_file_of_a_pair() -> None:
    """So that a change of the voxels alone is a change of the case."""
    endings = {each.ending: each.data_endings for each in FORMATS}
    assert endings[".hdr"] == (".img",)
    assert endings[".img"] == (".hdr",)
    assert ".raw" in endings[".mhd"]
    assert ".raw" in endings[".nrrd"]


def point_at(template: str, old: str, new: Callable[[Path], str], name: str) -> Callable[[Path], str]:
    def write(root: Path) -> str:
        text = (root / "labels" / template).read_text()
        assert old in text
        (root / "labels" / name).write_text(text.replace(old, new(root)))
        return name

    return write


def link(name: str, template: str, old: str, header: str) -> Callable[[Path], str]:
    def write(root: Path) -> str:
        target = root.parent / "secret"
        (root / "labels" / name).symlink_to(target if "/" in old or "." not in name else target / "s.raw")
        written = name if "." in name else f"{name}/s.raw"
        text = (root / "labels" / template).read_text()
        (root / "labels" / header).write_text(text.replace(old, written))
        return header

    return write


OUTSIDE = {
    "absolute": point_at("x.mhd", "x.raw", lambda root: str(root.parent / "secret/s.raw"), "a.mhd"),
    "above": point_at("x.mhd", "x.raw", lambda _: "../../secret/s.raw", "a.mhd"),
    "above, .mha": point_at("x.mhd", "x.raw", lambda _: "../../secret/s.raw", "a.mha"),
    "through a folder": point_at("x.mhd", "x.raw", lambda _: "below/../../../secret/s.raw", "a.mhd"),
    "list": point_at("x.mhd", "x.raw", lambda _: "LIST\n" + "../../secret/s.raw\n" * 4, "a.mhd"),
    "series": point_at("x.mhd", "x.raw", lambda _: "../../secret/s%d.raw 1 4 1", "a.mhd"),
    "NRRD, absolute": point_at("d.nrrd", "d.raw", lambda root: str(root.parent / "secret/s.raw"), "a.nrrd"),
    "NRRD, above": point_at("d.nrrd", "d.raw", lambda _: "../../secret/s.raw", "a.nrrd"),
    "NRRD, other spelling": point_at(
        "d.nrrd", "data file: d.raw", lambda _: "datafile: ../../secret/s.raw", "a.nrrd"
    ),
    "NRRD, list": point_at("d.nrrd", "d.raw", lambda _: "LIST\n../../secret/s.raw", "a.nrrd"),
    "NRRD, standard input": point_at("d.nrrd", "d.raw", lambda _: "-", "a.nrrd"),
    "segmentation": point_at("d.nrrd", "d.raw", lambda _: "../../secret/s.raw", "a.seg.nrrd"),
    "link": link("l.raw", "x.mhd", "x.raw", "a.mhd"),
    "linked folder": link("l", "x.mhd", "x.raw", "a.mhd"),
    "NRRD, link": link("l.raw", "d.nrrd", "d.raw", "a.nrrd"),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_data_outside_is_refused_by_the_check_and_every_reader(root: Path, kind: str) -> None:
    name = OUTSIDE[kind](root)
    for read in (read_header, read_label):
        with pytest.raises(
            DataError, match=rf"{name}: its voxels would be read from .* Put the data file beside"
        ):
            read(root / "labels" / name)
    with pytest.raises(
        InputError, match=f"the path labels/{name} leads outside the data root: its voxels would"
    ):
        file_path(f"labels/{name}", root, "case a")
    case = Case(id="a", patient="a", images={"T1": "labels/x.mhd"}, label=f"labels/{name}", fold=0)
    faults, _ = check_case(case, describe(channels={"T1": {"modality": "MR"}}), root)
    (fault,) = [fault for fault in faults if fault.subject == "label"]
    assert fault.code == "N013"
    assert str(root.parent) not in fault.measured  # which is saved


def test_the_links_of_one_folder_to_another_of_the_root(root: Path) -> None:
    """As in a tree of links, where header and data lie in different folders."""
    store = root / "store"
    for name in ("x.mhd", "x.raw"):
        (store / name).mkdir(parents=True)
        (root / "labels" / name).rename(store / name / "content")
        (root / "labels" / name).symlink_to(store / name / "content")
    assert file_path("labels/x.mhd", root, "case a") == root / "labels/x.mhd"
    assert read_label(root / "labels/x.mhd").array.sum() == 12


def test_the_voxels_of_a_pair_outside(root: Path) -> None:
    (root / "labels/pair.img").rename(root.parent / "secret/pair.img")
    (root / "labels/pair.img").symlink_to(root.parent / "secret/pair.img")
    with pytest.raises(DataError, match=r"pair\.hdr: its voxels would be read from pair\.img, a link"):
        read_label(root / "labels/pair.hdr")
