"""README, CHANGELOG and docs/ keep their word: links, commands, options, keys, files, names and code are real."""

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from conftest import REPOSITORY
from pydantic import BaseModel
from typer.testing import CliRunner

from medunet.cli.app import app
from medunet.commands.load_models import PredictOptions
from medunet.commands.predict import predict_images
from medunet.compute.choice_cache import SETTINGS
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.imaging.formats import FORMATS
from medunet.imaging.volumes import read_header
from medunet.planning.architectures import choose_architecture
from medunet.records.config import (
    Config,
    InferenceConfig,
    NetworkConfig,
    NetworkName,
    PlanningConfig,
    PostprocessStep,
    ReportConfig,
    ScoringConfig,
    TrainingConfig,
    TuningConfig,
    change_config,
)
from medunet.records.description import Description

README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
MOST_README_LINES = 200
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands
CONTAINERS = ("docker", "apptainer")
SECTIONS = "planning|training|inference|scoring|report|tuning"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    """Return a page's path in the repository, as tests are called by it."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the contents of a page's code blocks in any of the languages."""
    return [content for language, content in _FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def in_backticks(page: Path) -> list[str]:
    """Return what a page's prose has in backticks, each on one line."""
    return [re.sub(r"\s+", " ", text) for text in re.findall(r"`([^`]+)`", prose(page))]


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    """Yield the page and the words of every command line, without variables that are set in front of it."""
    for page in PAGES:
        for line in (line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()):
            words = shlex.split(line)
            while "=" in words[0]:
                del words[0]
            yield name_of(page), words


def medunet_calls() -> Iterator[tuple[str, str, list[str]]]:
    """Yield page, command and arguments of calls of medunet in code blocks, by torchrun, srun or images too.

    A job script of Slurm hands its arguments to the command in its name.
    """
    for page, words in shell_lines():
        for script in (word for word in words if word.endswith(".sbatch")):
            assert (REPOSITORY / script).is_file(), script
            yield page, re.split(r"[_.]", Path(script).name)[0], words[words.index(script) + 1 :]
        starts = [
            index
            for index, (before, word) in enumerate(pairwise(["", *words]))
            if (index == 0 and word == "medunet") or (before == "-m" and word in ("medunet", "medunet.cli"))
        ]
        if words[0] in CONTAINERS and words[1] == "run":
            starts = [
                n for n, word in enumerate(words) if re.fullmatch(r"medunet(:cuda)?|medunet.*\.sif", word)
            ]
            assert starts, (page, words)
        if starts:
            yield page, words[starts[0] + 1], words[starts[0] + 2 :]


LINES = list(shell_lines())
CALLS = list(medunet_calls())
SCRIPTS = [(page, words[1], words[2:]) for page, words in LINES if words[0] == "python" and words[1] != "-m"]
SET_LINES = [(page, words) for page, words in LINES if "--set" in words]
PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)


def each(found: list[Any], *columns: str) -> pytest.MarkDecorator:
    """Run a test for each of what the pages hold; nothing found is a failure of the search."""
    assert found, columns
    return pytest.mark.parametrize(columns if len(columns) > 1 else columns[0], found)


# ---- the README and its pages -----------------------------------------------------------------------------------


def test_first_block_is_the_two_commands():
    (_, first), *_ = _FENCE.findall(README.read_text())
    assert first.splitlines() == ["make demo", "make test"]


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= MOST_README_LINES


def test_readme_leads_to_every_page():
    links = {target.partition("#")[0] for target in links_of(README)}
    assert {name_of(page) for page in PAGES} - {"README.md"} <= links


def test_readme_names_every_command():
    named = {words.split()[1] for words in in_backticks(README) if words.startswith("medunet ")}
    called = {words[1] for page, words in LINES if page == "README.md" and words[0] == "medunet"}
    assert set(COMMANDS) - named - called == set()


def links_of(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures, other web sites' left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not target.startswith(("http:", "https:"))]


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives a page's headings."""
    anchors: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w -]", "", plain).replace(" ", "-")
        same = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in anchors)
        anchors.append(f"{anchor}-{same}" if same else anchor)
    return frozenset(anchors)


