"""A trained model for prediction: network, plan and labels, loaded from a folder of safetensors and JSON files."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from monai.transforms.compose import Compose
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.compute.choice_cache import BackendName
from medunet.compute.devices import Precision
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import read_header
from medunet.inference.backend import Backend
from medunet.inference.maps import CaseMaps, restore_sources
from medunet.inference.memory import CaseMemory, Way, network_grid
from medunet.inference.memory_budget import MemoryBudget
from medunet.inference.model_folder import Member, find_members, load_backend
from medunet.inference.nnunet.prepare import PREPARING_COPIES, prepare_as_nnunet
from medunet.inference.nnunet.previous import previous_folders
from medunet.inference.placement import Placement
from medunet.inference.prepare import Prepared, prepare_scan, volume_of
from medunet.inference.restore import restore_whole, to_label_map, with_background
from medunet.inference.scan_blocks import Source
from medunet.inference.stream import Slab, WindowStream, open_stream, to_logits
from medunet.inference.window_count import WindowCounts
from medunet.networks.builder import to_probabilities
from medunet.postprocessing.tidy import tidy_labels
from medunet.records.config import InferenceConfig, WeightsName
from medunet.records.manifest import Accepted
from medunet.records.model_card import ModelCard
from medunet.records.plan import count_outputs
from medunet.transforms.chain import preprocess_chain, restore_probabilities

OnWindow = Callable[[WindowCounts], None]


@dataclass(frozen=True)
class Model:
    """A trained network that is ready to compute, with its model card and preprocessing.

    With `others`, networks of the same plan, whose probabilities are averaged window by window. If `apart` is set,
    the stream holds the logits of each network after those of the mean.
    """

    card: ModelCard
    backend: Backend
    chain: Compose
    weights: WeightsName = "best"
    quantised_sha256: str = ""  # of an int8 network
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    others: tuple[Member, ...] = ()
    apart: bool = False
    previous: "Model | None" = None  # the earlier stage of a cascade imported from nnU-Net

    @cached_property
    def memory(self) -> CaseMemory:
        """The memory that predicting a scan takes."""
        copies = 1 if self.card.nnunet is None else PREPARING_COPIES
        card = self.card
        return CaseMemory(card.plan, card.description, self.backend, self.budget, self.apart, copies)

    @property
    def members(self) -> tuple[Member, ...]:
        """All networks."""
        return (Member(self.card, self.weights, self.quantised_sha256), *self.others)

    def models(self, config: InferenceConfig) -> "list[tuple[Model, InferenceConfig]]":
        """Return the model itself with its options, see `Predictor`."""
        return [(self, config)]

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights in use, of the first network."""
        return self.card.sha256_of(self.weights)

    @classmethod
    def load(
        cls,
        folder: Path | Sequence[Path],
        *,
        device: torch.device,
        precision: Precision,
        channels_last: bool = False,
        weights: WeightsName | None = None,
        backend: BackendName = "torch",
        ram_gb: float | None = None,
        apart: bool = False,
    ) -> "Model":
        """Load a model folder, or several of the same plan and targets; no code from them is executed.

        Args:
            weights: the best by validation, or the final ones; None: as configured in training (`inference.weights`),
                for models before 0.5 the best.
            backend: openvino is for the CPU; precision int8 is for it alone.
            ram_gb: the most memory of this process; None: what is free.
            apart: keep the results of each of several networks, for maps of their agreement.

        Raises:
            InputError: files are missing or changed, the weights do not fit the plan, or they do not fit the device;
                openvino is not installed, or cannot compute the network (`ConversionError`).
        """
        folders = [folder] if isinstance(folder, Path) else list(folder)
        apart = apart and len(folders) > 1
        members = find_members(folders, weights)
        loaded, members = load_backend(
            *(folders, members, device, precision, channels_last, backend), apart=apart
        )
        first, *others = members
        card, budget = first.card, MemoryBudget(ram_gb)
        chain = preprocess_chain(card.plan, with_label=False) if card.nnunet is None else Compose()
        previous: Model | None = None
        if card.nnunet is not None and card.nnunet.previous is not None:
            earlier: Precision = "fp32" if precision == "int8" else precision
            earlier_folders = previous_folders(folders[0], card.nnunet.previous)
            previous = cls.load(
                earlier_folders,
                device=device,
                precision=earlier,
                channels_last=channels_last,
                backend=backend,
                ram_gb=ram_gb,
            )
        return cls(
            *(card, loaded, chain, first.weights, first.quantised_sha256),
            *(budget, tuple(others), apart, previous),
        )

    def check(
        self, case: str, image_paths: list[Path], *, accepted: Sequence[Accepted] = (), resample: bool = False
    ) -> CheckedScan:
        """Return a scan that is read through the checks of an image, and compared with the training scans."""
        card = self.card
        return CheckedScan(
            case, image_paths, card.description, card.plan.fingerprint, accepted, resample=resample
        )

    def prepare(
        self,
        image_paths: list[Path],
        *,
        resample: bool = False,
        read: Callable[[], Volume] | None = None,
        room: AbstractContextManager[None] | None = None,
    ) -> Prepared:
        """Read and preprocess a scan for the network.

        Args:
            image_paths: an image per channel, in the model's order.
            resample: as of `read_channels`.
            read: reads the channels; None: through the checks of an image (see `CheckedScan`).
            room: holds the memory for it; None: what this model takes.

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
        if self.previous is not None:  # it takes memory of its own
            return self.prepare_volume(read())
        with room or self._room_for(image_paths):
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
        mask = None if self.previous is None else self.previous.predict_volume(volume)
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
        maps: CaseMaps | None = None,
    ) -> NDArray[np.uint8]:
        """Return the label map `(I, J, K)` on the scan's grid, before postprocessing.

        With less memory, fewer windows are computed together; see `medunet.inference.memory`. `on_window` is called
        after each window, with the stream that counts them; `maps` are filled.

        Raises:
            DataError: there is not enough memory for any way, or logits are NaN or infinite.
        """

        def run(way: Way) -> NDArray[np.uint8]:
            if prepared.placement is None and maps is None:
                return self._compute_whole(prepared, config, way, on_window)
            source = self.source(self.open(prepared, config, way), prepared, on_window)
            return restore_sources([source], self.card.description, len(self.members), maps)

        grid, in_slabs = prepared.image.shape[1:], prepared.placement is not None
        return self.memory.compute(prepared.shape, grid, config, run, in_slabs=in_slabs)

    def source(
        self,
        stream: WindowStream,
        prepared: Prepared,
        on_window: OnWindow | None = None,
        *,
        whole: bool = False,
        weight: float = 1.0,
    ) -> Source:
        """Return the logits of a prepared scan for `restore_sources`.

        Args:
            stream: from `open`.
            whole: restore all probabilities to the scan's grid before anything is decided, as is always done where
                the scan has no placement in the network's grid.
            weight: see `Source`.
        """
        as_nnunet = self.card.nnunet is not None
        if prepared.placement is not None:
            source = Source(stream.slabs(on_window), stream.axis, prepared.placement, weight, as_nnunet)
            return restore_whole(source, self.card.description) if whole else source
        description = self.card.description
        regions, restored = bool(description.regions), []
        for each in self._whole_logits(stream, on_window).split(count_outputs(description)):
            probabilities = to_probabilities(each, description, channel_axis=0)
            on_scan = restore_probabilities(probabilities, {"image": prepared.image}, self.chain)
            restored.append(to_logits(with_background(torch.stack(list(on_scan)), regions), regions=regions))
        return Source([Slab(0, torch.cat(restored))], 0, Placement.of_whole(prepared.shape), weight)

    def open(
        self, prepared: Prepared, config: InferenceConfig, way: Way, axis: int | None = None
    ) -> WindowStream:
        """Return the stream of a prepared scan; for `axis`, see `open_stream`."""
        return open_stream(
            self.backend,
            prepared.image.as_tensor(),
            self.card.plan,
            config,
            regions=bool(self.card.description.regions),
            batch=way.batch,
            accumulate_on=self.backend.device if way.sums_on_card else torch.device("cpu"),
            axis=axis,
            as_nnunet=self.card.nnunet is not None,
        )

    def _whole_logits(self, stream: WindowStream, on_window: OnWindow | None) -> torch.Tensor:
        slabs = [slab.logits.to("cpu", copy=True) for slab in stream.slabs(on_window)]  # they are overwritten
        return torch.cat(slabs, 1).movedim(1, 1 + stream.axis)

    def _compute_whole(
        self, prepared: Prepared, config: InferenceConfig, way: Way, on_window: OnWindow | None
    ) -> NDArray[np.uint8]:
        description = self.card.description
        logits = self._whole_logits(self.open(prepared, config, way), on_window)
        probabilities = to_probabilities(logits[: count_outputs(description)], description, channel_axis=0)
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

    def predict_volume(self, volume: Volume) -> NDArray[np.uint8]:
        """Return the label map `(I, J, K)` of a scan `(C, I, J, K)`, which is not changed, without postprocessing."""
        prepared = self.prepare_volume(replace(volume, array=volume.array.copy()))
        return self.compute(prepared, self.card.inference)

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
