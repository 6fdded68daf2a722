"""Models of different plans as one: their probabilities are averaged on the scan's own grid, block by block."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError, InputError
from medunet.base.files import hash_value
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import read_header
from medunet.inference.backend import Backend
from medunet.inference.maps import CaseMaps, restore_sources
from medunet.inference.memory import Other, Way, network_grid
from medunet.inference.model import Model, OnWindow
from medunet.inference.model_folder import Member, read_card
from medunet.inference.prepare import Prepared, volume_of
from medunet.inference.stream import choose_axis
from medunet.inference.window_count import WindowCounts
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.manifest import Accepted
from medunet.records.model_card import ModelCard


def group_by_plan(folders: Sequence[Path]) -> list[list[Path]]:
    """Return model folders in groups of the same plan, in the order given.

    Raises:
        InputError: they segment other targets, or scans with other channels; all of them are named.
    """
    cards = [read_card(folder) for folder in folders]
    first = cards[0].description
    faults = []
    for folder, card in zip(folders[1:], cards[1:], strict=True):
        own = card.description
        pairs = {
            "targets": (first.written_values, own.written_values),
            "regions": (bool(first.regions), bool(own.regions)),
            "channels": (_modalities(first), _modalities(own)),
        }
        faults += [
            f"{folder}: {name} {ours}, not {theirs}"
            for name, (theirs, ours) in pairs.items()
            if ours != theirs
        ]
    if faults:
        raise InputError(
            f"the models cannot be averaged: {'; '.join(faults)}",
            where=str(folders[0]),
            hint="Give models that segment the same targets in scans with the same channels.",
        )
    groups = defaultdict(list)
    for folder, card in zip(folders, cards, strict=True):
        rules = None if card.nnunet is None else card.nnunet.to_dict()
        groups[hash_value([card.plan.hash_input, rules])].append(folder)
    return list(groups.values())


def _modalities(description: Description) -> list[str]:
    return [channel.modality for channel in description.channels.values()]


@dataclass(frozen=True)
class PreparedForEach:
    """A scan that is ready for each model."""

    each: tuple[Prepared, ...]
    found: dict[str, Any] = field(default_factory=dict)  # as of `Prepared`
    notes: list[str] = field(default_factory=list)

    @property
    def header(self) -> Header:
        """Header of the scan's first file."""
        return self.each[0].header

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(I, J, K)` of the scan."""
        return self.each[0].shape


class _Total:
    """The windows of several streams together, see `WindowCounts`."""

    def __init__(self, streams: Sequence[WindowCounts]) -> None:
        self._streams = streams

    @property
    def num_windows(self) -> int:
        return sum(stream.num_windows for stream in self._streams)

    @property
    def num_done(self) -> int:
        return sum(stream.num_done for stream in self._streams)

    @property
    def num_reused(self) -> int:
        return sum(stream.num_reused for stream in self._streams)


@dataclass(frozen=True)
class Ensemble:
    """Models of different plans as one model, with its steps; see `Model`.

    Each predicts the scan in its own grid and with its own windows. The probabilities are resampled to the scan's
    grid and averaged there, each network counting once. Checks, postprocessing and the memory's ways are those of the
    first model.
    """

    each: tuple[Model, ...]
    options: tuple[InferenceConfig, ...]  # of the models but the first, which has those given to `compute`

    @property
    def card(self) -> ModelCard:
        """The card of the first network."""
        return self.each[0].card

    @property
    def backend(self) -> Backend:
        """The backend of the first model."""
        return self.each[0].backend

    @property
    def members(self) -> tuple[Member, ...]:
        """All networks."""
        return tuple(member for model in self.each for member in model.members)

    def models(self, config: InferenceConfig) -> list[tuple[Model, InferenceConfig]]:
        """Return the models with their options where the first has those of `config`."""
        return list(zip(self.each, (config, *self.options), strict=True))

    def check(
        self, case: str, image_paths: list[Path], *, accepted: Sequence[Accepted] = (), resample: bool = False
    ) -> CheckedScan:
        """Return a scan that is read through the checks of an image, see `Model.check`."""
        return self.each[0].check(case, image_paths, accepted=accepted, resample=resample)

    def prepare(
        self, image_paths: list[Path], *, resample: bool = False, read: Callable[[], Volume] | None = None
    ) -> PreparedForEach:
        """Read a scan once, and preprocess it for each model; see `Model.prepare`."""
        read = read or self.check(image_paths[0].name, image_paths, resample=resample).read
        with self._room_for(image_paths):
            return self.prepare_volume(read())

    def prepare_volume(self, volume: Volume) -> PreparedForEach:
        """Preprocess a scan `(C, I, J, K)` for each model; its array may be changed."""
        each = []
        for model in self.each:
            is_last = model is self.each[-1]
            own = volume if is_last else replace(volume, array=volume.array.copy())
            each.append(model.prepare_volume(own))
        return PreparedForEach(tuple(each))

    def _room_for(self, image_paths: list[Path]) -> AbstractContextManager[None]:
        first = self.each[0]
        try:
            headers = [read_header(path) for path in dict.fromkeys(image_paths)]
            grids = [network_grid(headers[0], model.card.plan) for model in self.each]
            for header in headers:
                network_grid(header, first.card.plan)
        except DataError:  # reading it says why, with the fault's code
            return nullcontext()
        return first.memory.room_for(headers, first.card.inference, self._others(grids))

    def _others(self, grids: Sequence[Sequence[int]]) -> list[Other]:
        rest = zip(self.each[1:], grids[1:], self.options, strict=True)
        return [(model.memory, grid, options) for model, grid, options in rest]

    def compute(
        self,
        prepared: PreparedForEach,
        config: InferenceConfig,
        *,
        on_window: OnWindow | None = None,
        maps: CaseMaps | None = None,
    ) -> NDArray[np.uint8]:
        """Return the label map `(I, J, K)` on the scan's grid before postprocessing, see `Model.compute`."""
        grids = [tuple(each.image.shape[1:]) for each in prepared.each]
        axis = self._common_axis(prepared, grids)
        memory = self.each[0].memory

        def run(way: Way) -> NDArray[np.uint8]:
            pairs = list(zip(self.models(config), prepared.each, strict=True))
            streams = [model.open(each, options, way, axis) for (model, options), each in pairs]
            total = _Total(streams)

            def count(_: WindowCounts) -> None:
                if on_window is not None:
                    on_window(total)

            sources = [
                model.source(
                    *(stream, each, count),
                    whole=axis is None,
                    weight=len(model.members) / len(self.members),
                )
                for stream, ((model, _), each) in zip(streams, pairs, strict=True)
            ]
            return restore_sources(sources, self.card.description, len(self.members), maps)

        return memory.compute(
            *(prepared.shape, grids[0], config, run),
            in_slabs=axis is not None,
            axis=axis,
            others=self._others(grids),
        )

    def _common_axis(self, prepared: PreparedForEach, grids: Sequence[tuple[int, ...]]) -> int | None:
        """Return the axis along which all models can be streamed; None if there is none.

        There is none if two models slice the scan across different axes, or see different parts of it.
        """
        placements = [each.placement for each in prepared.each]
        parts = {
            None if placement is None else tuple((a.scan_axis, a.start, a.stop) for a in placement.axes)
            for placement in placements
        }
        plans = [model.card.plan for model in self.each]
        across = {plan.slice_axis for plan in plans if plan.dimensions == 2}
        if None in parts or len(parts) > 1 or len(across) > 1:
            return None
        return next(iter(across), choose_axis(plans[0], grids[0]))

    def finish(self, labels: NDArray[np.uint8], header: Header, config: InferenceConfig) -> NDArray[np.uint8]:
        """Return a label map after the steps of `config.postprocess`, see `Model.finish`."""
        return self.each[0].finish(labels, header, config)

    def predict(
        self, volume: NDArray, affine: NDArray, config: InferenceConfig | None = None
    ) -> NDArray[np.uint8]:
        """Return the predicted label map of a scan in memory, see `Model.predict`."""
        config = config or self.card.inference
        prepared = self.prepare_volume(volume_of(volume, affine, len(self.card.description.channels)))
        return self.finish(self.compute(prepared, config), prepared.header, config)
