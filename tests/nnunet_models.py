"""Small models that nnU-Net trained, with its answers; see benchmarks/make_nnunet_models.py."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.imaging.volumes import read_label
from medunet.inference.model import Model
from medunet.inference.nnunet.import_model import import_model
from medunet.records.run_folder import RunFolder

FOLDER = Path(__file__).parent / "inference" / "nnunet"
CASE = "case_1"


@dataclass(frozen=True)
class Example:
    """A model in `tests/inference/nnunet`, and one of its configurations."""

    name: str
    configuration: str
    folds: tuple[str, ...] = ("0",)

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def results(self) -> Path:
        (folder,) = (self.folder / "results").glob(f"*/*__{self.configuration}")
        return folder

    @property
    def scans(self) -> list[Path]:
        return sorted((self.folder / "scans").iterdir())

    def labels(self, *folds: str) -> NDArray[np.integer]:
        """Return the mask `(I, J, K)` that nnU-Net wrote."""
        (path,) = (self.folder / "labels" / self.configuration / "+".join(folds)).iterdir()
        return read_label(path).array

    def truth(self) -> NDArray[np.integer]:
        """Return what was drawn in the scan."""
        (path,) = (self.folder / "truth").iterdir()
        return read_label(path).array

    def turn(self, array: NDArray) -> NDArray:
        """Return an array `(C, z, y, x)` of nnU-Net's, transposed as the plans say, as `(C, I, J, K)`."""
        transposed = {"regions": [1, 2, 0], "flat": [2, 0, 1]}.get(self.name, [0, 1, 2])
        back = np.argsort(transposed)
        return array.transpose(0, *(1 + back)).transpose(0, 3, 2, 1)

    def prepared(self) -> NDArray[np.float32]:
        """Return nnU-Net's preprocessed array `(C, I, J, K)`."""
        return self.turn(np.load(self.folder / "expected.npz")[f"{self.configuration}/prepared"])

    def logits(self, *folds: str) -> NDArray[np.float32]:
        """Return nnU-Net's logits `(C, I, J, K)` on the network's grid."""
        stored = np.load(self.folder / "expected.npz")
        key = f"{self.configuration}/{'+'.join(folds)}"
        return self.turn(stored[f"{key}/logits"].astype(np.float32) * np.float32(stored[f"{key}/scale"]))

    def load(self, out: Path, fold: str = "0") -> Model:
        """Import the model, unless it is there, and load a fold for the CPU."""
        if not (out / "imported.json").exists():
            import_model(self.results, out)
        folder = RunFolder(out).model(fold)
        return Model.load(folder, device=torch.device("cpu"), precision="fp32")


EXAMPLES = (
    Example("slices", "3d_fullres", ("0", "1")),
    Example("regions", "3d_fullres"),
    Example("pictures", "2d"),
    Example("flat", "2d"),
    Example("residual", "3d_fullres"),
    Example("cascade", "3d_lowres"),
    Example("cascade", "3d_cascade_fullres"),
)
