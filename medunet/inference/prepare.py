"""The first step of prediction: from a scan's files or arrays to the image on the network's grid."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import Affine
from medunet.imaging.volume import Header, Volume
from medunet.inference.placement import Placement, find_placement
from medunet.transforms.chain import run_chain


@dataclass(frozen=True)
class Prepared:
    """A scan that is ready for the network."""

    image: MetaTensor  # float32 (C, I, J, K) on the network's grid, with what its inverse needs
    header: Header  # of the scan's first file
    placement: Placement | None  # None: see `find_placement`
    found: dict[str, Any] = field(default_factory=dict)  # by predicting it, for its entry in the index
    notes: list[str] = field(default_factory=list)  # of predicting it, for the log

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(I, J, K)` of the scan."""
        return self.header.shape[:3]


def prepare_scan(chain: Compose, image_paths: list[Path], read: Callable[[], Volume]) -> Prepared:
    """Read a scan, reorient, crop, normalise and resample it.

    Args:
        chain: from `preprocess_chain`.
        image_paths: of the channels, for messages.
        read: returns the channels as float32 `(C, I, J, K)`.

    Raises:
        DataError: the scan cannot be read or used.
    """
    headers = []

    def read_once() -> Volume:
        volume = read()
        headers.append(volume.header)
        return volume

    image = run_chain(chain, image_paths, read=read_once)["image"]
    header = headers[0]
    return Prepared(image, header, find_placement(image, header.shape[:3], header.affine))


def volume_of(array: NDArray, affine: Affine, num_channels: int) -> Volume:
    """Return an array `(I, J, K)` or `(C, I, J, K)` with its affine to RAS+ mm as a scan.

    Raises:
        DataError: shape, values or affine cannot be used.
    """
    name = Path("array")
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"holds {array.dtype}, not real numbers", where=name.name, hint="Convert it, such as to float32."
        )
    channels = array[None] if array.ndim == 3 else array
    if channels.ndim != 4 or len(channels) != num_channels or not channels.size:
        raise DataError(
            f"has shape {array.shape}, but the model needs {num_channels} channel(s)",
            where=name.name,
            hint="Give (I, J, K) for one channel, or (C, I, J, K) with the channels in the model's order.",
        )
    affine = np.array(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.det(affine):
        raise DataError("its affine is not an invertible (4, 4) matrix", where=name.name)
    if not np.allclose(affine[3], (0, 0, 0, 1), atol=1e-6):
        raise DataError(
            f"the last row of its affine is {affine[3].tolist()}, not [0, 0, 0, 1]",
            where=name.name,
            hint="Transpose it if the offset stands there.",
        )
    header = Header(name, channels.shape[1:], affine, channels.dtype)
    return Volume(np.array(channels, np.float32), header)
