"""The main job on an embedded cohort of synthetic abdominal CTs: from scans to scored masks and a report.

python pipelines/demo.py [--run runs/demo] [--set training.epochs=4]; the same as `medunet demo`
"""

from arguments import make_parser, open_run

from medunet.cli.guard import guard
from medunet.commands.demo import make_cohort, run_demo


def main() -> list[str]:
    """Make the cohort, do the seven stages one after another, and hold the scores against their floors."""
    given = make_parser(__doc__, run="runs/demo").parse_args()
    given.data_root = make_cohort(given.data_root or given.run / "data")
    return run_demo(open_run(given, __file__))


if __name__ == "__main__":
    guard(main)
