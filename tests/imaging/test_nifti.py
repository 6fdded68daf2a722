"""The reader and writer against nibabel and SimpleITK: geometry to the last bit, faults named."""

import errno
import gzip
import subprocess
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medunet.base.errors import DataError, InputError
from medunet.imaging import nifti
from medunet.imaging.geometry import axis_codes, corner_displacement_mm, shear_degrees
from medunet.imaging.nifti import write_volume
from medunet.imaging.orientation import to_ras
from medunet.imaging.volume import StoredVoxels
from medunet.imaging.volumes import read_channels, read_header, read_label, read_volume, write_mask

SHAPE = (7, 9, 5)


def oblique_affine(degrees: float = 12.0) -> np.ndarray:
    """An LPS scan, turned about two axes, 0.8×0.8×5 mm."""
    a, b = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-0.8, -0.8, 5.0])
    affine[:3, 3] = (31.25, -17.5, 102.125)
    return affine


def write_scan(path, array=None, affine=None, **codes):
    image = nib.Nifti1Image(
        np.zeros(SHAPE, np.int16) if array is None else array, np.eye(4) if affine is None else affine
    )
    image.set_sform(image.affine, codes.get("sform", 1))
    image.set_qform(image.affine, codes.get("qform", 1))
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (0, 0), (4, 2)])
@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
def test_mask_has_the_very_geometry_of_its_scan(tmp_path, sform, qform, name):
    scan = write_scan(tmp_path / "scan.nii.gz", affine=oblique_affine(), sform=sform, qform=qform)
    mask = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    write_mask(tmp_path / name, mask, read_header(scan))
    ours, theirs = nib.load(tmp_path / name), nib.load(scan)
    assert np.array_equal(ours.affine, theirs.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "srow_x", "quatern_b", "qoffset_x"):
        assert np.array_equal(ours.header[field], theirs.header[field]), field
    assert ours.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(ours.dataobj), mask)
    a, b = sitk.ReadImage(str(tmp_path / name)), sitk.ReadImage(str(scan))
    assert a.GetOrigin() == b.GetOrigin()
    assert a.GetDirection() == b.GetDirection()
    assert a.GetSpacing() == b.GetSpacing()
    assert np.array_equal(sitk.GetArrayFromImage(a).T, mask)


def test_free_text_of_the_scan_does_not_reach_the_mask(tmp_path):
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4))
    image.header["descrip"] = b"DOE^JANE 1970"
    nib.save(image, tmp_path / "scan.nii")
    write_mask(tmp_path / "mask.nii", np.zeros(SHAPE, np.uint8), read_header(tmp_path / "scan.nii"))
    assert b"JANE" not in (tmp_path / "mask.nii").read_bytes()


def test_compressed_masks_are_the_same_bytes_each_time(tmp_path):
    scan = read_header(write_scan(tmp_path / "scan.nii.gz"))
    for name in ("a", "b"):
        write_mask(tmp_path / name / "mask.nii.gz", np.ones(SHAPE, np.uint8), scan)
    assert (tmp_path / "a/mask.nii.gz").read_bytes() == (tmp_path / "b/mask.nii.gz").read_bytes()


