"""Where everything of one run lies."""

from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """Where everything of one run lies: `runs/<name>/`, as the stages write it."""

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
    def scores(self) -> Path:
        return self.root / "scores.csv"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def cache(self) -> Path:
        """Preprocessed cases; may be removed at any time, and is made anew."""
        return self.root / "cache"

    def fold(self, fold: int | str) -> Path:
        """Folder of one fold: its checkpoints, model, TensorBoard log and curves."""
        return self.root / "folds" / str(fold)

    def model(self, fold: int | str) -> Path:
        """Folder that prediction needs: weights.safetensors and model.json."""
        return self.fold(fold) / "model"

    def need(self, path: Path, command: str) -> Path:
        """Return `path` if it exists; otherwise say which command makes it."""
        if not path.exists():
            raise InputError(
                f"{path.name} is missing", where=str(self.root), hint=f"Make it with `medunet {command}`."
            )
        return path
