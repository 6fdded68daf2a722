"""Defaults and options of each network, as needed for planning, without building the network.

The numbers are those published by the networks' authors: nnU-Net 2 and its ResEnc presets, Ronneberger et al. 2015,
and MONAI's defaults. nnU-Net's planners choose the patch by `features_per_gb`: elements of feature maps per GB of the
memory budget, weights not counted (plain network in 3D: two patches of 560e6 elements in 8 GB, in 2D twelve of 85e6).
`bytes_per_feature` is the memory that a training step needs per element in addition to the weights: for nnU-Net's
networks its reference minus their weights, for the others scaled by the memory that autograd was measured to keep.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medunet.base.errors import InputError
from medunet.records.config import NetworkName, PlanningConfig

Norm = Literal["instance", "batch", "group", "none"]
Upsampling = Literal["transposed", "interpolate"]

_RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6)  # of each stage, in nnU-Net's residual encoders
_SEGRESNET_BLOCKS = (1, 2, 2, 4, 4, 4, 4, 4, 4)  # as Auto3DSeg builds SegResNetDS
_ALL_NORMS: tuple[Norm, ...] = ("instance", "batch", "group", "none")
_BOTH: tuple[Upsampling, ...] = ("transposed", "interpolate")


@dataclass(frozen=True)
class Architecture:
    """Defaults and options of a network; of several choices the first is the authors' default."""

    title: str
    norms: tuple[Norm, ...] = _ALL_NORMS
    upsamplings: tuple[Upsampling, ...] = _BOTH
    dimensions: tuple[int, ...] = (3, 2)
    num_stages: int | None = (
        None  # of a uniform network by default; in others stages follow from the patch size
    )
    fixed_stages: bool = False
    uniform: bool = False  # every axis is halved at every stage and every kernel is 3
    min_stages: int = 2
    base_features: int = 32
    features_multiple: int = 1
    features_capped: bool = True  # doubled up to 320 in 3D, 512 in 2D; otherwise without limit
    encoder_blocks: tuple[int, ...] = ()
    convolutions: int = 2  # of each stage; of a residual network: of each decoder stage
    deep_supervision: bool = True
    supervises_all: bool = False  # an output at every stage, including the deepest
    dropout: bool = True
    textbook: bool = False  # ReLU and max-pooling, not leaky ReLU and strided convolutions
    own: bool = True  # implemented in medunet: supports multi-scale input and any number of convolutions
    published_patch: tuple[int, ...] | None = None
    min_batch: int = 2
    gpu_gb: float = 8.0  # default memory budget on a CUDA GPU
    bytes_per_feature: float = 6.7  # per element of a feature map, in training
    features_per_gb: Mapping[int, float] | None = None  # by dimensions; None: the estimated memory must fit
    dataset_share: float = 0.05  # a batch holds at most this share of the dataset's voxels


def _residual(size: str, gpu_gb: float, elements_3d: float, elements_2d: float) -> Architecture:
    """Return a residual preset; nnU-Net fits 2 patches of `elements_3d` (12 of `elements_2d`) in `gpu_gb`."""
    return Architecture(
        f"nnU-Net's residual-encoder U-Net, preset {size}",
        encoder_blocks=_RESIDUAL_BLOCKS,
        convolutions=1,
        gpu_gb=gpu_gb,
        bytes_per_feature=5.33,
        features_per_gb={3: 2 * elements_3d / gpu_gb, 2: 12 * elements_2d / gpu_gb},
        dataset_share=1.0,
    )


