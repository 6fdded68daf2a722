"""Paths of the files in a run's folder."""

from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, such as `runs/liver`, and the paths of the files that the stages write there."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def checks(self) -> Path:
        return self.root / "checks.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def ensembles(self) -> Path:
        """Folder of held-out masks of ensembles with other runs, which `medunet select` compares."""
        return self.root / "ensembles"

    @property
    def scores(self) -> Path:
        return self.root / "scores.csv"

    @property
    def selection(self) -> Path:
        return self.root / "selection.json"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def cache(self) -> Path:
        """Folder of preprocessed cases; it may be removed at any time and is created again."""
        return self.root / "cache"

    def fold(self, fold: int | str, member: int | None = None) -> Path:
        """Return the folder of a fold: checkpoints, model, TensorBoard log and curves.

        `member` is the number of the fold's network, with several seeds; the first one is in the fold's own folder.
        """
        folder = self.root / "folds" / str(fold)
        return folder / "seeds" / str(member) if member else folder

    def model(self, fold: int | str, member: int | None = None) -> Path:
        """Return the model folder of a fold, which prediction needs: weights.safetensors and model.json."""
        return self.fold(fold, member) / "model"

    def need(self, path: Path, command: str) -> Path:
        """Return `path` if it exists.

        Raises:
            InputError: The file is missing; the hint names the command that creates it.
        """
        if not path.exists():
            raise InputError(
                f"{path.name} is missing", where=str(self.root), hint=f"Run `medunet {command}` first."
            )
        return path
