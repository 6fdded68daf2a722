"""The floors: a file imports from floors below its own, rooms of one floor do not see each other, and what need not
load torch and MONAI does not, even indirectly."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

FLOORS = (
    ("base",),
    ("records",),
    ("imaging",),
    ("dataset", "phantoms", "planning", "drawing"),
    ("transforms", "networks", "scoring", "postprocessing", "compute"),
    ("inference",),
    ("training",),
    ("reporting",),
    ("runs",),
    ("commands",),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MAY_NOT_SEE = {("reporting", "inference"), ("reporting", "training")}  # reports are written without torch
HEAVY_ROOMS = {"transforms", "networks", "compute", "inference", "training"}
FILES = sorted((REPOSITORY / "medunet").rglob("*.py"))
HEAVY = ("torch", "monai", "SimpleITK", "highdicom", "openvino", "ray", "optuna")


def name_of(path: Path) -> str:
    """Return the module that a file is."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def room_of(module: str) -> str:
    """Return the room of a module such as medunet.imaging.nifti; "" for the package's own files."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def imports_of(path: Path) -> set[str]:
    """Return the modules of ours that a file imports anywhere in it, each with the imported name behind it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {f"{alias.name}." for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("medunet.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_only_from_floors_below(path: Path) -> None:
    room = room_of(name_of(path))
    if room == "":
        return
    for module in imports_of(path):
        other = room_of(module)
        if other in ("", room):
            continue
        assert (room, other) not in MAY_NOT_SEE, f"{room} imports {module}"
        assert FLOOR_OF[other] < FLOOR_OF[room], f"{room} imports {module}, which is not below it"


def test_every_folder_has_a_floor_and_no_module_lies_beside_them() -> None:
    assert {room_of(name_of(path)) for path in FILES} - {""} == set(FLOOR_OF)
    assert {path.name for path in (REPOSITORY / "medunet").glob("*.py")} == {"__init__.py", "__main__.py"}


def test_light_rooms_load_neither_torch_nor_monai() -> None:
    light = [name_of(path) for path in FILES if room_of(name_of(path)) not in HEAVY_ROOMS]
    modules = [name for name in light if not name.endswith(("__main__", "__init__"))]
    code = f"import sys, {', '.join(modules)}; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_only_commands_and_the_command_line_print() -> None:
    for path in FILES:
        if room_of(name_of(path)) not in ("commands", "cli") and path.name != "progress.py":
            text = path.read_text()
            assert "rich.console" not in text, f"{path.name} speaks to the terminal"
            assert "medunet.commands.terminal" not in text, f"{path.name} speaks to the terminal"
