"""One case to predict: an id and its images."""

from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import DataError
from medunet.imaging.volumes import mask_ending, share_grid
from medunet.records.manifest import Accepted


@dataclass(frozen=True, slots=True)  # thousands are held
class Scan:
    """One case to predict: an id, and an image per channel in the model's order."""

    case: str
    images: list[Path]
    resample: bool = False  # resample images to the grid of the first one
    accepted: tuple[Accepted, ...] = ()  # faults that the user accepts
    trouble: str = ""  # why the scan cannot be predicted, such as a channel without an image

    @property
    def is_resampled(self) -> bool:
        """Whether an image is on another grid than the first one and is resampled to it."""
        try:
            return self.resample and not share_grid(self.images)
        except DataError:  # reading it says why
            return self.resample

    @property
    def mask_name(self) -> str:
        """File name of the predicted mask."""
        return f"{self.case}{mask_ending(self.images[0])}"
