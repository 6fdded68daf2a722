"""Liver and liver tumours in CT: MSD Task03, or LiTS with `--set dataset=lits_2017`.

python pipelines/liver_tumour.py --data-root Task03_Liver [--external-root ct_abdomen] [--set training.max_minutes=60]

With `--external-root` the trained model also outlines scans of another source, described by `--external-dataset`,
and is scored there on the liver.
"""

from pathlib import Path

from arguments import make_parser, open_run

from medunet import runs, stages
from medunet.cli import guard


def main() -> list[str]:
    """Do the seven stages, then try the model on scans from elsewhere."""
    parser = make_parser(__doc__, run="runs/liver_tumour")
    parser.add_argument("--external-root", type=Path, help="folder of scans from elsewhere")
    parser.add_argument(
        "--external-dataset", default="totalsegmentator", help="their description (%(default)s)"
    )
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

    if given.external_root is not None:
        elsewhere = runs.external_run(run, given.external_dataset, given.external_root)
        stages.run_manifest(elsewhere)
        stages.run_check(elsewhere)
        failed |= stages.run_predict(elsewhere, model=run.folder.model(run.config.training.fold))
        scores += stages.run_score(elsewhere, targets=("liver",))
        stages.run_report(elsewhere)
    return stages.list_failed(failed, scores)


if __name__ == "__main__":
    guard(main)
