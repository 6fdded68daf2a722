"""Pipeline for liver and liver tumours in CT: MSD Task03, or LiTS with `--set dataset=lits_2017`.

python pipelines/liver_tumour.py --data-root Task03_Liver [--external-root ct_abdomen] [--set training.max_minutes=60]

With `--external-root`, the trained model also segments scans of an external dataset, described by
`--external-dataset`, and is scored there on the liver.
"""

from pathlib import Path

from arguments import make_parser, open_run

from medunet.cli.exit_codes import run_and_exit
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.predict import run_predict
from medunet.commands.report import run_report
from medunet.commands.run import list_failed, print_tensorboard
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.runs.run import external_run


def main() -> list[str]:
    """Run all stages, then test the model on the external dataset."""
    parser = make_parser(__doc__, run="runs/liver_tumour")
    parser.add_argument("--external-root", type=Path, help="folder of an external dataset")
    parser.add_argument(
        "--external-dataset", default="totalsegmentator", help="its description (default: %(default)s)"
    )
    given = parser.parse_args()

    run = open_run(given, __file__)
    run_manifest(run)
    run_check(run)
    run_plan(run)
    run_train(run)
    failed = run_predict(run)
    scores = run_score(run)
    run_report(run)
    print_tensorboard(run)

    if given.external_root is not None:
        external = external_run(run, given.external_dataset, given.external_root)
        run_manifest(external)
        run_check(external)
        failed |= run_predict(external, model=run.folder.model(run.config.training.fold))
        scores += run_score(external, targets=("liver",))
        run_report(external)
    return list_failed(failed, scores)


if __name__ == "__main__":
    run_and_exit(main)