@PAGE
def test_links_lead_to_a_file_and_a_heading(page):
    broken = []
    for target in links_of(page):
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert broken == []


@PAGE
def test_files_in_backticks_exist(page):
    folders = "medunet|pipelines|benchmarks|data_manifests|notebooks|tests|docs"
    named = {
        match[0] for text in in_backticks(page) if (match := re.fullmatch(rf"({folders})/[\w./-]*", text))
    }
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()


@PAGE
def test_fault_codes_exist(page):
    codes = {text for text in in_backticks(page) if re.fullmatch(r"[NDLPS]\d{3}", text)}
    codes |= set(re.findall(r"^\| ([NDLPS]\d{3}) \|", prose(page), re.MULTILINE))
    assert codes <= set(FAULT_KINDS)


# ---- commands ---------------------------------------------------------------------------------------------------


@each(LINES, "page", "words")
def test_lines_are_of_programs_that_are_checked(page, words):
    known = (
        "medunet",
        "python",
        "make",
        "torchrun",
        "srun",
        "sbatch",
        "pip",
        "source",
        "export",
        *CONTAINERS,
    )
    assert words[0] in known, f"{page}: {words[0]}"
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    if words[:2] == ["python", "-m"] and words[2] not in ("medunet", "medunet.cli"):
        assert importlib.util.find_spec(words[2]) is not None
        assert all((REPOSITORY / word).exists() for word in words if word.startswith("tests/"))


@each(CALLS, "page", "name", "arguments")
def test_commands_take_these_arguments(page, name, arguments):
    assert name in COMMANDS, page
    COMMANDS[name].make_context(name, list(arguments))


