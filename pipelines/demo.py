"""Pipeline for synthetic abdominal CTs with liver tumours: from scans to scored masks and a report.

python pipelines/demo.py [--run runs/demo] [--set training.epochs=4]; the same as `medunet demo`
"""

from arguments import make_parser, open_run

from medunet.cli.exit_codes import run_and_exit
from medunet.commands.demo import make_cohort, run_demo


def main() -> list[str]:
    """Create the phantoms, run all stages, and check that the mean Dice reaches a minimum."""
    given = make_parser(__doc__, run="runs/demo").parse_args()
    given.data_root = make_cohort(given.data_root or given.run / "data")
    return run_demo(open_run(given, __file__))


if __name__ == "__main__":
    run_and_exit(main)
