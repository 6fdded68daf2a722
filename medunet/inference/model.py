"""A trained model as prediction uses it: network, plan and labels, from a folder of safetensors and JSON."""

from dataclasses import dataclass
from pathlib import Path

import torch
from monai.transforms.compose import Compose
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medunet.config import InferenceConfig
from medunet.errors import DataError, InputError, is_out_of_memory
from medunet.files import hash_file
from medunet.imaging.geometry import axis_codes
from medunet.imaging.volumes import read_header, write_mask
from medunet.inference.sliding_window import predict_probabilities, to_label_map
from medunet.networks.builder import build_network
from medunet.networks.devices import Precision
from medunet.plans import ModelCard
from medunet.postprocessing.tidy import tidy_labels
from medunet.transforms.chain import preprocess_chain, restore_probabilities, run_chain


@dataclass(frozen=True)
class Model:
    """A network with what its inputs and outputs mean."""

    card: ModelCard
    network: nn.Module
    chain: Compose
    device: torch.device
    precision: Precision

    @classmethod
    def load(cls, folder: Path, *, device: torch.device, precision: Precision) -> "Model":
        """Read a model folder; loading runs no code from it.

        Raises:
            InputError: files are missing or changed, the weights do not fit the plan, or they do not fit the device.
        """
        weights = folder / "weights.safetensors"
        if not (folder / "model.json").is_file() or not weights.is_file():
            raise InputError(
                "holds no model.json with weights.safetensors",
                where=str(folder),
                mend="Give a trained run's folds/<k>/model folder, or train first.",
            )
        card = ModelCard.read(folder / "model.json")
        if hash_file(weights) != card.weights_sha256:
            raise InputError(
                "weights.safetensors is not the file that model.json was written with",
                where=str(folder),
                mend="Copy both files again, or export the model anew with `medunet train`.",
            )
        network = build_network(card.plan, card.description)
        try:
            network.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"the weights do not fit the plan ({error})", where=str(folder)) from error
        try:
            network.to(device).eval()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                "its weights do not fit into the memory that is free",
                where=str(device),
                mend="Free memory there, or use --device cpu.",
            ) from error
        return cls(card, network, preprocess_chain(card.plan, with_label=False), device, precision)

    def predict(self, image_paths: list[Path], config: InferenceConfig, *, resample: bool = False) -> NDArray:
        """Return the uint8 label map `(I, J, K)` on the scan's own grid; `resample` as `read_channels` has it.

        Raises:
            DataError: a scan cannot be read, or has other channels than the model was trained on.
        """
        num_channels = len(self.card.description.channels)
        if len(image_paths) != num_channels:
            raise DataError(
                f"has {len(image_paths)} image(s), but the model needs {list(self.card.description.channels)}"
            )
        header = read_header(image_paths[0])
        if "?" in axis_codes(header.affine) or not all(0.1 <= mm <= 12 for mm in header.spacing_mm[:3]):
            spacing = " × ".join(f"{mm:.3g}" for mm in header.spacing_mm)
            raise DataError(
                f"spacing {spacing} mm is implausible, or the axes are singular",
                where=image_paths[0].name,
                mend="Correct the header; spacings of 0.1 to 12 mm can be predicted.",
            )
        case = run_chain(self.chain, image_paths, resample=resample)
        probabilities = predict_probabilities(
            self.network,
            case["image"].as_tensor(),
            self.card.plan,
            self.card.description,
            device=self.device,
            precision=self.precision,
            overlap=config.overlap,
            mirror=config.mirror,
            shifts=config.shifts,
        )
        restored = torch.from_numpy(restore_probabilities(probabilities, case, self.chain))
        labels = to_label_map(restored, self.card.description).numpy()
        if not config.postprocess:
            return labels
        description = self.card.description
        return tidy_labels(
            labels,
            description.targets,
            description.written_values,
            config.postprocess,
            header.spacing_mm,
        )

    def predict_file(
        self, image_paths: list[Path], config: InferenceConfig, path: Path, *, resample: bool = False
    ) -> None:
        """Predict a scan and write its mask with the very geometry of the scan's header."""
        write_mask(path, self.predict(image_paths, config, resample=resample), read_header(image_paths[0]))