@each(sorted(COMMANDS), "name")
def test_help_is_shown(name):
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@PAGE
def test_commands_in_backticks_and_their_options_exist(page):
    for text in in_backticks(page):
        match = re.match(r"medunet ([a-z][a-z-]*)", text)
        if match is None:
            continue
        assert match[1] in COMMANDS, text
        options = {option for parameter in COMMANDS[match[1]].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", text)) <= {*options, "--help"}, text


@PAGE
def test_options_in_backticks_exist(page):
    known = {
        option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts
    }
    known |= {"--help", "--debug"}
    named = {match[1] for text in in_backticks(page) if (match := re.match(r"(--[a-z-]+)", text))}
    assert named <= known


@cache
def options_of(script: str) -> frozenset[str]:
    """Return the options that a script's `--help` names."""
    shown = subprocess.run(
        [sys.executable, script, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return frozenset(re.findall(r"--[a-z-]+", shown.stdout))


@each(SCRIPTS, "page", "script", "arguments")
def test_scripts_and_their_options_exist(page, script, arguments):
    assert (REPOSITORY / script).is_file(), page
    assert {argument for argument in arguments if argument.startswith("--")} <= options_of(script)


# ---- the configuration ------------------------------------------------------------------------------------------


@each(SET_LINES, "page", "words")
def test_keys_and_values_that_commands_set_are_accepted(page, words):
    changes = [value for option, value in pairwise(words) if option == "--set"]
    if words[:2] == ["medunet", "devices"]:
        assert {change.partition("=")[0] for change in changes} <= set(SETTINGS)
        return
    config = change_config({"dataset": "any"}, changes, page)
    choose_architecture(config.planning)


@each([(name_of(page), text) for page in PAGES for text in blocks(page, "yaml")], "page", "text")
def test_yaml_can_be_used(page, text):
    plain = yaml.safe_load(text)
    if "layout" in plain:
        Description.parse(plain, page)
    else:
        change_config({"dataset": "any", **plain}, [], page)


@each([(name_of(page), text) for page in PAGES for text in blocks(page, "json")], "page", "text")
def test_json_can_be_read(page, text):
    assert json.loads(text)["schema"].startswith("medunet.")


def keys_of_table(page: str, heading: str) -> set[str]:
    """Return the names in backticks in the first column of the table that begins with a heading."""
    table = (REPOSITORY / page).read_text().split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    rows = table.splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


TABLES: list[tuple[str, str, set[str]]] = [
    ("docs/planning.md", "`planning.network.name`", set(get_args(NetworkName))),
    ("docs/planning.md", "key below `planning`", set(PlanningConfig.model_fields)),
    ("docs/planning.md", "key below `planning.network`", set(NetworkConfig.model_fields)),
    ("docs/training.md", "key below `training`", set(TrainingConfig.model_fields)),
    ("docs/training.md", "key below `tuning`", set(TuningConfig.model_fields)),
    ("docs/prediction.md", "key below `inference`", set(InferenceConfig.model_fields)),
    ("docs/prediction.md", "step", set(PostprocessStep.model_fields)),
    (
        "docs/formats.md",
        "ending",
        {end for each in FORMATS if each.may_be_image or each.may_be_label for end in each.endings},
    ),
    ("docs/scores.md", "key below `scoring`", set(ScoringConfig.model_fields)),
    ("docs/reports.md", "key below `report`", set(ReportConfig.model_fields)),
    (
        "docs/intake.md",
        "key at the top level",
        set(Config.model_fields) - set(SECTIONS.split("|")) - {"device"},  # --device, which no run keeps
    ),
    ("docs/intake.md", "name", {path.stem for path in (REPOSITORY / "data_manifests").glob("*.yaml")}),
    (
        "docs/formats.md",
        "key",
        {field.alias or name for name, field in Description.model_fields.items()},
    ),
]


@each(TABLES, "page", "heading", "expected")
def test_tables_name_every_key(page, heading, expected):
    assert keys_of_table(page, heading) == expected


def is_key(dotted: str) -> bool:
    """Say whether the configuration has a key, given with its sections."""
    model: Any = Config
    for part in dotted.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields):
            return False
        model = model.model_fields[part].annotation
    return True


@PAGE
def test_keys_in_backticks_exist(page):
    named = {
        match[1]
        for text in in_backticks(page)
        if (match := re.match(rf"((?:{SECTIONS})\.[a-z_.]+)(?:$|[=: ])", text))
        and not match[1].endswith(".csv")
    }
    named -= set(SETTINGS)  # of `medunet devices`, which are this computer's
    assert {key for key in named if not is_key(key)} == set()


# ---- Python and the tree ----------------------------------------------------------------------------------------


@each(
    [
        (name_of(page), text)
        for page in PAGES
        for text in blocks(page, "python")
        if "folds/0/model" not in text and "probabilities/ct1" not in text
    ],
    "page",
    "text",
)
def test_python_runs(page, text, capsys):
    exec(compile(text, page, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_a_scan_in_memory_is_predicted(own_run, tmp_path, monkeypatch, capsys):
    text, of_probabilities = blocks(REPOSITORY / "docs/prediction.md", "python")
    shutil.copytree(own_run.folder.model(0), tmp_path / "runs/liver/folds/0/model")
    scan = sorted((own_run.data_root / "imagesTr").iterdir())[0]
    shutil.copy(scan, tmp_path / "ct1.nii.gz")
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "docs/prediction.md", "exec"), {})
    shape = read_header(scan).shape
    assert capsys.readouterr().out.startswith(str(shape))
    model = tmp_path / "runs/liver/folds/0/model"
    predict_images([model], [Path("ct1.nii.gz")], Path("masks"), None, device_name="cpu", overwrite=False,
                   options=PredictOptions("fp32", "torch", maps=("probabilities",)))  # fmt: skip
    capsys.readouterr()
    exec(compile(of_probabilities.replace("40]", "4]"), "docs/prediction.md", "exec"), {})
    assert str(shape)[1:] in capsys.readouterr().out


@each(
    [name for page in PAGES for name in in_backticks(page) if re.fullmatch(r"medunet\.[a-z_.]+\.\w+", name)],
    "name",
)
def test_names_to_import_exist(name):
    module, _, member = name.rpartition(".")
    assert hasattr(importlib.import_module(module), member)
