"""Deterministic MONAI preprocessing from a case's files to network input, and its inverse for predictions.

Files are loaded by `medunet.imaging.volumes`. Orientation and cropping are MONAI's, which records each operation, so
that a prediction is mapped back to the scan's grid by the exact inverse.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import CropForegroundd
from monai.transforms.post.dictionary import Invertd
from monai.transforms.spatial.dictionary import Orientationd, Resized, Spacingd
from monai.transforms.transform import MapTransform
from monai.transforms.utility.dictionary import EnsureTyped
from numpy.typing import NDArray

from medunet.base.errors import DataError, MedunetError
from medunet.base.threads import map_threads, slices
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import read_channels, read_label
from medunet.records.label_rules import LabelRules
from medunet.records.plan import Intensity, Plan
from medunet.transforms.resampling import ResampleToPland

_PART = 1 << 20  # voxels that are normalised together
_SLICES = 16  # flipped together


class LoadCased(MapTransform):
    """Read "image" (list of channel paths) and "label" (path) into MetaTensors `(C, I, J, K)` with affines.

    A function "read" reads the image instead. It is called here, so that nothing else keeps the array it returns,
    which later steps change in place.
    """

    def __init__(self, keys: list[str], rules: LabelRules | None = None) -> None:
        super().__init__(keys)
        self.rules = rules

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        path = case["image"][0]
        read = case.pop("read", None)
        image = read() if read else read_channels(case["image"], resample=case["resample"])
        # One colour of a stained 2D picture may be empty; an empty channel of a scan is a failed export.
        channels = [image.array] if image.header.is_picture else list(image.array)
        ranges = np.array([(channel.min(), channel.max()) for channel in channels])
        if not np.isfinite(ranges).all():
            raise DataError("has NaN or infinite voxels", where=path.name, hint="Export the scan again.")
        if (ranges[:, 0] == ranges[:, 1]).any():
            raise DataError("all voxels have the same value", where=path.name, hint="Export the scan again.")
        case["image"] = MetaTensor(torch.from_numpy(image.array), affine=torch.from_numpy(image.affine))
        if "label" in self.keys:
            name = case["label"].name
            label = read_label(case["label"], self.rules)
            if label.array.dtype != np.uint8:
                raise DataError("label values above 255", where=name, hint="Run the check again.")
            array = torch.from_numpy(np.ascontiguousarray(label.array))[None]
            # The data check ensures that label and image share a grid to within a fraction of a voxel.
            meta = {"file": name, "values": label_values(array)}
            case["label"] = MetaTensor(array, affine=torch.from_numpy(image.affine), meta=meta)
        return case


class OrientInPlaced(Orientationd):
    """MONAI's `Orientationd`, but axes are flipped in place, without a second array."""

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        case = dict(data)
        axes = nib.orientations.axcodes2ornt(self.ornt_transform.axcodes)
        for key in self.keys:
            volume = case[key]
            affine, array = volume.affine.numpy(), volume.as_tensor()
            steps = nib.orientations.ornt_transform(nib.io_orientation(affine), axes)
            for channel in array.numpy():
                flip_in_place(channel, np.flatnonzero(steps[:, 1] < 0).tolist())
            to_old = nib.orientations.inv_ornt_aff(steps, array.shape[1:])
            array = array.permute(0, *(1 + np.argsort(steps[:, 0])).tolist())
            turned = MetaTensor(array, meta=volume.meta)
            turned.applied_operations = volume.applied_operations
            case[key] = self.ornt_transform.push_transform(
                turned,
                orig_size=tuple(volume.shape[1:]),
                sp_size=tuple(array.shape[1:]),
                affine=torch.from_numpy(to_old),
                extra_info={"original_affine": affine},
            )
        return case


