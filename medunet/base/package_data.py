"""Paths of the data files that medunet ships: dataset descriptions and the demo's configuration."""

from pathlib import Path


def package_data_path(name: str) -> Path:
    """Return the path of a data file or folder, in the installed package or in the source repository."""
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.exists() else package.parent / name
