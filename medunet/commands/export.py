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
    check, batch = done.check, "any batch size" if done.batch is None else f"batches of {done.batch}"
    print_stage("Export", f"{', '.join(done.files)}; for {batch}", out)
    console.print(
        f"  checked in {check.num_windows} windows: the same label in all {check.num_voxels - check.num_close:,} voxels "
        f"whose two best probabilities are not within 0.001 ({check.num_close:,} are); logits differ by up to "
        f"{check.largest_difference:.1e} of the largest",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        "  " + ", ".join(f"{name} {version}" for name, version in done.versions.items()), highlight=False
    )
