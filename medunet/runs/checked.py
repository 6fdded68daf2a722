"""What the check of the data allows."""

from medunet.runs.run import Run
from medunet.runs.provenance import read_provenance

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

def data_state(run: Run) -> str:
    """Return a hash of the manifest and of the size and time of every file it names: what a check is good for."""
    manifest = run.manifest
    states = []
    for case in manifest.used:
        images, label = case_paths(case, manifest.description, run.data_root)
        for path in (*images, *([label] if label else [])):
            state = path.stat() if path.exists() else None
            states.append([state.st_size, state.st_mtime_ns] if state else None)
    return hash_value([manifest.plain(), states])


def require_clean(run: Run) -> None:
    """Refuse to go on with errors in the data, or with data that was changed since its check.

    Raises:
        FaultsError: names the cases at fault and what to do.
    """
    manifest = run.manifest
    checked = read_provenance(run).get("check", {}).get("data_state_sha256")
    if checked != data_state(run) or not run.folder.checks.exists():
        raise FaultsError(
            "the data have not been checked as they are now",
            where=str(run.folder.root),
            mend="Run `medunet check` first.",
        )
    if left := errors_left(read_faults(run.folder.checks), manifest):
        rows = sorted({f"{fault.case or 'dataset'} ({fault.code})" for fault in left})
        raise FaultsError(
            f"the check found {len(left)} error(s): {', '.join(rows[:10])}{' ...' * (len(rows) > 10)}",
            where=str(run.folder.checks),
            mend="Mend the files, or leave cases out by name with `medunet check --exclude CASE=REASON`.",
        )
