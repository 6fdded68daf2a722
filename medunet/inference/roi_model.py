"""Coarse to fine: a coarse model finds a region of interest in a scan, and a fine model predicts there alone.

The region is the box around the coarse model's labels, with a margin. Where the fine model's labels reach a face of
the box that is none of the scan, connected with what the coarse model found, the box grows there and is predicted
again, so that nothing of it is cut off.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError, InputError
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.components import find_components
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import read_header
from medunet.inference.backend import Backend
from medunet.inference.maps import CaseMaps
from medunet.inference.memory import Estimate, Part, network_grid
from medunet.inference.model import Model, OnWindow
from medunet.inference.model_folder import Member
from medunet.inference.prepare import Prepared
from medunet.inference.roi_box import Box, Face, count_voxels, find_box, name_faces
from medunet.inference.roi_crop import bounds_of, crop_prepared
from medunet.inference.window_count import SummedWindows
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.manifest import Accepted
from medunet.records.model_card import ModelCard

MARGIN_MM = 20.0  # unless another is asked for
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class RoiPrepared:
    """A scan that is ready for both networks; see `Prepared` for `found` and `notes`."""

    fine: Prepared
    coarse: Prepared

    @property
    def header(self) -> Header:
        """The header of the scan's first file."""
        return self.fine.header

    @property
    def found(self) -> dict[str, Any]:
        """What predicting it found."""
        return self.fine.found

    @property
    def notes(self) -> list[str]:
        """Lines for the log."""
        return self.fine.notes


@dataclass(frozen=True)
class RoiModel:
    """A fine model that predicts where a coarse one finds its `targets`; made by `with_roi`."""

    fine: Model
    coarse: Model
    targets: tuple[str, ...]  # of the coarse model
    margin_mm: float
    channels: tuple[int, ...]  # of the fine model's scans: those that the coarse model takes, in its order

    @property
    def card(self) -> ModelCard:
        """The card of the fine model."""
        return self.fine.card

    @property
    def backend(self) -> Backend:
        """What computes the fine network."""
        return self.fine.backend

    @property
    def members(self) -> tuple[Member, ...]:
        """The fine model's networks."""
        return self.fine.members

    def models(self, config: InferenceConfig) -> list[tuple[Model, InferenceConfig]]:
        """Return the fine model with its options, see `Predictor`."""
        return self.fine.models(config)

    @property
    def coarse_options(self) -> InferenceConfig:
        """The options of the coarse model: its own."""
        return self.coarse.card.inference

    def check(
        self, case: str, image_paths: list[Path], *, accepted: Sequence[Accepted] = (), resample: bool = False
    ) -> CheckedScan:
        """Return a scan that is read through the checks of an image, and compared with the fine model's scans."""
        return self.fine.check(case, image_paths, accepted=accepted, resample=resample)

    def prepare(
        self, image_paths: list[Path], *, resample: bool = False, read: Callable[[], Volume] | None = None
    ) -> RoiPrepared:
        """Read a scan once and preprocess it for both networks, whole. See `Model.prepare`."""
        read = read or self.check(image_paths[0].name, image_paths, resample=resample).read
        coarse: list[Prepared] = []

        def read_for_both() -> Volume:
            volume = read()
            array = np.empty_like(volume.array[: len(self.channels)])  # preprocessing changes it in place
            for number, channel in enumerate(self.channels):
                array[number] = volume.array[channel]
            copies = [Volume(array, volume.header)]
            del array
            coarse.append(self.coarse.prepare_volume(copies.pop()))
            return volume

        fine = self.fine.prepare(image_paths, read=read_for_both, room=self._room_for(image_paths))
        return RoiPrepared(fine, coarse[0])

    def _room_for(self, image_paths: list[Path]) -> AbstractContextManager[None]:
        """Hold the memory of `estimate`. What the fine network takes is known with the region: `compute` holds it."""
        try:
            headers = [read_header(path) for path in dict.fromkeys(image_paths)]
            estimate = self.estimate(headers)
        except DataError:  # reading it says why, with the fault's code
            return nullcontext()
        return self.fine.memory.room(estimate)

    def estimate(self, headers: Sequence[Header]) -> Estimate:
        """Estimate the memory to read a scan, to find the region, and to finish the mask.

        Raises:
            DataError: the first header describes no volume.
        """
        grids = [network_grid(headers[0], each.card.plan) for each in (self.fine, self.coarse)]
        coarse = self.coarse.memory.estimate(headers, self.coarse_options, self.coarse.memory.ways[-1])
        fine = self.fine.memory.estimate(headers, self.card.inference, self.fine.memory.ways[-1])
        num_channels = len(self.channels)
        fine_image = len(self.card.description.channels) * prod(grids[0]) * _FLOAT
        coarse_image = num_channels * prod(grids[1]) * _FLOAT
        copied = num_channels * prod(headers[0].shape[:3]) * _FLOAT
        parts = [part for part in fine.parts if part.step != "predict"]
        parts += [part for part in coarse.parts if part.step == "predict"]
        copied = max(0, copied - fine_image)  # the copy is freed before the fine image is made
        parts += [
            Part("read", "copy for the coarse model", copied),
            Part("read", "the coarse model's image", coarse_image),
            Part("predict", "the fine model's image", fine_image),
        ]
        return Estimate(tuple(parts))

    def compute(
        self,
        prepared: RoiPrepared,
        config: InferenceConfig,
        *,
        on_window: OnWindow | None = None,
        maps: CaseMaps | None = None,
    ) -> NDArray[np.uint8]:
        """Return the label map `(I, J, K)` on the scan's grid, before postprocessing; background outside the region.

        The region is that of the mask which the coarse model alone would predict, postprocessing included. If none
        of its targets is in it, the whole scan is predicted. `on_window` is called after each window with the windows
        of both models. See `Model.compute` for the rest; there are no `maps` of regions.
        """
        assert maps is None
        fine, header, windows = prepared.fine, prepared.header, SummedWindows(on_window)
        found = self._find(prepared.coarse, windows.next())
        why_whole = ""
        if found is None:
            why_whole = f"the coarse model finds no {' or '.join(self.targets)}"
        elif fine.placement is None:
            why_whole = "the network's grid is not parallel to the scan's"
        if found is None or fine.placement is None:
            prepared.found.update(roi_box=None, roi_growths=0)
            prepared.notes.append(f"{why_whole}, so the whole scan is predicted")
            return self.fine.compute(fine, config, on_window=windows.next())
        bounds, spacing_mm = bounds_of(fine.placement), header.spacing_mm
        box = found.enlarge(self.margin_mm, spacing_mm, bounds)
        growths = 0
        while True:
            part = crop_prepared(fine, box, self.card.plan)
            labels = self.fine.compute(part, config, on_window=windows.next())
            faces = box.reached(labels, bounds)
            connected = reached_from(found, box, labels, bounds) if faces else []
            if not connected:
                break
            faces = connected
            steps = [max(1, step) * 2**growths for step in count_voxels(self.margin_mm, spacing_mm)]
            box = box.grow(faces, steps, bounds)  # by more each time, so that few steps reach the scan's end
            growths += 1
            sides, shape = name_faces(faces, header.affine), " x ".join(map(str, box.shape))
            prepared.notes.append(
                f"labels reach the end of the region of interest ({sides}), which grows there, to {shape} voxels"
            )
        if faces:
            sides = name_faces(faces, header.affine)
            prepared.notes.append(
                f"labels at the end of the region of interest ({sides}) are not connected with where the coarse "
                "model found something: they are cut there"
            )
        prepared.found.update(roi_box=[list(span) for span in box.spans], roi_growths=growths)
        mask = np.zeros(fine.shape, np.uint8, order="F")  # as files hold it
        mask[box.slices] = labels
        return mask

    def _find(self, prepared: Prepared, on_window: OnWindow) -> Box | None:
        """Return the box around the coarse model's targets in its mask; None if the mask has none."""
        labels = self.coarse.compute(prepared, self.coarse_options, on_window=on_window)
        labels = self.coarse.finish(labels, prepared.header, self.coarse_options)
        all_values = self.coarse.card.description.targets
        return find_box(labels, {value for name in self.targets for value in all_values[name]})

    def finish(self, labels: NDArray[np.uint8], header: Header, config: InferenceConfig) -> NDArray[np.uint8]:
        """Return a label map after the fine model's postprocessing, see `Model.finish`."""
        return self.fine.finish(labels, header, config)


