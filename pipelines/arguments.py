"""Command-line options shared by all pipeline scripts."""

import argparse
from pathlib import Path

from medunet.runs import run as runs


def make_parser(description: str | None, *, run: str) -> argparse.ArgumentParser:
    """Return a parser for --run, --data-root, --set, --device and --debug; scripts add their own options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=Path(run), help="folder of the run (default: %(default)s)"
    )
    parser.add_argument("--data-root", type=Path, help="folder of the scans; default: MEDUNET_DATA_ROOT")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the configuration"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def open_run(given: argparse.Namespace, script: str, changes: tuple[str, ...] = ()) -> runs.Run:
    """Open the run with the YAML file next to the script, the script's changes and those of the command line."""
    all_changes = [*changes, *([f"device={given.device}"] if given.device else []), *given.set]
    config_file = Path(script).with_suffix(".yaml")
    return runs.open_run(given.run, given.data_root, config_file=config_file, changes=all_changes)
