"""nnU-Net's own rules of prediction, kept in the model card of a model that was imported from it.

Axes are those of a scan's array `(I, J, K)` as its file stores it or, with `reorient`, as it is in RAS+ orientation.
"""

from typing import Literal

from medunet.base.record import Record


class Normalisation(Record):
    """How one channel is normalised, on the scan's own voxels, before it is resampled."""

    scheme: Literal["zscore", "ct", "none", "rescale_to_0_1", "rgb_to_0_1"]
    inside_only: bool = False  # z-score over the nonzero region, holes filled; outside stays 0
    clip_low: float | None = None  # this and the following: of scheme ct
    clip_high: float | None = None
    mean: float | None = None
    std: float | None = None


class Resampling(Record):
    """How voxels are resampled between the scan's grid and the network's.

    Along a coarse axis they are resampled separately, by the nearest slice: with `separate` "auto" where the voxel
    sizes on either grid differ by more than `anisotropy`.
    """

    order: int  # of the spline: 0, 1 or 3
    clipped: bool = True  # to the range of the values before (of each slice where slices are separate)
    separate: Literal["auto", "always", "never"] = "auto"
    anisotropy: float = 3.0
    kept: bool = False  # nothing is resampled: the network computes on the scan's grid


class PreviousStage(Record):
    """The model whose masks a cascade's network gets as further input channels, one for each label."""

    labels: tuple[int, ...]
    resampling: Resampling  # of its masks
    weights_sha256: dict[str, str]  # by fold


class NnunetRules(Record):
    """What nnU-Net does differently from medunet.

    Besides: windows lie evenly spaced and have nnU-Net's Gaussian weights, scans smaller than the patch are padded
    with zeros, and logits rather than probabilities are averaged over mirror images and folds, and resampled.
    """

    configuration: str
    trainer: str
    reorient: bool = False  # to RAS+ orientation first; otherwise axes are the file's
    normalisation: tuple[Normalisation, ...]  # by channel
    image: Resampling
    logits: Resampling
    previous: PreviousStage | None = None
