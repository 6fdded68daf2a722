"""`medunet run`: run all stages, from manifest to report."""

from collections.abc import Mapping, Sequence

from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.predict import run_predict
from medunet.commands.report import run_report
from medunet.commands.score import run_score
from medunet.commands.terminal import console
from medunet.commands.train import run_train
from medunet.records.scores import UNSCORED, CaseScore
from medunet.runs.run import Run


def run_all(run: Run) -> tuple[list[str], list[CaseScore]]:
    """Run all stages, from manifest to report; return the ids of the failed cases, and the scores.

    Raises:
        FaultsError: The check found errors.
    """
    for stage in (run_manifest, run_check, run_plan, run_train):
        stage(run)
    failed = run_predict(run)
    scores = run_score(run)
    print_tensorboard(run)
    run_report(run)
    return list_failed(failed, scores), scores


def list_failed(failed: Mapping[str, str], scores: Sequence[CaseScore]) -> list[str]:
    """Return the ids of the cases that could not be predicted or scored."""
    return sorted({*failed, *(row.case for row in scores if row.status in UNSCORED)})


def print_tensorboard(run: Run) -> None:
    """Print the command that shows the run's training curves in TensorBoard."""
    console.print(f"[bold]TensorBoard[/]: tensorboard --logdir {run.folder.root / 'folds'}", highlight=False)
