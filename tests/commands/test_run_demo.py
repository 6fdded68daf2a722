"""What `medunet demo` prints, and where an installed package finds its configuration."""

import math
import tomllib

import pytest
from conftest import REPOSITORY

from medunet.commands import demo
from medunet.records.config import load_config
from medunet.records.scores import CaseScore


def rows(liver: tuple[float, ...], tumour: tuple[float, ...]) -> list[CaseScore]:
    values = {"liver": liver, "tumour": tumour}
    return [
        CaseScore(f"case_{number}", label, "both_empty" if math.isnan(dice) else "ok", "area", dice=dice)
        for label, all_dice in values.items()
        for number, dice in enumerate(all_dice)
    ]


@pytest.mark.parametrize(
    ("liver", "tumour", "low"),
    [
        ((0.95, 0.91), (0.7, 0.6), []),
        ((0.95, 0.91), (0.7, math.nan), []),  # a phantom without a tumour says nothing of tumours
        ((0.95, 0.91), (0.7, 0.49), ["tumour"]),
        ((0.88, 0.91), (0.7, 0.7), ["liver"]),
        ((0.88, 0.91), (math.nan, math.nan), ["liver", "tumour"]),
    ],
)
def test_the_last_line_holds_the_scores_against_the_floors(capsys, liver, tumour, low):
    assert demo.check_minimum_dice(rows(liver, tumour)) == low
    said = capsys.readouterr().out
    assert "at least 0.90" in said
    assert ("passed" in said) is (not low)
    assert all(f"{name} too low" in said or f"{name} and" in said for name in low)


def test_the_recipe_ends_by_steps_and_lies_in_the_wheel():
    config = load_config(demo.config_path())
    assert config.training.max_minutes is None
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["pipelines/demo.yaml"] == "medunet/pipelines/demo.yaml"
    assert demo.config_path() == (REPOSITORY / "pipelines/demo.yaml")
