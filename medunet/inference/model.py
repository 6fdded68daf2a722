"""A trained model for prediction: network, plan and labels, loaded from a folder of safetensors and JSON files."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from monai.transforms.compose import Compose
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medunet.base.errors import DataError, InputError, is_out_of_memory
from medunet.base.files import hash_file, hash_value
from medunet.compute.choice_cache import BackendName
from medunet.compute.devices import Precision
from medunet.compute.workloads import to_channels_last
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import read_header
from medunet.inference.backend import Backend, TorchBackend
from medunet.inference.memory import CaseMemory, Way, network_grid
from medunet.inference.memory_budget import MemoryBudget
from medunet.inference.nnunet.folds import predict_folds
from medunet.inference.nnunet.prepare import PREPARING_COPIES, prepare_as_nnunet
from medunet.inference.nnunet.previous import previous_folders
from medunet.inference.openvino_backend import load_converted, load_quantised
from medunet.inference.prepare import Prepared, prepare_scan, volume_of
from medunet.inference.restore import restore_labels, to_label_map
from medunet.inference.stream import WindowStream, open_stream
from medunet.networks.builder import build_network, to_probabilities
from medunet.postprocessing.tidy import tidy_labels
from medunet.records.config import InferenceConfig, WeightsName
from medunet.records.manifest import Accepted
from medunet.records.model_card import WEIGHTS_FILES, ModelCard
from medunet.records.plan import plan_inputs
from medunet.transforms.chain import preprocess_chain, restore_probabilities

OnWindow = Callable[[WindowStream], None]


def read_card(folder: Path) -> ModelCard:
    """Read the model card of a model folder.

    Raises:
        InputError: the folder has no model card, or it cannot be read.
    """
    if not (folder / "model.json").is_file():
        raise InputError(
            "holds no model.json",
            where=str(folder),
            hint="Give a trained run's folds/<k>/model folder, or train first.",
        )
    return ModelCard.read(folder / "model.json")


@dataclass(frozen=True)
class Model:
    """A trained network that is ready to compute, with its model card and preprocessing."""

    card: ModelCard
    backend: Backend
    chain: Compose
    weights: WeightsName = "best"
    quantised_sha256: str = ""  # of an int8 network
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    previous: tuple["Model", ...] = ()  # folds of the earlier stage, of a cascade imported from nnU-Net

    @cached_property
    def memory(self) -> CaseMemory:
        """The memory that predicting a scan takes."""
        copies = 1 if self.card.nnunet is None else PREPARING_COPIES
        return CaseMemory(self.card.plan, self.card.description, self.backend, self.budget, copies)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights in use."""
        return self.card.sha256_of(self.weights)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: torch.device,
        precision: Precision,
        channels_last: bool = False,
        weights: WeightsName | None = None,
        backend: BackendName = "torch",
        ram_gb: float | None = None,
    ) -> "Model":
        """Load a model folder; no code from it is executed.

        Args:
            weights: the best by validation, or the final ones; None: as configured in training (`inference.weights`),
                for models before 0.5 the best.
            backend: openvino is for the CPU; precision int8 is for it alone.
            ram_gb: the most memory of this process; None: what is free.

        Raises:
            InputError: files are missing or changed, the weights do not fit the plan, or they do not fit the device;
                openvino is not installed, or cannot compute the network (`ConversionError`).
        """
        card = read_card(folder)
        chosen = weights or card.inference.weights or "best"
        path = folder / WEIGHTS_FILES[chosen]
        if chosen == "final" and not card.final_weights_sha256:
            what = "it was trained with medunet 0.4 or earlier"
            hint = "Predict with --weights best, or export both again with `medunet train RUN`."
            if card.nnunet is not None:
                what = "its imported checkpoint has the name of the best ones"
                hint = "Leave out --weights; `medunet import-model --checkpoint` chooses the checkpoint."
            raise InputError(f"the model has no final weights: {what}", where=str(folder), hint=hint)
        if not path.is_file() or hash_file(path) != card.sha256_of(chosen):
            what = "is not the file that model.json was written with" if path.is_file() else "is missing"
            raise InputError(
                f"{path.name} {what}",
                where=str(folder),
                hint="Copy the model folder again, or export the model again with `medunet train`.",
            )
        is_own = card.nnunet is None
        chain = preprocess_chain(card.plan, with_label=False) if is_own else Compose()
        budget = MemoryBudget(ram_gb)
        previous: tuple[Model, ...] = ()
        if card.nnunet is not None and card.nnunet.previous is not None:
            load = partial(
                cls.load, device=device, channels_last=channels_last, backend=backend, ram_gb=ram_gb
            )
            earlier: Precision = "fp32" if precision == "int8" else precision
            folders = previous_folders(folder, card.nnunet.previous)
            previous = tuple(load(each, precision=earlier) for each in folders)
        if backend == "openvino" and precision == "int8":
            quantised, sha256 = load_quantised(folder)
            return cls(card, quantised, chain, chosen, sha256, budget, previous)
        if backend == "openvino":
            content = {"weights": card.sha256_of(chosen), "plan": hash_value(card.plan.hash_input)}
            shape = (plan_inputs(card.plan, card.description), *card.plan.patch_size)
            converted = load_converted(lambda: _load_network(card, path).eval(), content, shape, precision)
            return cls(card, converted, chain, chosen, budget=budget, previous=previous)
        network = _load_network(card, path)
        try:
            network.to(device).eval()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                "the model's weights do not fit into the free memory",
                where=str(device),
                hint="Free memory there, or use --device cpu.",
            ) from error
        if channels_last:
            network = to_channels_last(network, card.plan.dimensions)
        torch_backend = TorchBackend(network, device, precision, channels_last)
        return cls(card, torch_backend, chain, chosen, budget=budget, previous=previous)

    def check(
        self, case: str, image_paths: list[Path], *, accepted: Sequence[Accepted] = (), resample: bool = False
    ) -> CheckedScan:
        """Return a scan that is read through the checks of an image, and compared with the training scans."""
        card = self.card
        return CheckedScan(
            case, image_paths, card.description, card.plan.fingerprint, accepted, resample=resample
        )

    def prepare(
        self, image_paths: list[Path], *, resample: bool = False, read: Callable[[], Volume] | None = None
    ) -> Prepared:
        """Read and preprocess a scan for the network.

        Args:
            image_paths: an image per channel, in the model's order.
            resample: as of `read_channels`.
            read: reads the channels; None: through the checks of an image (see `CheckedScan`).

        Raises:
            DataError: a scan cannot be read or has errors, or its channels differ from those that the model was
                trained on.
        """
        num_channels = len(self.card.description.channels)
        if len(image_paths) != num_channels:
            raise DataError(
                f"has {len(image_paths)} image(s), but the model needs {list(self.card.description.channels)}"
            )
        read = read or self.check(image_paths[0].name, image_paths, resample=resample).read
        if self.previous:  # they take memory of their own
            return self.prepare_volume(read())
        with self._room_for(image_paths):
            if self.card.nnunet is not None:
                return self.prepare_volume(read())
            return prepare_scan(self.chain, image_paths, read)

    def prepare_volume(self, volume: Volume) -> Prepared:
        """Preprocess a scan `(C, I, J, K)` that is in memory; its array may be changed.

        Raises:
            DataError: as `prepare`.
        """
        rules = self.card.nnunet
        if rules is None:
            return prepare_scan(self.chain, [volume.header.path], lambda: volume)
        mask = predict_folds(self.previous, volume) if self.previous else None
        return prepare_as_nnunet(volume, self.card.plan, rules, mask)

    def _room_for(self, image_paths: list[Path]) -> AbstractContextManager[None]:
        try:
            headers = [read_header(path) for path in dict.fromkeys(image_paths)]
            for header in headers:
                network_grid(header, self.card.plan)
        except DataError:  # reading it says why, with the fault's code
            return nullcontext()
        return self.memory.room_for(headers, self.card.inference)

    def compute(
        self,
        prepared: Prepared,
        config: InferenceConfig,
        *,
        on_window: OnWindow | None = None,
    ) -> NDArray[np.uint8]:
        """Return the label map `(I, J, K)` on the scan's grid, before postprocessing.

        With less memory, fewer windows are computed together; see `medunet.inference.memory`. `on_window` is called
        after each window, with the stream that counts them.

        Raises:
            DataError: there is not enough memory for any way, or logits are NaN or infinite.
        """

        def run(way: Way) -> NDArray[np.uint8]:
            return self._compute(prepared, config, way, on_window)

        grid, in_slabs = prepared.image.shape[1:], prepared.placement is not None
        return self.memory.compute(prepared.shape, grid, config, run, in_slabs=in_slabs)

    def _compute(
        self, prepared: Prepared, config: InferenceConfig, way: Way, on_window: OnWindow | None
    ) -> NDArray[np.uint8]:
        description, placement = self.card.description, prepared.placement
        stream = open_stream(
            self.backend,
            prepared.image.as_tensor(),
            self.card.plan,
            config,
            regions=bool(description.regions),
            batch=way.batch,
            accumulate_on=self.backend.device if way.sums_on_card else torch.device("cpu"),
            as_nnunet=self.card.nnunet is not None,
        )
        if placement is not None:
            slabs_of = stream.slabs(on_window)
            of_logits = self.card.nnunet is not None
            return restore_labels(slabs_of, stream.axis, placement, description, of_logits=of_logits)
        slabs = [slab.logits.to("cpu", copy=True) for slab in stream.slabs(on_window)]  # they are overwritten
        logits = torch.cat(slabs, 1).movedim(1, 1 + stream.axis)
        probabilities = to_probabilities(logits, description, channel_axis=0)
        restored = restore_probabilities(probabilities, {"image": prepared.image}, self.chain)
        return to_label_map(restored, description).numpy()

    def finish(self, labels: NDArray[np.uint8], header: Header, config: InferenceConfig) -> NDArray[np.uint8]:
        """Return a label map `(I, J, K)` on the scan's grid after the steps of `config.postprocess`.

        `header` is the scan's.
        """
        description = self.card.description
        if not config.postprocess:
            return labels
        with self.memory.room_to_tidy(labels.size):
            return tidy_labels(
                labels, description.targets, description.written_values, config.postprocess, header.spacing_mm
            )

    def predict(
        self, volume: NDArray, affine: NDArray, config: InferenceConfig | None = None
    ) -> NDArray[np.uint8]:
        """Return the predicted label map `(I, J, K)` of a scan in memory.

        Values are those of the description's labels (`card.description.labels`). The scan is not checked, other than
        for what makes prediction impossible.

        Args:
            volume: `(I, J, K)`, or `(C, I, J, K)` with the channels in the model's order; any numeric type.
            affine: (4, 4), from voxel index to RAS+ mm, as of NiBabel.
            config: None: as in training (`card.inference`).

        Raises:
            DataError: the shape does not fit the model, or the scan has NaN, is constant, or has no valid affine.
        """
        config = config or self.card.inference
        channels = self.card.description.channels
        prepared = self.prepare_volume(volume_of(volume, affine, len(channels)))
        return self.finish(self.compute(prepared, config), prepared.header, config)


def _load_network(card: ModelCard, path: Path) -> nn.Module:
    """Return the network of a model card with the weights of a file.

    Raises:
        InputError: they do not fit.
    """
    network = build_network(card.plan, card.description)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"the weights do not fit the plan ({error})", where=str(path.parent)) from error
    return network
