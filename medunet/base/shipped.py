"""Files that come with medunet beside its code: dataset descriptions and the demo's configuration."""

from pathlib import Path


def shipped(name: str) -> Path:
    """Return the path of a shipped file or folder: in an installed package, or in the repository."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.exists() else package.parent / name
