"""nnU-Net's normalisation and resampling as a configuration names them, as rules of the model card."""

import math
from collections.abc import Mapping
from typing import Any

from medunet.records.nnunet_rules import Normalisation, Resampling
from medunet.records.plan import Intensity

_SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_to_0_1",
    "RGBTo01Normalization": "rgb_to_0_1",
}
_STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")


def read_normalisation(
    settings: Mapping[str, Any], statistics: Mapping[str, Any], num_channels: int, faults: list[str]
) -> list[Normalisation]:
    """Return the rule of each channel; what medunet does not have is added to `faults`.

    Args:
        statistics: of the intensities of the training cases' structures, by the channel's number.
    """
    names, masked = settings["normalization_schemes"], settings["use_mask_for_norm"]
    if not len(names) == len(masked) == num_channels:
        faults.append(f"normalization_schemes: {len(names)} for {num_channels} channels")
        return []
    found = []
    for number, (name, inside_only) in enumerate(zip(names, masked, strict=True)):
        scheme = _SCHEMES.get(name)
        known = statistics.get(str(number), {})
        if scheme is None:
            faults.append(f"normalisation {name}: medunet has {', '.join(_SCHEMES)}")
        elif scheme != "ct":
            found.append(Normalisation(scheme=scheme, inside_only=bool(inside_only) and scheme == "zscore"))
        elif any(not math.isfinite(known.get(key, math.nan)) for key in _STATISTICS):
            faults.append(f"foreground_intensity_properties_per_channel.{number}: {name} needs {_STATISTICS}")
        else:
            mean, std, low, high = (float(known[key]) for key in _STATISTICS)
            found.append(Normalisation(scheme="ct", clip_low=low, clip_high=high, mean=mean, std=std))
    return found


def nearest_intensity(rule: Normalisation) -> Intensity:
    """Return the intensity scheme of medunet that comes nearest, which a plan has to have."""
    if rule.scheme == "ct":
        numbers = {key: getattr(rule, key) for key in ("clip_low", "clip_high", "mean", "std")}
        return Intensity(scheme="ct", **numbers)
    return Intensity(scheme="zscore_nonzero" if rule.inside_only else "zscore")


def read_resampling(settings: Mapping[str, Any], what: str, faults: list[str]) -> Resampling:
    """Return the rule of a resampling function by its name and arguments; nnU-Net's defaults for what is missing."""
    key = f"resampling_fn_{what}"
    name, given = settings.get(key, "none"), dict(settings.get(f"{key}_kwargs") or {})
    given.pop("is_seg", None)
    separate = {None: "auto", True: "always", False: "never"}.get(
        given.pop("force_separate_z", _default(name))
    )
    anisotropy = float(given.pop("separate_z_anisotropy_threshold", 3))
    shared = {"separate": separate or "auto", "anisotropy": anisotropy}
    if name == "resample_data_or_seg_to_shape":
        order, across = given.pop("order", 3), given.pop("order_z", 0)
        if order not in (0, 1, 3) or across != 0:
            faults.append(
                f"{key} of order {order}, across slices {across}: medunet has 0, 1 and 3, across slices 0"
            )
        rule = Resampling(order=order, **shared)
    elif name == "resample_torch_fornnunet":
        for ignored in ("num_threads", "device", "memefficient_seg_resampling"):
            given.pop(ignored, None)
        modes = given.pop("mode", "linear"), given.pop("aniso_axis_mode", "nearest-exact")
        if modes != ("linear", "nearest-exact"):
            faults.append(f"{key} with another mode: medunet has linear, and nearest-exact across slices")
        rule = Resampling(order=1, clipped=False, **shared)
    elif name == "no_resampling_hack":
        rule = Resampling(order=0, kept=True, **shared)
    else:
        faults.append(
            f"{key} {name}: medunet has resample_data_or_seg_to_shape, resample_torch_fornnunet, no_resampling_hack"
        )
        return Resampling(order=0)
    if given:
        faults.append(f"{key}_kwargs {sorted(given)}: unknown to medunet")
    return rule


def _default(name: str) -> bool | None:
    """Return nnU-Net's default of `force_separate_z`, which differs between its functions."""
    return None if name == "resample_torch_fornnunet" else False
