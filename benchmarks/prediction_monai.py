"""The script that a user of MONAI would write to predict a scan, in eager float32."""

import json
import time
from itertools import combinations
from pathlib import Path

import torch
from monai.inferers.utils import sliding_window_inference
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import NormalizeIntensityd, ScaleIntensityRanged
from monai.transforms.io.dictionary import LoadImaged, SaveImaged
from monai.transforms.post.dictionary import Activationsd, AsDiscreted, Invertd
from monai.transforms.spatial.dictionary import Orientationd, Spacingd
from monai.transforms.transform import MapTransform
from monai.transforms.utility.dictionary import EnsureTyped
from prediction_models import load_network
from prediction_timing import Clock


def run_monai(
    report: Path, started_s: float, model: Path, scan: Path, mask: Path, *, mirror: bool, device_name: str
) -> None:
    """Predict a scan as a script of MONAI does, and write what was measured."""
    device = torch.device(device_name)
    clock = Clock(started_s, sync=device.type == "cuda")
    card, network = load_network(model)
    network.to(device)
    plan = card.plan
    intensity = next(iter(plan.intensities.values()))
    normalise: MapTransform = NormalizeIntensityd("image")
    if intensity.scheme == "ct":
        low, high, mean, std = (
            float(getattr(intensity, key)) for key in ("clip_low", "clip_high", "mean", "std")
        )
        normalise = ScaleIntensityRanged(
            "image", low, high, (low - mean) / std, (high - mean) / std, clip=True
        )
    load = LoadImaged("image", reader="NibabelReader", ensure_channel_first=True)
    prepare = Compose(
        [
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=plan.spacing_mm, mode="bilinear"),
            normalise,
            EnsureTyped("image", device=device),
        ]
    )
    restore = Compose(
        [
            Activationsd("pred", softmax=True),
            Invertd(
                "pred", Compose([load, prepare]), orig_keys="image", nearest_interp=False, to_tensor=True
            ),
            AsDiscreted("pred", argmax=True),
        ]
    )
    save = SaveImaged(
        "pred", output_dir=mask.parent, output_postfix="", separate_folder=False, output_dtype="uint8",
        resample=False, print_log=False,
    )  # fmt: skip
    flips = [axes for count in range(4 if mirror else 1) for axes in combinations((2, 3, 4), count)]

    def predict(images: torch.Tensor) -> torch.Tensor:
        if clock.first_window_s is None:
            clock.first_window_s = time.monotonic() - clock.started_s
        clock.windows += len(images) * len(flips)
        clock.batches += 1
        with clock.part("network"):
            total = network(images)
            for axes in flips[1:]:
                total = total + network(images.flip(axes)).flip(axes)
            return total / len(flips)

    with torch.no_grad():
        with clock.part("read"):
            data = load({"image": scan})
        with clock.part("prepare"):
            data = prepare(data)
        with clock.part("windows"):
            data["pred"] = sliding_window_inference(
                data["image"][None], plan.patch_size, 4, predict, overlap=0.5, mode="gaussian"
            )[0]
        with clock.part("restore"):
            data = restore(data)
        with clock.part("write"):
            save(data)
    report.write_text(json.dumps(clock.report()))
