"""Sliding-window prediction of whole volumes: overlapping windows with Gaussian weights, or overlap-tiles.

B batch, C channels, I J K voxels; a 2D network's batch holds slices.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product

import torch
import torch.nn.functional as F
from monai.inferers.utils import sliding_window_inference

from medunet.inference.backend import Backend
from medunet.networks.builder import to_probabilities
from medunet.records.description import Description
from medunet.records.plan import Plan
from medunet.transforms.augment import BODY_AXES
from medunet.transforms.patches import mirrored_index

_BATCH = 4  # windows or slices per batch

Forward = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def predict_probabilities(
    backend: Backend,
    image: torch.Tensor,
    plan: Plan,
    description: Description,
    *,
    overlap: float = 0.5,
    mirror: Sequence[str] = (),
    shifts: int = 1,
) -> torch.Tensor:
    """Return float32 probabilities `(C, I, J, K)` on the CPU for a preprocessed image `(C, I, J, K)`.

    Windows have the plan's patch size; they are blended with Gaussian weights with a sigma of an eighth of the patch
    (by MONAI, as in nnU-Net). A volume that fits one window is predicted once, without blending. Unpadded networks
    are applied to tiles without overlap (`_predict_tiles`), 2D networks slice by slice along `plan.slice_axis`, each
    with its `plan.context_slices`.

    Args:
        overlap: of neighbouring windows, as a share of the patch.
        mirror: body axes by name. Probabilities are averaged over the volume and its mirror images along each
            combination of these axes; the network must have been trained with the same mirroring.
        shifts: probabilities are averaged over that many shifts of the volume by less than the network's stride
            (see `_make_shifts`), which reduces the dependence of the prediction on the pooling grid.
    """

    def forward(window: torch.Tensor) -> torch.Tensor:
        return backend.forward(window.to(backend.device))

    def predict(images: torch.Tensor) -> torch.Tensor:
        if any(plan.valid_margin):
            return _predict_tiles(images, forward, plan)
        return _predict_windows(images, forward, plan, overlap, backend.device)

    def predict_volume(volume: torch.Tensor) -> torch.Tensor:
        if plan.dimensions == 3:
            logits = predict(volume[None])[0]
        else:
            slices = volume.movedim(1 + plan.slice_axis, 0)
            batches = torch.arange(len(slices)).split(_BATCH)
            parts = [predict(with_neighbours(slices, batch, plan.context_slices)) for batch in batches]
            logits = torch.cat(parts).movedim(0, 1 + plan.slice_axis)
        return to_probabilities(logits, description, channel_axis=0)

    def predict_shifted(volume: torch.Tensor) -> torch.Tensor:
        offsets = _make_shifts(plan, shifts)
        total = torch.zeros(())
        for offset in offsets:
            pads = [
                number for low in reversed(offset) for number in (low, 0)
            ]  # torch pads the last axis first
            moved = F.pad(volume[None], pads, mode="replicate")[0] if any(offset) else volume
            total = total + predict_volume(moved)[:, *(slice(low, None) for low in offset)]
        return total / len(offsets)

    axes = [1 + BODY_AXES.index(name) for name in mirror]
    flips = [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]
    total = predict_shifted(image)
    for chosen in flips[1:]:
        total += predict_shifted(image.flip(chosen)).flip(chosen)
    return total / len(flips)


def _make_shifts(plan: Plan, count: int) -> list[tuple[int, int, int]]:
    """Return `count` shifts of a volume `(I, J, K)` in voxels, evenly spaced within the total stride of each axis.

    Cycle spinning (Coifman and Donoho, 1995) along the diagonal: 8 shifts of a network that halves three times cover
    each position along an axis once. A 2D network's volume is not shifted along the slice axis.
    """
    if count == 1:
        return [(0, 0, 0)]
    periods = [math.prod(strides) for strides in zip(*plan.strides, strict=True)]
    if plan.dimensions == 2:
        periods.insert(plan.slice_axis, 1)
    first, second, third = periods
    return [(n * first // count, n * second // count, n * third // count) for n in range(count)]


def with_neighbours(slices: torch.Tensor, chosen: torch.Tensor, context_slices: int) -> torch.Tensor:
    """Return the chosen slices of all slices `(S, C, I, J)`, each with its neighbouring slices as channels.

    The result is `(len(chosen), C · context_slices, I, J)` in the order of `sample_patch`: all slices of channel 0,
    then of channel 1, and so on; border slices are repeated.
    """
    offsets = torch.arange(context_slices) - context_slices // 2
    index = (chosen[:, None] + offsets).clamp(0, len(slices) - 1).to(slices.device)
    return slices[index].transpose(1, 2).flatten(1, 2)


def _predict_windows(
    images: torch.Tensor, forward: Forward, plan: Plan, overlap: float, device: torch.device
) -> torch.Tensor:
    """Return logits `(B, C, I, J[, K])` on the CPU for at most `_BATCH` images of any size."""
    size = images.shape[2:]
    if all(length <= n for length, n in zip(size, plan.patch_size, strict=True)):
        missing = [n - length for length, n in zip(size, plan.patch_size, strict=True)]
        before = [number // 2 for number in missing]
        pads = [side for low, number in zip(before, missing, strict=True) for side in (number - low, low)]
        padded = F.pad(images, pads[::-1], mode="replicate")  # torch pads the last axis first
        box = (slice(low, low + length) for low, length in zip(before, size, strict=True))
        return forward(padded)[:, :, *box].cpu()
    logits = sliding_window_inference(
        inputs=images,
        roi_size=plan.patch_size,
        sw_batch_size=_BATCH,
        predictor=forward,
        overlap=overlap,
        mode="gaussian",
        sigma_scale=0.125,
        padding_mode="replicate",  # as patches are cut in training
        sw_device=device,
        device=torch.device("cpu"),
    )
    assert isinstance(logits, torch.Tensor)
    return logits


def _predict_tiles(images: torch.Tensor, forward: Forward, plan: Plan) -> torch.Tensor:
    """Return an unpadded network's logits `(B, C, I, J[, K])` on the CPU by the overlap-tile strategy.

    Ronneberger et al., "U-Net" (2015), figure 2: output tiles do not overlap, and each is predicted from a larger
    input tile that is mirrored beyond the image's borders (see `mirrored_index`). If an output tile is at least as
    large as the total stride, tiles start at multiples of it, so that pooling uses the same grid in every tile:
    without instance or group norm the result equals one pass over the whole mirrored image.
    """
    size, outputs, margins = images.shape[2:], plan.output_size, plan.valid_margin
    divisors = [math.prod(strides) for strides in zip(*plan.strides, strict=True)]
    steps = [n // divisor * divisor or n for n, divisor in zip(outputs, divisors, strict=True)]
    starts = [
        range(0, max(length - n, 0) + step, step)
        for length, n, step in zip(size, outputs, steps, strict=True)
    ]
    logits: torch.Tensor | None = None
    for corner in product(*starts):
        tile = images
        for axis, (start, margin) in enumerate(zip(corner, margins, strict=True)):
            index = mirrored_index(start - margin, plan.patch_size[axis], size[axis])
            tile = tile.index_select(2 + axis, torch.from_numpy(index).to(tile.device))
        part = forward(tile).cpu()
        if logits is None:
            logits = part.new_empty((*part.shape[:2], *size))
        place = (slice(start, start + n) for start, n in zip(corner, outputs, strict=True))
        inside = (slice(length - start) for start, length in zip(corner, size, strict=True))
        logits[:, :, *place] = part[:, :, *inside]  # the last tiles extend beyond the image
    assert logits is not None
    return logits


def to_label_map(probabilities: Iterable[torch.Tensor], description: Description) -> torch.Tensor:
    """Return the uint8 label map: the most probable label, or regions above 0.5, later ones overwriting earlier ones.

    `probabilities` yields the channels one by one, or is a tensor of all of them; only one channel and the maximum
    are in memory at a time. The result is on the same device.
    """
    channels = iter(probabilities)
    best = torch.tensor(0.5) if description.regions else next(channels)
    labels: torch.Tensor | None = None
    for channel, value in zip(channels, description.written_values.values(), strict=True):
        wins = channel > best
        labels = torch.zeros_like(channel, dtype=torch.uint8) if labels is None else labels
        labels[wins] = value
        if not description.regions:
            best = torch.where(wins, channel, best)
    assert labels is not None
    return labels
