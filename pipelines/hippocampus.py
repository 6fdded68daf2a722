"""Hippocampus, anterior and posterior, on the Medical Segmentation Decathlon's task 4.

python pipelines/hippocampus.py --data-root DIR [--folds-file folds.json] [--set training.max_minutes=8]
"""

import json

from arguments import make_parser, open_run

from medunet import stages
from medunet.cli import guard


def main() -> list[str]:
    """Do the seven stages; faults in unmatched files are shown, and training goes on without them."""
    parser = make_parser(__doc__, run="runs/hippocampus")
    parser.add_argument("--folds-file", help='fixed folds, {"folds": [[case, ...], ...]}; else seeded ones')
    given = parser.parse_args()

    run = open_run(
        given, __file__, (f"folds_file={json.dumps(given.folds_file)}",) if given.folds_file else ()
    )
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