def reached_from(found: Box, box: Box, labels: NDArray[np.uint8], bounds: Box) -> list[Face]:
    """Return the faces of a box that are touched by labels `(I, J, K)` connected (26) with those in another box.

    Args:
        found: where the coarse model found its targets, in `box`.
    """
    is_near = np.zeros_like(labels, bool)
    is_near[tuple(slice(a - low, b - low) for (a, b), low in zip(found.spans, box.starts, strict=True))] = (
        True
    )
    components = find_components(labels > 0)
    return box.reached(components.select(components.touching(is_near)).view(np.uint8), bounds)


def with_roi(
    fine: Model, coarse: Model, targets: Sequence[str] = (), margin_mm: float = MARGIN_MM
) -> RoiModel:
    """Return a model that predicts in the region of interest that a coarse model finds.

    Args:
        targets: of the coarse model; () for all.
        margin_mm: around them.

    Raises:
        InputError: the coarse model has no such target or needs channels that the fine one does not have, or the
            margin is negative.
    """
    known = list(coarse.card.description.targets)
    if unknown := [name for name in targets if name not in known]:
        raise InputError(
            f"the coarse model has no {unknown}", where="--roi-targets", hint=f"Choose from {known}."
        )
    if not margin_mm >= 0 or margin_mm == float("inf"):
        raise InputError(
            f"{margin_mm:g} mm is no margin", where="--roi-margin-mm", hint="Give 0 or more, such as 20."
        )
    channels = _find_channels(coarse.card.description, fine.card.description)
    coarse = replace(coarse, budget=fine.budget)  # both share the memory of the process
    chosen = tuple(name for name in known if not targets or name in targets)
    return RoiModel(fine, coarse, chosen, float(margin_mm), channels)


def _find_channels(coarse: Description, fine: Description) -> tuple[int, ...]:
    """Return which of the fine model's channels the coarse model takes: by name, or the only one of both.

    Raises:
        InputError: a channel is missing, or is of another modality.
    """
    ours, theirs = list(fine.channels), list(coarse.channels)
    names = dict(zip(theirs, ours if len(ours) == len(theirs) == 1 else theirs, strict=True))
    foreign = [
        f"{name} ({coarse.channels[name].modality})"
        for name, own in names.items()
        if own not in fine.channels
        or len({coarse.channels[name].modality, fine.channels[own].modality} - {"other"}) > 1
    ]
    if foreign:
        have = ", ".join(f"{name} ({channel.modality})" for name, channel in fine.channels.items())
        raise InputError(
            f"the coarse model needs {', '.join(foreign)}, but the scans of the fine model have {have}",
            where="--roi",
            hint="Choose a coarse model that was trained on some of these channels, by the same names.",
        )
    return tuple(ours.index(own) for own in names.values())
