"""`medunet import-model`: read a trained model of nnU-Net v2, and keep it as the models of a run."""

from pathlib import Path
from typing import Literal

from rich.markup import escape

from medunet.commands.terminal import console, print_stage
from medunet.runs.computing import require_one_process


def run_import_model(
    source: Path,
    out: Path,
    *,
    configuration: str | None = None,
    checkpoint: Literal["final", "best"] | None = None,
) -> None:
    """Import a results folder or ZIP, see `import_model`, and print what was imported and how to predict with it."""
    require_one_process()
    from medunet.inference.nnunet.import_model import describe_notes, import_model

    done = import_model(source, out, configuration=configuration, checkpoint=checkpoint)
    folds = f"fold{'s' * (len(done.folds) > 1)} {', '.join(done.folds)}"
    earlier = f", after {done.previous.configuration}" if done.previous else ""
    print_stage("Import", f"{done.configuration} of nnU-Net, {folds} ({done.checkpoint}){earlier}", out)
    console.print(f"  segments {escape(', '.join(done.targets))}", highlight=False, soft_wrap=True)
    for name, notes in describe_notes(done).items():
        for note in notes:
            console.print(f"  [yellow]note[/] {escape(f'{name}: {note}')}", highlight=False, soft_wrap=True)
