"""The pages of new scans, which `medunet predict --report` writes beside their masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medunet.commands.terminal import print_report
from medunet.records.config import Config, load_config
from medunet.records.description import Description
from medunet.records.run_folder import RunFolder

if TYPE_CHECKING:
    from medunet.inference.scan import Scan


def report_scans(
    scans: Sequence["Scan"],
    description: Description,
    out: Path,
    failed: Mapping[str, str],
    model: Path | None,
) -> Path:
    """Write the pages of scans predicted into a folder, and return the path of their list.

    Thresholds and lesions are those of the run that `model` names; the model of no run has the defaults.

    Raises:
        InputError: the run's configuration cannot be read.
    """
    from medunet.reporting.new_scans import NewScan, report_new_scans

    config = RunFolder(model).config if model is not None else None
    own: Config | None = load_config(config) if config is not None and config.exists() else None
    index = report_new_scans(
        [NewScan(scan.case, scan.images, out / scan.mask_name, scan.resample) for scan in scans],
        description,
        out,
        failed=failed,
        settings=own.report if own else None,
        lesion_rules=own.scoring.lesions if own else None,
    )
    print_report(index)
    return index
