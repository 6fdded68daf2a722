"""Maps beside a mask, on demand: how many members of an ensemble agree with it, and the targets' probabilities."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.base.files import atomic_write
from medunet.imaging.volume import Header
from medunet.imaging.volumes import write_mask
from medunet.inference.placement import Placement
from medunet.inference.restore import decide, restore_labels
from medunet.inference.scan_blocks import Part, Source, Targets, mean_of_parts, order_of
from medunet.records.config import MapName
from medunet.records.description import Description

MAPS: tuple[MapName, ...] = ("agreement", "probabilities")
_BUFFER_BYTES = 64_000_000  # of rows of probabilities that are written together


def map_paths(folder: Path, case: str, mask_name: str) -> dict[MapName, Path]:
    """Return the files of a case's maps in a folder of masks."""
    return {
        "agreement": folder / "agreement" / mask_name,
        "probabilities": folder / "probabilities" / f"{case}.b2nd",
    }


def restore_sources(
    sources: Sequence[Source], description: Description, num_members: int, maps: "CaseMaps | None"
) -> NDArray[np.uint8]:
    """Return the label map as `restore_labels` does, and fill the maps of the case."""
    if maps is None:
        return restore_labels(sources, description)
    maps.begin(sources[0].placement, sources[0].axis, num_members)
    return restore_labels(sources, description, maps.add, most_rows=maps.most_rows)


class CaseMaps:
    """The maps of one case, filled while its blocks are decided, and written with its mask.

    `agreement`: uint8 `(I, J, K)`, the number of members that give a voxel the label of the mask before
    postprocessing. `probabilities`: float16 `(T, I, J, K)` of the targets in the description's order, without the
    background, in a Blosc2 file with one slice of a target in a chunk; 0 where the scan was cropped away.
    """

    def __init__(
        self, names: Collection[MapName], paths: Mapping[MapName, Path], description: Description
    ) -> None:
        """Prepare the maps `names` at their paths, which are written whole or not at all."""
        self._names, self._paths, self._description = names, paths, description
        self._files = ExitStack()
        self._agreement: NDArray[np.uint8] | None = None
        self._stored: Any = None
        self._rows: tuple[slice, NDArray[np.float16]] | None = None
        self.most_rows: int | None = None  # of blocks; None: as is usual

    def begin(self, placement: Placement, axis: int, num_members: int) -> None:
        """Begin a case, or begin it again."""
        self.discard()
        self._placement, self._order = placement, order_of(axis)
        values = (0, *self._description.written_values.values())
        self._values, self._regions = values, bool(self._description.regions)
        if "agreement" in self._names:
            self._agreement = np.full(placement.shape, num_members, np.uint8, order="F")
            self._view = placement.view(self._agreement, self._order)
        if "probabilities" in self._names:
            self._begin_probabilities(placement, axis)

    def _begin_probabilities(self, placement: Placement, axis: int) -> None:
        import blosc2  # takes half a second

        num_targets, along = len(self._values) - 1, placement.axes[axis].scan_axis
        chunk = [1, *placement.shape]
        chunk[1 + along] = 1
        row_bytes = 2 * num_targets * math.prod(chunk)
        self.most_rows = max(1, _BUFFER_BYTES // row_bytes)
        self._section = tuple(
            placement.axes[number].stop - placement.axes[number].start for number in self._order[1:]
        )
        temporary = self._files.enter_context(atomic_write(self._paths["probabilities"], suffix=".b2nd"))
        temporary.unlink()
        self._stored = blosc2.zeros(
            (num_targets, *placement.shape),
            dtype=np.float16,
            urlpath=str(temporary),
            chunks=tuple(chunk),
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE]},
        )

    def add(self, targets: Targets, parts: Sequence[Part], labels: NDArray[np.uint8] | None) -> None:
        """Add a block; for the arguments, see `OnBlock`."""
        if self._agreement is not None:
            self._view[targets] = self._count(parts, 0 if labels is None else labels)
        if self._stored is None:
            return
        rows, others = targets[0], targets[1:]
        if self._rows is None or self._rows[0] != rows:
            self._flush()
            shape = (len(self._values) - 1, rows.stop - rows.start, *self._section)
            self._rows = (rows, np.zeros(shape, np.float16))
        first = 0 if self._regions else 1
        own = [part.first(first + len(self._values) - 1) for part in parts]
        probabilities = [part.probabilities(regions=self._regions) for part in own]
        mean = mean_of_parts(probabilities, parts)[first:]
        self._rows[1][:, :, *others] = mean.cpu().numpy()

    def _count(self, parts: Sequence[Part], labels: NDArray[np.uint8] | int) -> NDArray[np.uint8]:
        shape = tuple(len(block.weights) for block in parts[0].blocks)
        num_agreeing = np.zeros(shape, np.uint8)
        size = len(self._values) - self._regions
        for part in parts:
            for member in part.members(size):
                own = decide([member], self._regions, self._values)
                num_agreeing += (0 if own is None else own) == labels
        return num_agreeing

    def _flush(self) -> None:
        """Store the rows of probabilities that are complete."""
        if self._rows is None:
            return
        rows, array = self._rows
        self._rows = None
        box: list[slice] = [slice(0, 0)] * 3
        turns: list[slice] = [slice(None)] * 3
        places = [0] * 3
        for place, number in enumerate(self._order):
            axis = self._placement.axes[number]
            start, stop = (rows.start, rows.stop) if place == 0 else (0, axis.stop - axis.start)
            if axis.flipped:
                low, high = axis.stop - stop, axis.stop - start
                turns[place] = slice(None, None, -1)
            else:
                low, high = axis.start + start, axis.start + stop
            box[axis.scan_axis] = slice(low, high)
            places[axis.scan_axis] = place
        turned = array[:, *turns].transpose(0, *(1 + place for place in places))
        self._stored[:, *box] = np.ascontiguousarray(turned)

    def write(self, header: Header) -> None:
        """Write the maps with the geometry of the scan; earlier ones that are not asked for now are removed."""
        for name in set(MAPS) - set(self._names):
            self._paths[name].unlink(missing_ok=True)
        if self._agreement is not None:
            write_mask(self._paths["agreement"], self._agreement, header)
        if self._stored is not None:
            self._flush()
            self._stored.schunk.vlmeta["medunet"] = {
                "schema": "medunet.probabilities/1",
                "targets": list(self._description.targets),
                "affine": [float(value) for value in header.affine.ravel()],
                "exclusive": not self._regions,
            }
            self._stored = None
            self._files.close()

    def discard(self) -> None:
        """Remove what is not written."""
        self._agreement = self._stored = self._rows = None
        self._files.__exit__(DataError, DataError("discarded"), None)
