"""Pipeline for cell nuclei in 2D microscopy images, Data Science Bowl 2018.

python pipelines/nuclei.py --data-root DIR [--folds-file folds.json] [--set training.max_minutes=15]
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
    """Run all stages; distances and areas are in pixels."""
    parser = make_parser(__doc__, run="runs/nuclei")
    parser.add_argument(
        "--folds-file",
        help='fixed folds, {"validation": [case, ...], "training": [case, ...]}; default: a random hold-out',
    )
    given = parser.parse_args()

    fixed = (f"folds_file={json.dumps(given.folds_file)}", "holdout=null") if given.folds_file else ()
    run = open_run(given, __file__, fixed)
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
