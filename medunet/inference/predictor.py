"""What the prediction of many scans needs of a model: one network, or several that predict together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.volume import Header, Volume
from medunet.inference.backend import Backend
from medunet.inference.maps import CaseMaps
from medunet.inference.model_folder import Member
from medunet.inference.window_count import WindowCounts
from medunet.records.config import InferenceConfig
from medunet.records.manifest import Accepted
from medunet.records.model_card import ModelCard

if TYPE_CHECKING:
    from medunet.inference.model import Model


class Predictor(Protocol):
    """Checks, prepares, computes and finishes a scan, see `medunet.inference.model.Model`.

    What `prepare` returns has the scan's `header`. After `compute` it has in `found` what goes into the scan's entry
    in the index, and in `notes` the lines for the log.
    """

    @property
    def card(self) -> ModelCard:
        """The card of the first network."""

    @property
    def backend(self) -> Backend:
        """The backend of the first network."""

    @property
    def members(self) -> tuple[Member, ...]:
        """All networks whose probabilities are averaged."""

    def models(self, config: InferenceConfig) -> "list[tuple[Model, InferenceConfig]]":
        """Return the models that it is made of, with their options where the first has those of `config`."""

    def check(
        self, case: str, image_paths: list[Path], *, accepted: Sequence[Accepted] = (), resample: bool = False
    ) -> CheckedScan:
        """Return a scan that is read through the checks of an image."""

    def prepare(
        self, image_paths: list[Path], *, resample: bool = False, read: Callable[[], Volume] | None = None
    ) -> Any:
        """Read and preprocess a scan."""

    def compute(
        self,
        prepared: Any,
        config: InferenceConfig,
        *,
        on_window: Callable[[WindowCounts], None] | None = None,
        maps: CaseMaps | None = None,
    ) -> NDArray[np.uint8]:
        """Return the label map `(I, J, K)` on the scan's grid, before postprocessing."""

    def finish(self, labels: NDArray[np.uint8], header: Header, config: InferenceConfig) -> NDArray[np.uint8]:
        """Return the label map after postprocessing."""
