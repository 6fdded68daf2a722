"""A scan is prepared in place, in parts and in threads: the same network input as by whole arrays, in less memory."""

import itertools
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.spatial.dictionary import Orientationd

from medunet.imaging import volume, volumes
from medunet.imaging.volume import Header, StoredVoxels, Volume
from medunet.imaging.volumes import join_channels
from medunet.records.plan import Intensity
from medunet.transforms import chain
from medunet.transforms.chain import OrientInPlaced, flip_in_place, normalise, preprocess_chain, run_chain

TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
CT = Intensity(scheme="ct", clip_low=-100, clip_high=300, mean=33.3, std=61.7)


def turned_affine(order: tuple[int, ...], signs: tuple[int, ...], degrees: float = 0.0) -> np.ndarray:
    """An affine whose axes run along the world's in this order and direction, then tilted."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * (0.7, 1.1, 2.5)[axis]
    angle = np.deg2rad(degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine[:3, :3] = tilt @ affine[:3, :3]
    affine[:3, 3] = (11, -20, 30)
    return affine


def normalise_whole(channel: torch.Tensor, intensity: Intensity) -> None:
    """Normalise a channel as up to 0.7: with masks and copies of the whole volume."""
    if intensity.scheme == "ct":
        channel.clamp_(intensity.clip_low, intensity.clip_high)
        channel.sub_(intensity.mean).div_(max(intensity.std or 0, 1e-8))
        return
    inside = channel != 0 if intensity.scheme == "zscore_nonzero" else torch.ones_like(channel, dtype=bool)
    values = channel[inside]
    if values.numel():
        channel.sub_(values.mean()).div_(values.std(correction=0).clamp_min(1e-8))
        channel[~inside] = 0


@pytest.mark.parametrize(("order", "signs"), TURNS)
@pytest.mark.parametrize("layout", ["C", "F"])
def test_flips_in_place_are_monais_with_its_trace(order, signs, layout) -> None:
    affine = turned_affine(order, signs, 9.0)
    array = np.random.default_rng(0).random((2, 5, 4, 3)).astype(np.float32)
    if layout == "F":
        array = np.moveaxis(np.asfortranarray(np.moveaxis(array, 0, 3)), 3, 0)

    def load() -> dict:
        copy = torch.from_numpy(array.copy(order="K"))
        return {"image": MetaTensor(copy, affine=torch.from_numpy(affine), meta={"file": "x"})}

    want = Orientationd("image", axcodes="RAS", labels=None)(load())["image"]
    orient, case = OrientInPlaced("image", axcodes="RAS", labels=None), load()
    got = orient(case)["image"]
    assert torch.equal(got.as_tensor(), want.as_tensor())
    assert torch.equal(got.affine, want.affine)
    assert got.as_tensor().data_ptr() == case["image"].as_tensor().data_ptr()  # no second array
    (ours,), (theirs,) = got.applied_operations, want.applied_operations
    assert str({**ours, "id": 0}) == str({**theirs, "id": 0})
    back = orient.inverse({"image": got})["image"]
    assert np.array_equal(back.numpy(), array)
    assert np.allclose(back.affine, affine)


@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sets(st.integers(0, 2)),
    st.sampled_from(["C", "F"]),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_flips_of_any_shape(shape, axes, layout, cropped) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape).copy(order=layout)
    array = array[:, shape[1] // 2 :] if cropped else array
    want = np.flip(array, tuple(axes)).copy()
    flip_in_place(array, sorted(axes))
    assert np.array_equal(array, want)


@given(
    st.sampled_from(["int16", "uint8", "float32", "float64", "int32", "uint16"]),
    st.sampled_from([(1.0, 0.0), (2.5, -1024.0), (1.0, 7.0), (0.1, 0.3)]),
    st.sampled_from(["C", "F", "strided"]),
)
@settings(max_examples=60, deadline=None)
def test_values_in_parts_equal_those_of_nibabel(dtype, scaling, layout) -> None:
    array = np.random.default_rng(0).integers(0, 250, (7, 5, 4, 2)).astype(dtype)
    array = array[::2] if layout == "strided" else array.copy(order=layout)
    want = nib.volumeutils.apply_read_scaling(array, *map(np.float64, scaling)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volume, "_PART", 17)
        got = StoredVoxels(array, *scaling).values()
    assert got.dtype == np.float32
    assert np.array_equal(got, want)


@pytest.mark.parametrize("scheme", ["ct", "zscore", "zscore_nonzero"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_normalising_in_parts(monkeypatch, scheme, layout) -> None:
    monkeypatch.setattr(chain, "_PART", 100)
    intensity = CT if scheme == "ct" else Intensity(scheme=scheme)
    values = np.random.default_rng(0).normal(1000, 200, (13, 9, 11)).astype(np.float32)
    values[np.random.default_rng(1).random(values.shape) < 0.4] = 0
    got, want = torch.from_numpy(values.copy(order=layout)), torch.from_numpy(values.copy())
    normalise(got, intensity)
    normalise_whole(want, intensity)
    if scheme == "ct":
        assert torch.equal(got, want)
    else:  # statistics are summed in float64
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-6)
        assert torch.equal(got == 0, want == 0) or scheme == "zscore"
    empty = torch.zeros(3, 4, 5)
    normalise(empty, Intensity(scheme="zscore_nonzero"))
    assert not empty.any()


@pytest.mark.parametrize(("order", "signs"), TURNS[5:48:6])
@pytest.mark.parametrize("kind", ["int16", "uint8", "float32", ">i2", "scaled", "4d", "two files"])
def test_the_whole_chain_gives_the_same_input(tmp_path, tiny_plan, order, signs, kind) -> None:
    affine = turned_affine(order, signs, 4.0)
    rng = np.random.default_rng(3)
    shape = (17, 14, 11, 2) if kind == "4d" else (17, 14, 11)
    names = {"4d": ["a.nii.gz"] * 2, "two files": ["a.nii.gz", "b.nii.gz"]}.get(kind, ["a.nii.gz"])
    for name in set(names):
        stored = rng.integers(0, 250, shape).astype(kind if kind[-1].isdigit() else "int16")
        image = nib.Nifti1Image(stored.astype(stored.dtype.newbyteorder("=")), affine)
        if kind == ">i2":
            image = nib.Nifti1Image(stored, affine, nib.Nifti1Header(endianness=">"))
            image.set_data_dtype(">i2")
        if kind == "scaled":
            image.header.set_slope_inter(1.7, -40.0)
        nib.save(image, tmp_path / name)
    paths = [tmp_path / name for name in names]
    intensities = {f"channel {n}": CT for n in range(len(paths))}
    plan = tiny_plan.model_copy(update={"intensities": intensities, "spacing_mm": (1.3, 1.6, 1.9)})
    steps = preprocess_chain(plan, with_label=False)
    got = run_chain(steps, paths)["image"]

    frames = []
    for path in dict.fromkeys(paths):
        values = np.asarray(nib.load(path).dataobj, np.float64).astype(np.float32)
        frames += list(np.moveaxis(values, 3, 0)) if values.ndim == 4 else [values]
    whole = {"image": MetaTensor(torch.from_numpy(np.stack(frames)), affine=torch.from_numpy(affine))}
    whole = Orientationd("image", axcodes="RAS", labels=None)(whole)
    for channel, intensity in zip(whole["image"].as_tensor(), intensities.values(), strict=True):
        normalise_whole(channel, intensity)
    want = Compose(steps.transforms[-1:])(whole)["image"]
    assert torch.equal(got.as_tensor(), want.as_tensor())
    assert torch.allclose(got.affine, want.affine)


def test_channels_of_one_file_are_not_copied_and_those_of_several_one_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(volumes, "describe_other_grid", lambda header, first: "")
    header = Header(volumes.Path("x"), (40, 50, 60), np.eye(4), np.dtype(np.float32))
    one = Volume(np.ones((40, 50, 60), np.float32), header)
    assert np.shares_memory(join_channels([(one, 1)]).array, one.array)

    def read():
        for number in range(8):
            yield Volume(np.full((40, 50, 60), number, np.float32, order="F"), header), 1

    tracemalloc.start()
    joined = join_channels(read()).array
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert joined[:, 1, 2, 3].tolist() == list(range(8))
    assert joined.nbytes <= peak < 2.2 * joined.nbytes
