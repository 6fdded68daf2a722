"""`medunet export`: write a trained network as ONNX or OpenVINO files for other runtimes."""

from pathlib import Path
from typing import TYPE_CHECKING

from medunet.commands.terminal import console, print_stage
from medunet.records.config import WeightsName
from medunet.runs.computing import require_one_process

if TYPE_CHECKING:
    from medunet.inference.export import ExportFormat


def run_export(
    folder: Path, target: "ExportFormat", out: Path, *, weights: WeightsName | None = None
) -> None:
    """Export the network of a model folder, see `export_model`, and print the result and the versions."""
    require_one_process()
    from medunet.inference.export import export_model

    done = export_model(folder, target, out, weights=weights)
    check, batch = done.check, "batches of any size" if done.batch is None else f"batches of {done.batch}"
    print_stage("Export", f"{', '.join(done.files)}; for {batch}", out)
    decided = f"{check.num_voxels - check.num_close:,} of {check.num_voxels:,} voxels"
    versions = ", ".join(f"{name} {version}" for name, version in done.versions.items())
    for line in (
        f"checked in {check.num_windows} windows: the same label in {decided} (in the others the two best "
        f"probabilities are within 0.001); logits differ by up to {check.largest_difference:.1e} of the largest",
        versions,
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
