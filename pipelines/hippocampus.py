"""Pipeline for the anterior and posterior hippocampus in MR, Medical Segmentation Decathlon task 4.

python pipelines/hippocampus.py --data-root DIR [--folds-file folds.json] [--set training.max_minutes=8]
"""

import json

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


def main() -> list[str]:
    """Run all stages; faults in unmatched files are reported but do not stop training."""
    parser = make_parser(__doc__, run="runs/hippocampus")
    parser.add_argument(
        "--folds-file", help='fixed folds, {"folds": [[case, ...], ...]}; default: seeded folds'
    )
    given = parser.parse_args()

    run = open_run(
        given, __file__, (f"folds_file={json.dumps(given.folds_file)}",) if given.folds_file else ()
    )
    run_manifest(run)
    run_check(run)
    run_plan(run)
    run_train(run)
    failed = run_predict(run)
    scores = run_score(run)
    run_report(run)
    print_tensorboard(run)
    return list_failed(failed, scores)


if __name__ == "__main__":
    run_and_exit(main)
