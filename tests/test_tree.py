"""The tree in docs/architecture.md names every file, each with the first line of its docstring or its title."""

import ast
import re
from pathlib import Path

import yaml
from conftest import REPOSITORY

FOLDERS = {"medunet": "py", "pipelines": "py", "benchmarks": "py", "data_manifests": "yaml"}


def read_tree() -> dict[str, str]:
    """Return the text behind each path of the tree, which is indented by two blanks for each folder."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    (tree,) = re.findall(r"<!-- tree -->\s+```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    above: list[str] = []
    entries = {}
    for line in filter(str.strip, tree.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, text = line.strip().partition(" ")
        above = [*above[:depth], name.rstrip("/")]
        entries["/".join(above)] = text.strip()
    return entries


def describe(path: Path) -> str:
    """Return what the tree says of a file: the first line of a module's docstring, or a description's title."""
    if path.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, f"{path.name} has no docstring"
        return docstring.splitlines()[0].removesuffix(".")
    return yaml.safe_load(path.read_text())["title"]


def test_tree_names_every_file_and_no_other():
    entries = read_tree()
    assert [path for path in entries if not (REPOSITORY / path).exists()] == []
    files = {
        path.relative_to(REPOSITORY).as_posix(): describe(path)
        for folder, ending in FOLDERS.items()
        for path in (REPOSITORY / folder).rglob(f"*.{ending}")
    }
    assert {path: text for path, text in files.items() if entries.get(path) != text} == {}
