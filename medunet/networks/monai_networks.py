"""MONAI's networks built from a plan, with outputs as in `build_network`: in training a list of logits.

B batch, C channels, I J K voxels.
"""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.mednext import MedNeXt
from monai.networks.nets.segresnet_ds import SegResNetDS
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn

from medunet.base.errors import InputError
from medunet.records.plan import Plan

_ENCODERS: dict[type[nn.Module], tuple[str, ...]] = {
    DynUNet: ("input_block", "downsamples", "bottleneck"),
    MedNeXt: ("stem", "enc_stages", "down_blocks", "bottleneck"),
    SegResNetDS: ("encoder",),
    SwinUNETR: ("swinViT",),
}
_MAX_GROUPS = 8


class MonaiNetwork(nn.Module):
    """A MONAI network whose outputs follow the convention of `build_network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map `(B, C, I, J[, K])` to logits of the same size, or in training to a list of logits, finest first.

        SegResNetDS and MedNeXt return each at its own scale, DynUNet all at full size.
        """
        output = self.network(image)
        if not self.training:
            return output
        if not isinstance(output, torch.Tensor):
            return list(output)
        is_stacked = output.ndim == image.ndim + 1  # DynUNet: (B, outputs, C, I, J[, K])
        return list(output.unbind(1)) if is_stacked else [output]

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the encoder."""
        for name in _ENCODERS[type(self.network)]:
            yield from self.network.get_submodule(name).parameters()


def build_monai_network(plan: Plan, num_inputs: int, num_outputs: int) -> MonaiNetwork:
    """Build the plan's DynUNet, SegResNetDS, SwinUNETR or MedNeXt (of size S).

    Raises:
        InputError: SwinUNETR was chosen but einops, which it needs, is not installed.
    """
    shape: dict[str, Any] = {
        "spatial_dims": plan.dimensions,
        "in_channels": num_inputs,
        "out_channels": num_outputs,
    }
    name, base = plan.network.name, plan.features[0]
    is_supervised = plan.deep_supervision > 1
    if name == "dynunet":
        return MonaiNetwork(
            DynUNet(
                **shape,
                kernel_size=plan.kernel_sizes,
                strides=plan.strides,
                upsample_kernel_size=plan.strides[1:],
                filters=plan.features,
                norm_name=_norm(plan),
                deep_supervision=is_supervised,
                deep_supr_num=max(1, plan.deep_supervision - 1),
            )
        )
    if name == "segresnet_ds":
        return MonaiNetwork(
            SegResNetDS(
                **shape,
                init_filters=base,
                norm=_norm(plan),
                blocks_down=plan.encoder_blocks,
                dsdepth=plan.deep_supervision,
                upsample_mode="deconv" if plan.network.upsampling == "transposed" else "nontrainable",
            )
        )
    if name == "swin_unetr":
        if find_spec("einops") is None:
            raise InputError(
                "swin_unetr needs the package einops",
                where="planning.network.name",
                hint="Run `pip install 'medunet[transformers]'`.",
            )
        return MonaiNetwork(
            SwinUNETR(**shape, feature_size=base, norm_name=_norm(plan), drop_rate=plan.network.dropout)
        )
    assert name == "mednext", name
    return MonaiNetwork(
        MedNeXt(
            **shape,
            init_filters=base,
            kernel_size=3,
            use_residual_connection=True,
            deep_supervision=is_supervised,
        )
    )


def _norm(plan: Plan) -> tuple[str, dict[str, object]]:
    """Return MONAI's name and arguments for the plan's norm."""
    options: dict[str, dict[str, object]] = {
        "instance": {"affine": True},
        "batch": {},
        "group": {"num_groups": math.gcd(_MAX_GROUPS, *plan.features)},
    }
    return plan.network.norm, options[plan.network.norm]
