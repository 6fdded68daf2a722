"""NRRD and MetaImage: the same array and affine as NIfTI, and a clear word on what one label map cannot hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from medunet.base.errors import DataError
from medunet.imaging import nifti
from medunet.imaging.volumes import read_header, read_label, read_volume, write_mask

SPACING_MM = (0.75, 1.5, 3.0)
ORIGIN_LPS = (12.5, -30.0, 7.25)
# Axis 0 to L and, by 3-4-5, up; axis 1 to P; axis 2 perpendicular to both: a scan tilted by 37 degrees.
DIRECTION_LPS = np.array([[0.8, 0.0, -0.6], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
AFFINE = np.array(
    [
        [-0.8 * 0.75, 0.0, 0.6 * 3.0, -12.5],  # R is minus L
        [0.0, -1.5, 0.0, 30.0],  # A is minus P
        [0.6 * 0.75, 0.0, 0.8 * 3.0, 7.25],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


@pytest.fixture
def labels() -> np.ndarray:
    """A map `(5, 7, 4)` that no flip or permutation of axes leaves as it is."""
    return np.random.default_rng(0).integers(0, 4, (5, 7, 4)).astype(np.uint8)


def to_itk(array: np.ndarray, *, layers: bool = False) -> sitk.Image:
    """Return an image of `(I, J, K)`, or of `(layers, I, J, K)`, tilted."""
    turned = np.moveaxis(array, 0, -1).transpose(2, 1, 0, 3) if layers else array.T
    image = sitk.GetImageFromArray(np.ascontiguousarray(turned), isVector=layers)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin(ORIGIN_LPS)
    image.SetDirection(DIRECTION_LPS.ravel().tolist())
    return image


def save(path: Path, image: sitk.Image, **notes: Any) -> Path:
    for key, value in notes.items():
        image.SetMetaData(key, str(value))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", [".nrrd", ".seg.nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_array_and_affine_are_those_of_nifti(
    labels: np.ndarray, tmp_path: Path, ending: str, dtype: type
) -> None:
    image = to_itk(labels.astype(dtype))
    path = save(tmp_path / f"a{ending}", image)
    same = read_volume(save(tmp_path / "a.nii", image))
    read = read_label(path)
    assert np.array_equal(read.array, labels)
    assert np.array_equal(same.array, labels)
    assert read.array.dtype == np.uint8
    np.testing.assert_allclose(read.affine, AFFINE, atol=1e-6)
    np.testing.assert_allclose(same.affine, AFFINE, atol=1e-5)  # NIfTI keeps float32
    assert read.spacing_mm == pytest.approx(SPACING_MM)
    header = read_header(path)
    assert header.shape == (5, 7, 4)
    assert header.dtype == dtype
    assert header.num_bytes == labels.size * np.dtype(dtype).itemsize
    assert np.array_equal(header.affine, read.affine)
    assert read_volume(path).array.dtype == np.float32


def test_a_mask_is_written_on_such_a_grid(labels: np.ndarray, tmp_path: Path) -> None:
    header = read_header(save(tmp_path / "a.nrrd", to_itk(labels)))
    write_mask(tmp_path / "mask.nii.gz", labels, header)
    mask = read_label(tmp_path / "mask.nii.gz")
    assert np.array_equal(mask.array, labels)
    np.testing.assert_allclose(mask.affine, AFFINE, atol=1e-5)
    written = nifti.read_header(tmp_path / "mask.nii.gz")
    assert (written.nifti["sform_code"], written.nifti["qform_code"], written.unit) == (1, 1, "mm")


def test_an_image_of_two_axes_is_one_slice(tmp_path: Path) -> None:
    pixels = np.arange(15, dtype=np.uint8).reshape(5, 3)
    flat = sitk.GetImageFromArray(pixels.T)
    flat.SetSpacing((0.5, 2.0))
    read = read_label(save(tmp_path / "a.mha", flat))
    assert np.array_equal(read.array, pixels[:, :, None])
    assert read.spacing_mm == (0.5, 2.0, 1.0)
    assert read_header(tmp_path / "a.mha").shape == (5, 3, 1)


def test_large_values_are_kept(labels: np.ndarray, tmp_path: Path) -> None:
    numbers = labels.astype(np.int32) * 8_000_001  # float32 would round them
    assert np.array_equal(read_label(save(tmp_path / "a.mha", to_itk(numbers))).array, numbers)


def test_the_layers_of_slicer_become_one_map(tmp_path: Path) -> None:
    layers = np.zeros((2, 5, 7, 4), np.uint8)
    layers[0, 1:3, 1:4, 1:3], layers[0, 3:5, 1:4, 1:3], layers[1, 1:3, 5:7, 0] = 1, 4, 2
    notes = {"Segment0_LabelValue": 1, "Segment0_Layer": 0, "Segment0_Name": "liver"}
    notes |= {"Segment1_LabelValue": 4, "Segment1_Layer": 0, "Segment2_LabelValue": 2, "Segment2_Layer": 1}
    image = to_itk(layers, layers=True)
    read = read_label(save(tmp_path / "a.seg.nrrd", image, **notes))
    assert np.array_equal(read.array, layers[0] + layers[1])
    np.testing.assert_allclose(read.affine, AFFINE, atol=1e-6)
    assert read_header(tmp_path / "a.seg.nrrd").shape == (5, 7, 4)

    shared = {**notes, "Segment2_LabelValue": 1}
    with pytest.raises(
        DataError, match=r"several segments with the label values \[1\]. In 3D Slicer, export"
    ):
        read_label(save(tmp_path / "b.seg.nrrd", to_itk(layers, layers=True), **shared))
    layers[1, 2, 3, 1] = 2  # where layer 0 holds 1
    with pytest.raises(
        DataError, match=r"c\.seg\.nrrd: has segments that overlap: liver and \?. In 3D Slicer"
    ):
        read_label(save(tmp_path / "c.seg.nrrd", to_itk(layers, layers=True), **notes))
    with pytest.raises(DataError, match="has 2 values per voxel"):
        read_label(save(tmp_path / "d.nrrd", to_itk(layers, layers=True)))


def test_a_value_without_a_segment_is_named(labels: np.ndarray, tmp_path: Path) -> None:
    notes = {"Segment0_LabelValue": 1, "Segment1_LabelValue": 2}  # there are 3s, too
    with pytest.raises(
        DataError, match=r"layer 0 holds values other than its segments' label values \[1, 2\]"
    ):
        read_label(save(tmp_path / "a.seg.nrrd", to_itk(labels), **notes))
    whole = save(tmp_path / "b.seg.nrrd", to_itk(labels), **notes, Segment2_LabelValue=3)
    assert np.array_equal(read_label(whole).array, labels)
    with pytest.raises(DataError, match="Segment0_LabelValue or Segment0_Layer is not a whole number"):
        read_label(save(tmp_path / "c.seg.nrrd", to_itk(labels), Segment0_LabelValue="one"))


@pytest.mark.parametrize(("ending", "name"), [(".nrrd", "NRRD"), (".mha", "MHA"), (".mhd", "MHD")])
def test_a_file_that_cannot_be_read_is_named_alone(
    labels: np.ndarray, tmp_path: Path, ending: str, name: str
) -> None:
    path = tmp_path / f"a{ending}"
    with pytest.raises(DataError, match="no such file"):
        read_label(path)
    path.write_bytes(b"no volume")
    with pytest.raises(DataError, match=f"^a{ending}: not a readable {name} file") as caught:
        read_label(path)
    assert str(tmp_path) not in str(caught.value)
    save(path, to_itk(np.tile(labels, (9, 9, 9))))
    voxels = path.with_suffix(".raw") if ending == ".mhd" else path
    voxels.write_bytes(voxels.read_bytes()[:-2000])
    with pytest.raises(DataError, match=f"^a{ending}: the voxels cannot be read") as caught:
        read_label(path)
    assert str(tmp_path) not in str(caught.value)


def test_four_axes_are_refused(labels: np.ndarray, tmp_path: Path) -> None:
    frames = sitk.GetImageFromArray(np.stack([labels.T, labels.T]), isVector=False)
    with pytest.raises(DataError, match="has 4 axes, not three"):
        read_label(save(tmp_path / "a.nrrd", frames))


def test_a_list_of_fewer_files_than_slices(tmp_path: Path) -> None:
    """ITK reads such a file without an error, with other voxels."""
    scan = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(scan), str(tmp_path / "a.mhd"))
    header = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(header.replace("a.raw", "LIST\na.raw"))
    with pytest.raises(DataError, match=r"lists 1 data files for 3 slices.*one file for each slice"):
        read_volume(tmp_path / "a.mhd")
    for number, plane in enumerate(scan):
        (tmp_path / f"{number}.raw").write_bytes(plane.tobytes())
    (tmp_path / "a.mhd").write_text(header.replace("a.raw", "LIST\n0.raw\n1.raw\n2.raw"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mhd").array, scan.T)
