"""The README keeps its word: two commands first, every file in the tree, every command, option and key real."""

import importlib
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from typing import get_args

import pytest
import typer
import yaml
from conftest import REPOSITORY

from medunet.cli.app import app
from medunet.planning.architectures import choose_architecture
from medunet.records.config import (
    NetworkConfig,
    NetworkName,
    PostprocessStep,
    ScoringConfig,
    TrainingConfig,
    change_config,
)
from medunet.records.description import Description

TEXT = (REPOSITORY / "README.md").read_text()
BLOCKS = defaultdict(list)  # by language, "" for commands
for language, content in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.S | re.M):
    BLOCKS[language].append(content)
LINES = [line for block in BLOCKS[""] for line in block.splitlines()]
COMMANDS = [match[1] for line in LINES if (match := re.search(r"(?:^medunet|-m medunet\.cli) (.*)", line))]
SCRIPTS = [line for line in LINES if re.match(r"python (pipelines|benchmarks)/", line)]
OPTIONS_NOT_KEYS = {"fold", "init_from", "ram_gb"}  # of training: --fold, --from, --ram-gb


def keys_of_table(heading: str) -> set[str]:
    """Return the names in backticks in the first column of the table that begins with a heading."""
    table = TEXT.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    rows = table.splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_first_block_is_the_two_commands():
    assert BLOCKS[""][0].splitlines() == ["make demo", "make test"]


def test_tree_names_every_file():
    (tree,) = BLOCKS["text"]
    listed = {line.split()[0] for line in tree.splitlines() if line.strip()}
    for folder, ending in (
        ("medunet", "py"),
        ("pipelines", "py"),
        ("benchmarks", "py"),
        ("data_manifests", "yaml"),
    ):
        for path in (REPOSITORY / folder).rglob(f"*.{ending}"):
            assert path.name in listed, f"{path.name} is not in the README's tree"
    known = {path.name for path in REPOSITORY.rglob("*") if ".venv" not in path.parts}
    assert {name.rstrip("/").split("/")[-1] for name in listed} - known == set()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_their_options_exist(line):
    name, *arguments = shlex.split(line)
    command = typer.main.get_command(app).commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= options


@pytest.mark.parametrize("script", sorted({line.split()[1] for line in SCRIPTS}))
def test_scripts_and_their_options_exist(script):
    given = [argument for line in SCRIPTS if line.split()[1] == script for argument in shlex.split(line)]
    shown = subprocess.run(
        [sys.executable, script, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert {argument for argument in given if argument.startswith("--")} <= set(
        re.findall(r"--[a-z-]+", shown.stdout)
    )


@pytest.mark.parametrize("line", [line for line in LINES if "--set" in line])
def test_keys_and_values_that_commands_set_are_accepted(line):
    arguments = shlex.split(line)
    changes = [value for option, value in pairwise(arguments) if option == "--set"]
    config = change_config({"dataset": "any"}, changes, "README.md")
    choose_architecture(config.planning)


@pytest.mark.parametrize("text", BLOCKS["yaml"])
def test_yaml_can_be_used(text):
    plain = yaml.safe_load(text)
    if "layout" in plain:
        Description.parse(plain, "README.md")
    else:
        change_config({"dataset": "any", **plain}, [], "README.md")


def test_tables_name_every_network_and_key():
    assert keys_of_table("`planning.network.name`") == set(get_args(NetworkName))
    of_network = {name for name in keys_of_table("key") if name.startswith("planning.network.")}
    assert of_network == {f"planning.network.{key}" for key in NetworkConfig.model_fields} - {
        "planning.network.name"
    }
    assert keys_of_table("key below `training`") == set(TrainingConfig.model_fields) - OPTIONS_NOT_KEYS
    assert keys_of_table("key below `scoring`") == set(ScoringConfig.model_fields)
    assert keys_of_table("step") == set(PostprocessStep.model_fields)


@pytest.mark.parametrize("text", BLOCKS["python"])
def test_python_runs(text, capsys):
    exec(compile(text, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", re.findall(r"`(medunet\.[a-z_.]+\.\w+)`", TEXT))
def test_names_to_import_exist(name):
    module, _, member = name.rpartition(".")
    assert hasattr(importlib.import_module(module), member)


def test_pictures_exist():
    for path in re.findall(r"!\[[^]]*]\(([^)]+)\)", TEXT):
        assert (REPOSITORY / path).is_file(), path
