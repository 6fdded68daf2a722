"""The provenance of a run (provenance.json): versions, seed, threads, processor, and entries of each stage."""

import platform
from importlib import metadata
from typing import Any

from medunet import __version__
from medunet.base.files import hash_value, read_json_object, remove_unfinished, write_json
from medunet.base.lock import wait_for
from medunet.base.processor import num_threads, read_processor
from medunet.runs.run import Run

_PACKAGES = ("torch", "monai", "lightning", "nibabel", "numpy", "scipy", "safetensors")


def read_provenance(run: Run) -> dict[str, Any]:
    """Return the content of provenance.json; an empty dictionary if it does not exist yet."""
    return read_json_object(run.folder.provenance) if run.folder.provenance.exists() else {}


def add_provenance(run: Run, section: str, values: dict[str, Any]) -> None:
    """Merge a stage's values into a section of provenance.json and update versions, seed, threads and processor.

    Paths and patient data must not be stored.
    """
    with wait_for(run.folder.root, "provenance"):  # folds are trained in parallel
        _merge(run, section, values)


def _merge(run: Run, section: str, values: dict[str, Any]) -> None:
    remove_unfinished([run.folder.provenance])
    plain = read_provenance(run)
    versions = {name: metadata.version(name) for name in _PACKAGES}
    plain |= {
        "medunet": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "seed": run.config.seed,
        "threads": num_threads(),
        "processor": read_processor().to_dict(),
        "config_sha256": hash_value(run.config.to_dict()),
    }
    plain[section] = {**plain.get(section, {}), **values}
    write_json(run.folder.provenance, plain)
