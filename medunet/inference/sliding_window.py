"""Whole volumes through a network by overlapping windows, blended with Gaussian weights."""

import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from medunet.networks.builder import to_probabilities
from medunet.networks.devices import Precision, autocast
from medunet.plans import Plan
from medunet.records import Description


@torch.inference_mode()
def predict_probabilities(
    network: nn.Module,
    image: torch.Tensor,
    plan: Plan,
    description: Description,
    *,
    device: torch.device,
    precision: Precision,
    overlap: float = 0.5,
) -> torch.Tensor:
    """Return float32 probabilities `(C, I, J, K)` on the CPU for a preprocessed image `(C, I, J, K)`.

    Windows have the plan's patch size and overlap by `overlap` of it; weights are Gaussian with a sigma of an
    eighth of the patch (MONAI's, as nnU-Net's). 2D plans go slice by slice along `plan.slice_axis`.
    """
    was_training = network.training
    network.eval()
    batch = image[None] if plan.dimensions == 3 else image.movedim(1 + plan.slice_axis, 0)

    def forward(window: torch.Tensor) -> torch.Tensor:
        with autocast(device, precision):
            return network(window.to(device)).float()

    try:
        parts = [
            sliding_window_inference(
                inputs=part,
                roi_size=plan.patch_size,
                sw_batch_size=4,
                predictor=forward,
                overlap=overlap,
                mode="gaussian",
                sigma_scale=0.125,
                padding_mode="replicate",  # as patches are cut in training
                sw_device=device,
                device=torch.device("cpu"),
            )
            for part in batch.split(16)
        ]
    finally:
        network.train(was_training)
    logits = torch.cat([part for part in parts if isinstance(part, torch.Tensor)])
    logits = logits[0] if plan.dimensions == 3 else logits.movedim(0, 1 + plan.slice_axis)
    return to_probabilities(logits, description, channel_axis=0)


def to_label_map(probabilities: torch.Tensor, description: Description) -> torch.Tensor:
    """Return the uint8 label map `(I, J, K)`: the most probable label, or regions above 0.5 in written order."""
    if not description.regions:
        values = torch.tensor([0, *description.written_values.values()], dtype=torch.uint8)
        return values[probabilities.argmax(0)]
    labels = torch.zeros(probabilities.shape[1:], dtype=torch.uint8)
    for channel, value in zip(probabilities, description.written_values.values(), strict=True):
        labels[channel > 0.5] = value
    return labels
