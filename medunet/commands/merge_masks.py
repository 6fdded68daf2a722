"""`medunet merge-masks`: merge one mask for each structure, such as TotalSegmentator's, into one label map a case."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from medunet.commands.alone import alone
from medunet.commands.terminal import console, print_stage
from medunet.dataset.structure_masks import DESCRIPTION, merge_structures


@alone("merge-masks")
def run_merge_masks(
    folder: Path, out: Path, names: Sequence[str], *, workers: int | None = None
) -> dict[str, str]:
    """Merge the masks of every case, and print what was written; return the failed cases with their reasons."""
    merged = merge_structures(folder, out, names, workers=workers)
    labels = merged.description.foreground
    num_cases = merged.num_written + len(merged.failed)
    text = f"{merged.num_written} of {num_cases} cases with {len(labels)} structures"
    print_stage("Merge masks", text, out / DESCRIPTION)
    for pair, count in merged.overlaps.most_common():
        text = f"{pair} in {count} voxels; the later one was written"
        console.print(f"  [yellow]overlap[/] {escape(text)}", highlight=False, soft_wrap=True)
    for path in merged.left_out:
        console.print(f"  [yellow]left out[/] {escape(path)}: of no case", highlight=False, soft_wrap=True)
    for case, reason in merged.failed.items():
        console.print(f"  [red]failed[/] {escape(case)}: {escape(reason)}", highlight=False, soft_wrap=True)
    if merged.num_written:
        console.print(
            f"  next: medunet manifest {escape(str(out / DESCRIPTION))} --data-root {escape(str(out))} --run RUN",
            highlight=False,
            soft_wrap=True,
        )
    return merged.failed