def flip_in_place(volume: NDArray[Any], axes: Sequence[int]) -> None:
    """Flip axes of a volume `(I, J, K)` in place, slice by slice along its slowest axis."""
    slow = _slowest_axis(volume)
    frames = np.moveaxis(volume, slow, 0)
    flip = tuple(slice(None, None, -1 if axis in axes else 1) for axis in range(3) if axis != slow)

    def turn(part: slice) -> None:
        for number in range(part.start, part.stop):
            flipped = frames[number][flip].copy(order="K")
            if slow in axes:
                frames[number] = frames[-1 - number][flip]
                frames[-1 - number] = flipped
            else:
                frames[number] = flipped

    if axes:
        map_threads(turn, slices((len(frames) + 1) // 2 if slow in axes else len(frames), _SLICES))


class NormaliseIntensityd(MapTransform):
    """Normalise each channel of "image" by the plan: CT by clipping and foreground statistics, others by z-score."""

    def __init__(self, intensities: Mapping[str, Intensity]) -> None:
        super().__init__(["image"])
        self.intensities = dict(intensities)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        image = case["image"]
        for channel, intensity in zip(image.as_tensor(), self.intensities.values(), strict=True):
            normalise(channel, intensity)
        return case


def normalise(channel: torch.Tensor, intensity: Intensity) -> None:
    """Normalise one float32 channel `(I, J, K)` in place; statistics are summed in float64."""
    parts = _along_memory(channel.numpy())
    if intensity.scheme == "ct":
        _clip(parts, intensity)
    else:
        _standardise(parts, nonzero=intensity.scheme == "zscore_nonzero")


def _clip(parts: list[NDArray[np.float32]], intensity: Intensity) -> None:
    assert intensity.mean is not None
    assert intensity.std is not None
    mean, std = np.float32(intensity.mean), np.float32(max(intensity.std, 1e-8))

    def clip(part: NDArray[np.float32]) -> None:
        np.clip(part, intensity.clip_low, intensity.clip_high, out=part)
        np.divide(np.subtract(part, mean, out=part), std, out=part)

    map_threads(clip, parts)


def _standardise(parts: list[NDArray[np.float32]], *, nonzero: bool) -> None:
    count = sum(map_threads(np.count_nonzero, parts)) if nonzero else sum(part.size for part in parts)
    if not count:
        return
    mean = sum(map_threads(lambda part: float(part.sum(dtype=np.float64)), parts)) / count

    def sum_squares(part: NDArray[np.float32]) -> float:
        deviations = part - np.float64(mean)
        return float(np.square(deviations, out=deviations).sum(where=part != 0 if nonzero else True))

    std = np.float32(max(math.sqrt(sum(map_threads(sum_squares, parts)) / count), 1e-8))

    def scale(part: NDArray[np.float32]) -> None:
        outside = part == 0 if nonzero else None
        np.divide(np.subtract(part, np.float32(mean), out=part), std, out=part)
        if outside is not None:
            part[outside] = 0

    map_threads(scale, parts)


def _slowest_axis(volume: NDArray[Any]) -> int:
    """Return the axis along which neighbours are furthest apart in memory."""
    return max(range(3), key=lambda axis: (volume.shape[axis] > 1, abs(volume.strides[axis])))


def _along_memory(volume: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the parts of a volume `(I, J, K)` along its slowest axis, small enough for the processor's cache."""
    frames = np.moveaxis(volume, _slowest_axis(volume), 0)
    length = max(1, _PART // max(1, frames[:1].size))
    return [frames[part] for part in slices(len(frames), length)]


def not_zero(image: torch.Tensor) -> torch.Tensor:
    """Return a mask of the nonzero voxels, for cropping."""
    return image != 0


def label_values(label: torch.Tensor) -> list[int]:
    """Return the distinct values of a uint8 label map in ascending order."""
    return torch.bincount(label.flatten(), minlength=256).nonzero().flatten().tolist()


class CheckLabeld(MapTransform):
    """Check that "label" has no values that its file does not have, as after interpolation."""

    def __init__(self) -> None:
        super().__init__(["label"])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        label = data["label"]
        check_label_values(label.as_tensor(), label.meta["values"], label.meta["file"])
        return dict(data)


def check_label_values(label: torch.Tensor, values: list[int], file: str) -> None:
    """Check that a resampled label map has no values that its file does not have.

    Raises:
        DataError: it has new values, as after linear interpolation; names the file and the values.
    """
    rounded = label.to(torch.uint8)
    whole = bool((rounded == label).all())
    found = label_values(rounded) if whole else label.unique().tolist()
    if new := [value for value in found if value not in values]:
        shown = ", ".join(f"{value:g}" for value in new[:5]) + (", ..." if len(new) > 5 else "")
        raise DataError(
            f"preprocessing added the values {shown} to the label; its file has {values}",
            where=file,
            hint="Resample labels by nearest neighbour, not by linear interpolation.",
        )


def preprocess_chain(
    plan: Plan,
    *,
    with_label: bool,
    rules: LabelRules | None = None,
) -> Compose:
    """Return the preprocessing chain: load, orient, crop to nonzero, normalise, resample to the plan's grid.

    The result holds "image" float32 `(C, I, J, K)` and, with `with_label`, "label" `(1, I, J, K)` with values of the
    label's file only, which is read by `rules`. See `ResampleToPland` for the resampling;
    plans up to 0.4.0 have the grid "first_voxel" and are resampled as in that version.
    """
    keys = ["image", "label"] if with_label else ["image"]
    steps: list[Any] = [
        LoadCased(keys, rules),
        OrientInPlaced(keys, axcodes=plan.orientation, labels=None),
    ]
    if plan.crop_nonzero:
        steps.append(CropForegroundd(keys, source_key="image", select_fn=not_zero, allow_smaller=True))
    steps += [NormaliseIntensityd(plan.intensities), *_resample(plan, keys)]
    if with_label:
        steps.append(CheckLabeld())
    return Compose(steps)


def _resample(plan: Plan, keys: list[str]) -> list[MapTransform]:
    """Return the resampling transforms; for the grid "first_voxel" MONAI's, with nearest-neighbour labels."""
    if plan.grid == "extent":
        return [ResampleToPland(keys, plan)]
    steps: list[MapTransform] = [EnsureTyped("label", dtype=torch.float32)] if "label" in keys else []
    if plan.resize_to is None:
        spacing = list(plan.spacing_mm)
        if plan.dimensions == 2:
            spacing[plan.slice_axis] = -1.0  # MONAI: keep the scan's own
        modes = ["bilinear", "nearest"][: len(keys)]
        steps.append(Spacingd(keys, pixdim=spacing, mode=modes, padding_mode="border", dtype=np.float32))
        return steps
    size = list(plan.resize_to)
    size.insert(plan.slice_axis, -1)  # MONAI: keep the scan's own
    resize = Resized(
        keys,
        spatial_size=size,
        mode=["trilinear", "nearest-exact"][: len(keys)],  # "nearest" would be shifted by half a voxel
        align_corners=[False, None][: len(keys)],
        anti_aliasing=[True, False][: len(keys)],
    )
    return [*steps, resize]


def run_chain(
    chain: Compose,
    image_paths: list[Path],
    label_path: Path | None = None,
    *,
    resample: bool = False,
    read: Callable[[], Volume] | None = None,
) -> dict[str, Any]:
    """Run the preprocessing chain on one case's files; `resample` is that of `read_channels`.

    `read` reads the image in place of `read_channels`.

    Raises:
        DataError: a file cannot be read or used.
    """
    case: dict[str, Any] = {"image": image_paths, "resample": resample, "read": read}
    if label_path is not None:
        case["label"] = label_path
    try:
        return chain(case)
    except RuntimeError as error:  # MONAI wraps what a transform raises
        cause = error.__cause__ or error
        if isinstance(cause, MedunetError):
            raise cause from None
        raise DataError(f"cannot be preprocessed ({cause})", where=image_paths[0].name) from error


def restore_probabilities(
    probabilities: torch.Tensor, case: dict[str, Any], chain: Compose
) -> Iterator[torch.Tensor]:
    """Resample probabilities `(C, I, J, K)` to the scan's own grid and axis order; yield the channels `(I, J, K)`.

    `case` is the result of `run_chain`. Interpolation is trilinear; voxels that were cropped away become 0.
    """
    invert = Invertd("channel", transform=chain, orig_keys="image", nearest_interp=False)
    for channel in probabilities:
        tensor = MetaTensor(channel[None].float().cpu())
        yield invert({"image": case["image"], "channel": tensor})["channel"].as_tensor()[0]
