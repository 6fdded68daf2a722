"""The README keeps its word: two commands first, every file in the tree, every command and option real."""

import re
import subprocess
import sys

import pytest
import typer
from conftest import REPOSITORY

from medunet.cli import app

TEXT = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", TEXT, flags=re.S | re.M)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("medunet ")]
SCRIPTS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python pipelines/")]


def test_first_block_is_the_two_commands():
    assert BLOCKS[0].splitlines() == ["make demo", "make test"]


def test_tree_names_every_file():
    tree = TEXT.split("```text")[1].split("```")[0]
    listed = {line.split()[0] for line in tree.splitlines() if line.strip()}
    for folder in ("medunet", "pipelines", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert path.name in listed, f"{path.name} is not in the README's tree"
    known = {path.name for path in REPOSITORY.rglob("*") if ".venv" not in path.parts}
    assert {name.rstrip("/").split("/")[-1] for name in listed} - known == set()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_their_options_exist(line):
    name, *arguments = line.removeprefix("medunet ").split()
    command = typer.main.get_command(app).commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= options


@pytest.mark.parametrize("line", SCRIPTS)
def test_pipelines_and_their_options_exist(line):
    script, *arguments = line.removeprefix("python ").split()
    shown = subprocess.run(
        [sys.executable, script, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert all(argument in shown.stdout for argument in arguments if argument.startswith("--"))


def test_pictures_exist():
    for path in re.findall(r"!\[[^]]*]\(([^)]+)\)", TEXT):
        assert (REPOSITORY / path).is_file(), path
