"""Real series imported: as SimpleITK and their own tags have them, and refused once a fault is made in them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from tiny_dicom import load_volume, normal_of, voxel_position

from medunet.dataset.dicom.importer import import_tree


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "shape", "spacing_mm", "kind"),
    [
        ("mr_dicom_series/12-T1post-05670", (512, 512, 22), (0.4297, 0.4297, 6.5), "int16"),
        ("mr_dicom_series/32500-dT1-49467", (512, 512, 24), (0.4297, 0.4297, 6.5), "float32"),
        ("mr_dicom_series/13_HCropVolume", (35, 51, 32), (1, 1, 1), "int16"),
        ("ct_dicom_series/series", (512, 512, 20), (0.9765625, 0.9765625, 2), "int16"),
    ],
)
def test_real_series_are_as_simpleitk_and_their_tags_have_them(
    shared_data: Path,
    tmp_path: Path,
    folder: str,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    kind: str,
) -> None:
    source = shared_data / folder
    (row,) = import_tree(source, tmp_path).rows
    assert (row.shape, row.voxel_type) == (shape, kind)
    assert np.allclose(row.spacing_mm, spacing_mm, atol=1e-4)
    array, affine = load_volume(tmp_path, row.case)
    reader = sitk.ImageSeriesReader()
    files = reader.GetGDCMSeriesFileNames(str(source)) or [str(path) for path in sorted(source.iterdir())]
    reader.SetFileNames(files)
    expected = sitk.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)
    assert np.allclose(array, expected, rtol=1e-6)  # 1e-6 is what float32 keeps of the slope 1.3526
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in source.iterdir()]
    normal = normal_of(tuple(slices[0].ImageOrientationPatient))
    slices.sort(key=lambda one: float(np.dot(one.ImagePositionPatient, normal)))
    for place, one in enumerate(slices):
        for pixel in ((0, 0), (shape[1] - 1, shape[0] - 1), (11, 29)):
            world = affine @ (pixel[1], pixel[0], place, 1)
            assert np.allclose(world[:3], voxel_position(one, *pixel), atol=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize("fault", ["missing", "mixed", "sheared"])
def test_real_series_are_refused_with_the_slice_named(shared_data: Path, tmp_path: Path, fault: str) -> None:
    source = shared_data / "mr_dicom_series" / "12-T1post-05670"
    tree = tmp_path / "tree"
    shutil.copytree(source, tree)
    if fault == "missing":
        (tree / "000010.dcm").unlink()
        number, code = pydicom.dcmread(source / "000010.dcm").InstanceNumber, "D002"
    elif fault == "mixed":
        other = pydicom.dcmread(source.parent / "32500-dT1-49467" / "000004.dcm")
        other.SeriesInstanceUID = pydicom.dcmread(tree / "000010.dcm").SeriesInstanceUID
        other.save_as(tree / "other")
        number, code = other.InstanceNumber, "D004"
    else:
        for path in tree.iterdir():
            one = pydicom.dcmread(path)
            x, y, z = (float(mm) for mm in one.ImagePositionPatient)
            one.ImagePositionPatient = [x, y + 0.2 * z, z]
            one.save_as(path)
        number, code = None, "D005"
    imported = import_tree(tree, tmp_path / "out")
    (row,) = imported.rows
    assert row.status == "refused"
    (found,) = [entry for entry in imported.faults if entry.severity == "error" and entry.code == code]
    assert "slice " in found.measured
    if fault == "missing":  # its neighbours are named
        around = {int(number) - 1, int(number) + 1}
        assert all(f"(InstanceNumber {one})" in found.measured for one in around)
    elif number is not None:
        assert f"(InstanceNumber {number})" in found.measured
    assert json.loads((tmp_path / "out" / "checks.json").read_text())["faults"]
