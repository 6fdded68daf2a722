"""nnU-Net's networks as its plans describe them, in the terms of a plan of medunet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medunet.records.config import NetworkConfig

_ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")
_LEAKY = "torch.nn.LeakyReLU"
_BASIC_BLOCK = "dynamic_network_architectures.building_blocks.residual.BasicBlockD"
_EXPECTED: dict[str, tuple[Any, ...]] = {  # by key: what medunet's networks have, nnU-Net's usual first
    "conv_bias": (True,),
    "dropout_op": (None,),
    "nonlin": (_LEAKY, "torch.nn.modules.activation.LeakyReLU"),
    "nonlin_kwargs": (
        {"inplace": True},
        {"inplace": False},
        {"inplace": True, "negative_slope": 0.01},
        {},
        None,
    ),
    "nonlin_first": (False,),
    "stem_channels": (None,),
    "bottleneck_channels": (None,),
    "block": (_BASIC_BLOCK, None),
}
_DEFAULTS = {"conv_bias": False}  # where the usual value is not the one of a missing key
_NORM_ARGUMENTS = {"eps": 1e-05, "affine": True}
_RESIDUAL = {"M": "residual_m", "L": "residual_l", "XL": "residual_xl"}


def read_architecture(
    settings: Mapping[str, Any],
    plans: Mapping[str, Any],
    dimensions: int,
    turned: Callable[[Sequence[Any]], tuple[Any, ...]],
    faults: list[str],
) -> dict[str, Any]:
    """Return the keys of a plan that describe the network; what medunet's networks do not have is added to `faults`.

    Args:
        turned: brings a row by nnU-Net's axes into the order of ours.
    """
    architecture = settings.get("architecture") or _old_architecture(settings, dimensions)
    name = str(architecture.get("network_class_name", "none")).rpartition(".")[2]
    given = {**_DEFAULTS, **architecture.get("arch_kwargs", {})}
    if name not in _ARCHITECTURES:
        faults.append(f"network {name}: medunet has {' and '.join(_ARCHITECTURES)}")
        return {}
    for key, allowed in _EXPECTED.items():
        value = given.get(key, allowed[0])
        if value not in allowed:
            faults.append(f"{key} {value}: medunet's networks have {allowed[0]}")
    norm = str(given.get("norm_op")).rpartition(".")[2]
    norms = {f"InstanceNorm{dimensions}d": "instance", f"BatchNorm{dimensions}d": "batch"}
    if norm not in norms:
        faults.append(f"norm_op {norm}: medunet has {' and '.join(norms)}")
    elif (given.get("norm_op_kwargs") or {}) != _NORM_ARGUMENTS:
        faults.append(
            f"norm_op_kwargs {given.get('norm_op_kwargs')}: medunet's networks have {_NORM_ARGUMENTS}"
        )
    is_residual = name == "ResidualEncoderUNet"
    num_stages = given["n_stages"]

    def per_stage(key: str, count: int) -> list[Any]:
        value = given[key]
        return list(value) if isinstance(value, list | tuple) else [value] * count

    encoder = per_stage("n_blocks_per_stage" if is_residual else "n_conv_per_stage", num_stages)
    decoder = per_stage("n_conv_per_stage_decoder", num_stages - 1)
    depths = decoder if is_residual else [*encoder, *decoder]
    if len(set(depths)) != 1:
        key = "n_conv_per_stage_decoder" if is_residual else "n_conv_per_stage and n_conv_per_stage_decoder"
        faults.append(f"{key} {depths}: medunet's networks have the same number in every stage")
    rows = {key: _rows(per_stage(key, num_stages), dimensions) for key in ("kernel_sizes", "strides")}
    if any(step != 1 for step in rows["strides"][0]):
        faults.append(f"strides {rows['strides'][0]} of the first stage: medunet's networks have 1")
    if even := [row for row in rows["kernel_sizes"] if any(size % 2 == 0 for size in row)]:
        faults.append(f"kernel_sizes {even}: medunet's networks have odd ones")
    preset = str(plans.get("plans_name", "")).partition("ResEncUNet")[2].removesuffix("Plans")
    return {
        "network": NetworkConfig(
            name=_RESIDUAL.get(preset, "residual_m") if is_residual else "plain",
            norm=norms.get(norm, "instance"),
            upsampling="transposed",
        ),
        "features": tuple(per_stage("features_per_stage", num_stages)),
        "kernel_sizes": tuple(turned(row) for row in rows["kernel_sizes"]),
        "strides": tuple(turned(row) for row in rows["strides"]),
        "convolutions_per_stage": depths[0],
        "encoder_blocks": tuple(encoder) if is_residual else (),
        "deep_supervision": max(1, num_stages - 2),
    }


def _rows(values: Sequence[Any], dimensions: int) -> list[list[int]]:
    """Return a number for each axis and stage, where a single number of a stage holds for all axes."""
    return [list(row) if isinstance(row, list | tuple) else [row] * dimensions for row in values]


def _old_architecture(settings: Mapping[str, Any], dimensions: int) -> dict[str, Any]:
    """Return the architecture of plans of nnU-Net 2.0 to 2.3, as nnU-Net itself converts them; {} without any."""
    if "UNet_class_name" not in settings:
        return {}
    stages = len(settings["n_conv_per_stage_encoder"])
    blocks = "n_conv_per_stage" if settings["UNet_class_name"] == "PlainConvUNet" else "n_blocks_per_stage"
    base, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    return {
        "network_class_name": settings["UNet_class_name"],
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "kernel_sizes": settings["conv_kernel_sizes"],
            "strides": settings["pool_op_kernel_sizes"],
            blocks: settings["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": _NORM_ARGUMENTS,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    }
