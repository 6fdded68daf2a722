"""The run configuration: unknown keys and wrong values refused by name, changes made on top."""

from pathlib import Path

import pytest
from conftest import REPOSITORY

from medunet.base.errors import InputError
from medunet.records.config import Config, change_config, load_config


def test_changes_are_read_as_yaml_and_made_on_top():
    config = change_config(
        {"dataset": "x"}, ["training.max_minutes=8", "training.fold=all", "device=cpu"], "t"
    )
    assert (config.training.max_minutes, config.training.fold, config.device) == (8.0, "all", "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.max_minutes", "has no '='"),
        ("training.max_minuts=8", r"training\.max_minuts: Extra inputs"),
        ("training.epochs=0", r"training\.epochs: .*greater than or equal to 1"),
        ("device.x=1", "is a value, not a section"),
        ("planning.patch_size=[64, 64]", "has 2 axes but planning.dimensions is 3"),
        ("training.fold=first", r"training\.fold"),
        ("training.validate_every=2", r"training\.validate_every: Extra inputs"),
        ("training.learning_rate=1000", r"training\.learning_rate: .*less than or equal to 10"),
        ("training.max_minutes=.inf", r"training\.max_minutes: .*finite"),
        ("seed=-1", r"seed: .*greater than or equal to 0"),
        ("seed=2020-13-45", "seed: '2020-13-45' is not a valid YAML value"),
        ("planning.patch_size=[0, 0, 0]", r"planning\.patch_size\.0: .*equal to 1"),
        ("planning.patch_size=[8, -8, 8]", r"planning\.patch_size\.1: .*equal to 1"),
        ("planning.spacing_mm=[0, 1, 1]", r"planning\.spacing_mm\.0: .*equal to 0\.0001"),
        ("planning.spacing_mm=[1, 1, -1]", r"planning\.spacing_mm\.2: .*equal to 0\.0001"),
        ("planning.spacing_mm=[1, 1000, 1]", r"planning\.spacing_mm\.1: .*equal to 100"),
        ("planning.spacing_mm=[1, .nan, 1]", r"planning\.spacing_mm\.1: "),
        (
            "planning={base_features: 32, max_features: 8}",
            r"max_features 8 is smaller than .*base_features 32",
        ),
        ("scoring.tolerances_mm=[1, -1]", r"scoring\.tolerances_mm\.1: .*equal to 0"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(InputError, match=message):
        change_config({"dataset": "x", "device": "cpu"}, [change], "config.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- dataset: x", "has no keys"),
        ("", "has no keys"),
        ("dataset: x\ntraining:\nplanning: [1]\n", "has no keys below planning, training"),
        ("dataset: x\ninference: {postprocess: null}\n", r"inference\.postprocess: "),
        ("dataset: x\nseed: 2020-13-45\n", "not valid YAML"),
    ],
)
@pytest.mark.parametrize("changes", [(), ("training.epochs=3",)])
def test_files_without_keys_where_keys_belong_are_named(tmp_path, text, message, changes):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"config\.yaml: .*{message}"):
        load_config(tmp_path / "config.yaml", changes)


def test_configuration_round_trip(tmp_path):
    steps = "inference.postprocess.liver=[keep_largest: true, closing_mm: 3]"
    config = change_config({"dataset": "x"}, [steps], "t")
    config.write(tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "    liver:\n    - keep_largest: true\n    - closing_mm: 3.0\n" in text
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{closing_mm: 3, keep_largest: true}", r"liver\.0: .*one key, not \['closing_mm', 'keep_largest'\]"),
        ("{}", r"liver\.0: .*one key, not \[\]"),
        ("{closing: 3}", r"liver\.0\.closing: Extra inputs"),
        ("{opening_mm: 0}", r"liver\.0\.opening_mm: .*greater than 0"),
        ("{keep_largest: false}", r"liver\.0\.keep_largest: "),
    ],
)
def test_mistakes_in_postprocessing_steps_are_named(step, message):
    with pytest.raises(InputError, match=rf"inference\.postprocess\.{message}"):
        change_config({"dataset": "x"}, [f"inference.postprocess.liver=[{step}]"], "config.yaml")


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "pipelines").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_pipeline_has_its_configuration_headed_by_its_command(path: Path):
    assert isinstance(load_config(path), Config)
    assert path.read_text().startswith(f"# python pipelines/{path.stem}.py")
    assert path.with_suffix(".py").exists()
    assert f"python pipelines/{path.stem}.py" in path.with_suffix(".py").read_text()
