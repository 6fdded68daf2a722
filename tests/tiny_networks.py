"""Plans of any network, small enough to compute with in a moment."""

from typing import Any

from medunet.planning.planner import make_plan
from medunet.records.config import NetworkConfig, PlanningConfig
from medunet.records.description import Description
from medunet.records.plan import Fingerprint, Plan

# Unequal sides; SwinUNETR needs multiples of 32, MedNeXt of 16, and the 2015 U-Net no padding.
TINY_PATCHES: dict[str, dict[int, tuple[int, ...]]] = {
    "swin_unetr": {2: (64, 32), 3: (64, 32, 32)},
    "mednext": {2: (32, 16), 3: (32, 16, 16)},
    "segresnet_ds": {2: (32, 48), 3: (32, 48, 16)},
    "unet_2015": {2: (204, 188)},
}


def describe(num_channels: int = 1, *, regions: bool = False) -> Description:
    """Return a description of two labels with so many channels; with regions the head is a sigmoid."""
    return Description(
        name="tiny",
        layout="pairs",
        channels={f"MR{number}": {"modality": "MR"} for number in range(num_channels)},
        labels={"background": 0, "liver": 1, "tumour": 2},
        regions={"liver": ("liver", "tumour"), "tumour": ("tumour",)} if regions else {},
        region_order=("liver", "tumour") if regions else (),
    )


def plan_network(
    name: str,
    dimensions: int = 3,
    *,
    description: Description | None = None,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    planning: dict[str, Any] | None = None,
    **network: Any,
) -> Plan:
    """Return a plan of the named network with a tiny patch, or as `planning` and network options say."""
    description = description or describe()
    default = TINY_PATCHES.get(name, {2: (32, 24), 3: (32, 24, 16)})
    values = {
        "dimensions": dimensions,
        "patch_size": default.get(dimensions),
        "batch_size": 2,
        "base_features": 12 if name == "swin_unetr" else 4,
        **(planning or {}),
        "network": NetworkConfig(name=name, **network),  # type: ignore[arg-type]
    }
    fingerprint = Fingerprint(
        num_cases=2,
        spacings_mm=(spacing_mm,) * 2,
        shapes=((300, 280, 64),) * 2,
        nonzero_fraction=1.0,
        intensities={name: {} for name in description.channels},
    )
    config = PlanningConfig.parse(values, "test")
    return make_plan(fingerprint, description, config, memory_gb=8.0, memory_why="test")
