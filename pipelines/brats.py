"""Glioma in four MR modalities: whole tumour, tumour core, enhancing tumour.

python pipelines/brats.py --data-root BraTS2021 [--readers DIR --case ID] [--set dataset=brats_2023_glioma]

With `--readers` the label maps in a folder, by several readers or algorithms for one case, are scored against that
case's label, as a radiology group compares its readers.
"""

from pathlib import Path

from arguments import make_parser, open_run

from medunet import adhoc, runs, stages
from medunet.cli import guard


def main() -> list[str]:
    """Do the seven stages, then compare readers."""
    parser = make_parser(__doc__, run="runs/brats")
    parser.add_argument("--readers", type=Path, help="folder of label maps of one case")
    parser.add_argument("--case", help="the case that the readers outlined (default: the only one)")
    given = parser.parse_args()

    run = open_run(given, __file__)
    stages.run_manifest(run)
    stages.run_check(run)
    stages.run_plan(run)
    stages.run_train(run)
    failed = stages.run_predict(run)
    scores = stages.run_score(run)
    stages.run_report(run)
    stages.say_tensorboard(run)

    if given.readers is not None:
        reference = runs.label_of(run, given.case)
        scores += adhoc.score_masks_of(reference, given.readers, run.folder.root / "readers", run.config)
    return stages.list_failed(failed, scores)


if __name__ == "__main__":
    guard(main)
