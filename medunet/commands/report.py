"""`medunet report`: write an HTML page for each case and an index."""

from pathlib import Path

from medunet.commands.alone import alone
from medunet.commands.terminal import print_stage
from medunet.runs.run import Run


@alone("report")
def run_report(run: Run) -> Path:
    """Write the pages of the report and return the path of the index."""
    from medunet.reporting.report import report_run
    from medunet.scoring.tables import read_lesions, read_scores

    scores = read_scores(run.folder.need(run.folder.scores, "score"))
    lesions = run.folder.root / "lesions.csv"
    index = report_run(
        run.folder,
        run.data_root,
        scores=scores,
        lesions=read_lesions(lesions) if lesions.exists() else None,
    )
    print_stage("Report", "open in a browser", index)
    return index
