"""Cell nuclei in 2D microscope pictures, on the Data Science Bowl 2018.

python pipelines/nuclei.py --data-root DIR [--folds-file folds.json] [--set training.max_minutes=15]
"""

import json

from arguments import make_parser, open_run

from medunet import stages
from medunet.cli import guard


def main() -> list[str]:
    """Do the seven stages; distances and areas are in pixels."""
    parser = make_parser(__doc__, run="runs/nuclei")
    parser.add_argument(
        "--folds-file",
        help='fixed folds, {"validation": [case, ...], "training": [case, ...]}; else a seeded share is held out',
    )
    given = parser.parse_args()

    fixed = (f"folds_file={json.dumps(given.folds_file)}", "holdout=null") if given.folds_file else ()
    run = open_run(given, __file__, fixed)
    stages.run_manifest(run)
    stages.run_check(run)
    stages.run_plan(run)
    stages.run_train(run)
    failed = stages.run_predict(run)
    scores = stages.run_score(run)
    stages.run_report(run)
    stages.say_tensorboard(run)
    return stages.list_failed(failed, scores)


if __name__ == "__main__":
    guard(main)
