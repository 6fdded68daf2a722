"""The floors: a file imports from floors below its own, islands do not see each other, and the lower floors and
scoring run without torch and MONAI, even indirectly."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

FLOORS = {
    **dict.fromkeys(
        (
            *("errors", "files", "records", "case_scores", "plans", "stored", "config", "pool", "progress"),
            *("speech", "processor", "free_memory", ""),
        ),
        0,
    ),
    "imaging": 1,
    **dict.fromkeys(("dataset", "planning"), 2),
    **dict.fromkeys(("transforms", "networks", "scoring", "postprocessing", "compute"), 3),
    "inference": 4,
    "training": 5,
    "reporting": 6,
    **dict.fromkeys(
        (
            "runs",
            "computing",
            "demo",
            "grading",
            "comparing",
            "fetching",
            "importing",
            "trials",
            "stages",
            "adhoc",
            "cli",
            "cli_intake",
            "cli_options",
            "cli_devices",
            "showing",
            "recognising",
        ),
        7,
    ),
}
ISLAND = {
    "transforms": "transforms",
    "networks": "networks",
    "scoring": "scoring",
    "postprocessing": "scoring",
    "compute": "compute",
}
LIGHT_ROOMS = {room for room, floor in FLOORS.items() if floor < 3} | {
    "scoring",
    "postprocessing",
    "reporting",
}
FILES = sorted((REPOSITORY / "medunet").rglob("*.py"))


def room_of(module: str) -> str:
    """Return the room of a module such as medunet.imaging.nifti."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__init__" else ""


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from medunet import stages` names a room; `from medunet import __version__` does not.
            names = [alias.name for alias in node.names if not alias.name.startswith("__")]
            found |= {f"medunet.{name}" for name in names} if node.module == "medunet" else {node.module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_only_from_floors_below(path: Path) -> None:
    room = room_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
    for module in imports_of(path):
        if not module.startswith("medunet"):
            continue
        other = room_of(module)
        assert other in FLOORS, f"{other} has no floor"
        if other == room or other == "":
            continue
        if FLOORS[room] == FLOORS[other] == 3:
            assert ISLAND[room] == ISLAND[other], f"{room} imports {other}, another island"
        elif FLOORS[room] not in (0, 2, 7):
            assert FLOORS[other] < FLOORS[room], f"{room} imports {other}, which is not below it"
        else:
            assert FLOORS[other] <= FLOORS[room], f"{room} imports {other}, which is above it"
        if room == "reporting":
            assert FLOORS[other] < 4, f"reporting imports {other}"


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts)) for path in FILES}
    assert rooms == set(FLOORS)


def test_light_rooms_load_neither_torch_nor_monai() -> None:
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in FILES
        if room_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts)) in LIGHT_ROOMS
    ]
    heavy = "[name for name in ('torch', 'monai', 'SimpleITK') if name in sys.modules]"
    code = f"import sys, {', '.join(modules)}, medunet.cli; print({heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