def test_scaled_integers_are_read_as_they_mean(tmp_path):
    image = nib.Nifti1Image(np.arange(315, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nib.save(image, tmp_path / "scan.nii.gz")
    assert np.array_equal(
        read_volume(tmp_path / "scan.nii.gz").array, nib.load(tmp_path / "scan.nii.gz").get_fdata()
    )


def test_metres_become_millimetres(tmp_path):
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([0.001, 0.001, 0.005, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii")
    assert read_header(tmp_path / "scan.nii").spacing_mm == pytest.approx((1, 1, 5))


def test_truncated_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 999, (40, 40, 40)).astype(np.int16)
    whole = write_scan(tmp_path / "whole.nii.gz", noise).read_bytes()
    (tmp_path / "short.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "short.nii").write_bytes(gzip.decompress(whole)[:5000])
    for name in ("short.nii.gz", "short.nii"):
        with pytest.raises(DataError, match=rf"{name}.*truncated or corrupt") as caught:
            read_volume(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)


def test_what_nibabel_mends_in_a_header_is_not_logged(tmp_path, caplog):
    whole = bytearray(write_scan(tmp_path / "scan.nii").read_bytes())
    whole[252:254] = (-5).to_bytes(2, "little", signed=True)  # the qform's code
    (tmp_path / "scan.nii").write_bytes(whole)
    assert read_header(tmp_path / "scan.nii").nifti["qform_code"] == 0
    assert caplog.records == []


@pytest.mark.filterwarnings("error")
def test_values_beyond_a_type_raise_no_warning(tmp_path):
    stored = StoredVoxels(np.full(SHAPE, 1e300), slope=1e30)
    assert np.isinf(stored.values()).all()
    write_scan(tmp_path / "label.nii", np.full(SHAPE, 1e30, np.float32))
    with pytest.raises(DataError, match="not whole numbers"):
        read_label(tmp_path / "label.nii")


def test_files_that_are_not_nifti_are_named(tmp_path):
    (tmp_path / "text.nii.gz").write_text("hello")
    with pytest.raises(DataError, match=r"text\.nii\.gz"):
        read_header(tmp_path / "text.nii.gz")
    with pytest.raises(DataError, match="no such file"):
        read_header(tmp_path / "none.nii.gz")


def test_names_must_say_whether_a_file_is_compressed(tmp_path):
    packed = write_scan(tmp_path / "packed.nii.gz").read_bytes()
    (tmp_path / "packed.nii").write_bytes(packed)
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(packed))
    with pytest.raises(DataError, match=r"packed\.nii: .*its name does not end in \.gz"):
        read_header(tmp_path / "packed.nii")
    with pytest.raises(DataError, match=r"plain\.nii\.gz: .*it is not compressed"):
        read_header(tmp_path / "plain.nii.gz")


def test_pairs_of_files_are_read_by_either_name(tmp_path):
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Pair(array, oblique_affine()), tmp_path / "x.hdr")
    for name in ("x.hdr", "x.img"):
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.array, array)
        assert np.allclose(volume.affine, oblique_affine())
    (tmp_path / "x.img").unlink()
    with pytest.raises(DataError, match="No such file") as caught:
        read_volume(tmp_path / "x.hdr")
    assert str(tmp_path) not in str(caught.value)


def test_the_cap_on_memory_holds_wherever_a_file_is_read(tmp_path, monkeypatch):
    scan = write_scan(tmp_path / "scan.nii.gz")
    monkeypatch.setenv("MEDUNET_MAX_VOLUME_GB", "5e-7")
    with pytest.raises(DataError, match=r"6\.3e-07 GB, more than the limit of 5e-07 GB"):
        read_volume(scan)
    monkeypatch.setenv("MEDUNET_MAX_VOLUME_GB", "much")
    with pytest.raises(InputError, match="MEDUNET_MAX_VOLUME_GB: 'much' is not a positive number"):
        read_volume(scan)


def test_labels_must_be_whole_numbers(tmp_path):
    write_scan(tmp_path / "soft.nii", np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(DataError, match="nearest-neighbour"):
        read_label(tmp_path / "soft.nii")
    write_scan(tmp_path / "float.nii", np.full(SHAPE, 2.0, np.float32))
    assert read_label(tmp_path / "float.nii").array.dtype == np.uint8
    write_scan(tmp_path / "large.nii", np.full(SHAPE, 1000, np.int16))
    assert read_label(tmp_path / "large.nii").array.max() == 1000


def test_channels_come_from_files_or_from_the_frames_of_one(tmp_path):
    frames = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
    four = write_scan(tmp_path / "four.nii", frames)
    single = [write_scan(tmp_path / f"{i}.nii", frames[..., i]) for i in range(2)]
    assert np.array_equal(read_channels([four, four]).array, read_channels(single).array)
    with pytest.raises(DataError, match="3 channel"):
        read_channels([four] * 3)
    other = write_scan(tmp_path / "other.nii", np.zeros((7, 9, 6), np.int16))
    with pytest.raises(DataError, match="Register the modalities"):
        read_channels([single[0], other])


def test_ras_order_keeps_every_voxel_where_it_is():
    array = np.random.default_rng(0).normal(size=(1, *SHAPE))
    affine = oblique_affine()
    turned, new = to_ras(array, affine)
    assert axis_codes(affine) == "LPS"
    assert axis_codes(new) == "RAS"
    index = np.array([2, 3, 4])
    world = nib.affines.apply_affine(affine, index)
    there = np.round(nib.affines.apply_affine(np.linalg.inv(new), world)).astype(int)
    assert turned[(0, *there)] == array[(0, *index)]


def test_geometry_measures():
    affine = oblique_affine()
    shifted = affine.copy()
    shifted[:3, 3] += (3, 4, 0)
    assert corner_displacement_mm(SHAPE, affine, shifted) == pytest.approx(5)
    assert shear_degrees(affine) == pytest.approx(0, abs=1e-5)
    sheared = np.eye(4)
    sheared[0, 2] = np.tan(np.deg2rad(10))
    assert shear_degrees(sheared) == pytest.approx(10)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_volume_is_written_byte_for_byte_as_by_nibabel(tmp_path, monkeypatch, dtype, order, name):
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 300)  # several slabs, the last one smaller
    monkeypatch.setattr(nifti, "_BLOCK", 256)
    array = np.random.default_rng(1).integers(0, 200, SHAPE).astype(dtype, order=order)
    write_volume(tmp_path / name, array, oblique_affine())
    image = nib.Nifti1Image(array, oblique_affine())
    image.header.set_xyzt_units("mm")
    image.set_sform(oblique_affine(), 1)
    image.set_qform(oblique_affine(), 1, strip_shears=True)
    nib.save(image, tmp_path / "theirs.nii")
    written = (tmp_path / name).read_bytes()
    unpacked = gzip.decompress(written) if name.endswith(".gz") else written
    assert unpacked == (tmp_path / "theirs.nii").read_bytes()
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))).T, array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mask_is_compressed_to_the_same_bytes_by_any_number_of_threads(tmp_path, monkeypatch, order):
    mask = np.zeros((64, 80, 900), np.uint8, order=order)
    mask[9:50, 20:60, 100:800] = np.random.default_rng(0).integers(0, 3, (41, 40, 700))
    scan = read_header(write_scan(tmp_path / "scan.nii.gz", np.zeros(mask.shape, np.int16)))
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        write_mask(tmp_path / f"{threads}.nii.gz", mask, scan)
    written = (tmp_path / "1.nii.gz").read_bytes()
    assert (tmp_path / "2.nii.gz").read_bytes() == (tmp_path / "5.nii.gz").read_bytes() == written
    assert written[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"  # no name, no time
    subprocess.run(["gzip", "-t", tmp_path / "1.nii.gz"], check=True)
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "theirs.nii.gz")
    assert len(written) < (tmp_path / "theirs.nii.gz").stat().st_size
    assert np.array_equal(np.asarray(nib.load(tmp_path / "1.nii.gz").dataobj), mask)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "1.nii.gz"))).T, mask)


def test_a_mask_is_written_without_a_second_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 1 << 20)
    mask = np.zeros((200, 300, 400), np.uint8)
    scan = read_header(write_scan(tmp_path / "scan.nii.gz", np.zeros(mask.shape, np.int8)))
    tracemalloc.start()
    write_mask(tmp_path / "mask.nii.gz", mask, scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak > mask.nbytes / 1000  # what is allocated is seen
    assert peak < mask.nbytes / 2


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def fill_up(*args, **keys):
        raise OSError(errno.ENOSPC, "No space left on device")

    scan = read_header(write_scan(tmp_path / "scan.nii.gz"))
    monkeypatch.setattr(nifti.igzip_threaded._ThreadedGzipWriter, "write", fill_up)
    with pytest.raises(InputError, match="No space left"):
        write_mask(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8), scan)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]