ARCHITECTURES: dict[NetworkName, Architecture] = {
    "plain": Architecture(
        "nnU-Net's plain-convolution U-Net", features_per_gb={3: 2 * 560e6 / 8, 2: 12 * 85e6 / 8}
    ),
    "residual_m": _residual("M", 8.0, 680e6, 135e6),
    "residual_l": _residual("L", 24.0, 2100e6, 380e6),
    "residual_xl": _residual("XL", 40.0, 3600e6, 560e6),
    "unet_2015": Architecture(
        "the U-Net of Ronneberger et al. 2015",
        norms=("none", "instance", "batch", "group"),
        upsamplings=("transposed",),  # a padded convolution after interpolation would see padding
        dimensions=(2,),
        num_stages=5,
        uniform=True,
        textbook=True,
        base_features=64,
        features_capped=False,
        deep_supervision=False,
        bytes_per_feature=5.5,
        published_patch=(572, 572),
        min_batch=1,
    ),
    "classroom": Architecture(
        "the padded U-Net of the tutorials",
        norms=("batch", "instance", "group", "none"),
        num_stages=4,
        uniform=True,
        textbook=True,
        base_features=64,
        features_capped=False,
        deep_supervision=False,
        bytes_per_feature=5.5,
    ),
    "dynunet": Architecture(
        "MONAI's DynUNet",
        norms=("instance", "batch", "group"),
        upsamplings=("transposed",),
        min_stages=3,
        dropout=False,  # MONAI's would also drop logits
        bytes_per_feature=5.5,
        own=False,
    ),
    "segresnet_ds": Architecture(
        "MONAI's SegResNetDS",
        norms=("batch", "instance", "group"),
        num_stages=5,
        uniform=True,
        features_capped=False,
        encoder_blocks=_SEGRESNET_BLOCKS,
        dropout=False,
        bytes_per_feature=6.5,
        own=False,
    ),
    "swin_unetr": Architecture(
        "MONAI's SwinUNETR",
        norms=("instance", "batch"),
        upsamplings=("transposed",),
        num_stages=6,
        fixed_stages=True,
        uniform=True,
        base_features=48,
        features_multiple=12,
        features_capped=False,
        deep_supervision=False,
        bytes_per_feature=20.0,
        own=False,
    ),
    "mednext": Architecture(
        "MONAI's MedNeXt (S)",
        norms=("group",),
        upsamplings=("transposed",),
        num_stages=5,
        fixed_stages=True,
        uniform=True,
        features_capped=False,
        supervises_all=True,
        dropout=False,
        bytes_per_feature=22.0,
        own=False,
    ),
}


def choose_architecture(config: PlanningConfig) -> Architecture:
    """Return the configured network's architecture and check its options.

    Raises:
        InputError: the configuration has options that this network does not support; lists them all.
    """
    network, architecture = config.network, ARCHITECTURES[config.network.name]
    faults = []

    def refuse(key: str, given: object, allowed: object) -> None:
        faults.append(f"planning.{key} is {given}, but the network allows {allowed}")

    if config.dimensions not in architecture.dimensions:
        refuse("dimensions", config.dimensions, "2 only")
    if network.norm not in ("auto", *architecture.norms):
        refuse("network.norm", network.norm, " or ".join(architecture.norms))
    if network.upsampling not in ("auto", *architecture.upsamplings):
        refuse("network.upsampling", network.upsampling, " or ".join(architecture.upsamplings))
    if network.dropout and not architecture.dropout:
        refuse("network.dropout", network.dropout, "none")
    stages = network.num_stages
    if stages is not None and architecture.fixed_stages and stages != architecture.num_stages:
        refuse("network.num_stages", stages, f"{architecture.num_stages} only")
    elif stages is not None and stages < architecture.min_stages:
        refuse("network.num_stages", stages, f"{architecture.min_stages} or more")
    if network.multi_scale_input and not architecture.own:
        refuse("network.multi_scale_input", "on", "none")
    fixed_convolutions = bool(architecture.encoder_blocks) or not architecture.own
    if fixed_convolutions and config.convolutions_per_stage != 2:
        refuse("convolutions_per_stage", config.convolutions_per_stage, "its authors' blocks only")
    parts = (
        config.convolutions_per_stage + architecture.textbook
    )  # of an encoder stage, including the pooling
    if not fixed_convolutions and network.multi_scale_input and parts < 2:
        refuse("convolutions_per_stage", 1, "2 or more with a multi-scale input")
    if config.max_features is not None and not architecture.own and not architecture.features_capped:
        refuse("max_features", config.max_features, "only widths that double at every stage")
    most = config.max_features
    if most is not None and config.base_features is None and most < architecture.base_features:
        refuse(
            "max_features",
            most,
            f"no fewer than the {architecture.base_features} features of its first stage",
        )
    if (base := config.base_features) is not None and base % architecture.features_multiple:
        refuse("base_features", base, f"multiples of {architecture.features_multiple}")
    if faults:
        raise InputError(
            "; ".join(faults),
            where=f"planning.network.name {network.name} ({architecture.title})",
            hint="Leave these keys out or choose another network.",
        )
    return architecture
