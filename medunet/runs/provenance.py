"""How a run was made: versions, seed, threads, processor, and what each stage notes."""

from medunet.runs.run import Run

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from medunet import __version__
from medunet.records.config import Config, change_config, load_config
from medunet.dataset.checks.manifest_checks import errors_left, read_faults
from medunet.dataset.held_out import read_test_names
from medunet.dataset.layouts.nnunet import read_any_folds
from medunet.records.data_root import case_paths, data_root_from
from medunet.base.errors import FaultsError, InputError
from medunet.records.run_folder import RunFolder
from medunet.base.files import hash_value, read_object, write_json
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.base.processor import num_threads, read_processor
from medunet.records.manifest import Case, Manifest
from medunet.records.description import Description, load_description

_PACKAGES = ("torch", "monai", "lightning", "nibabel", "numpy", "scipy", "safetensors")


def read_provenance(run: Run) -> dict[str, Any]:
    """Return what provenance.json says so far."""
    return read_object(run.folder.provenance) if run.folder.provenance.exists() else {}


def add_provenance(run: Run, section: str, values: dict[str, Any]) -> None:
    """Merge what a stage did into provenance.json, with versions, seed and threads; no path, no patient data."""
    plain = read_provenance(run)
    versions = {name: metadata.version(name) for name in _PACKAGES}
    plain |= {
        "medunet": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "seed": run.config.seed,
        "threads": num_threads(),
        "processor": read_processor().plain(),
        "config_sha256": hash_value(run.config.plain()),
    }
    plain[section] = {**plain.get(section, {}), **values}
    write_json(run.folder.provenance, plain)
