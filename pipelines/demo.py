"""The main job on an embedded cohort of synthetic abdominal CTs: from scans to scored masks and a report.

python pipelines/demo.py [--run runs/demo] [--set training.max_minutes=5]
"""

from arguments import make_parser, open_run

from medunet import stages
from medunet.cli import guard
from medunet.dataset.phantoms.phantom import write_cohort


def main() -> list[str]:
    """Make the cohort, then do the seven stages one after another."""
    given = make_parser(__doc__, run="runs/demo").parse_args()
    given.data_root = given.data_root or given.run / "data"
    write_cohort(given.data_root, num_cases=20)

    run = open_run(given, __file__)
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
