"""The table of a network's parts: complete, in order, with the right sizes, for any network."""

import pytest
from rich.console import Console
from tiny_cohort import write_tiny_cohort
from tiny_networks import describe, plan_network
from typer.testing import CliRunner

from medunet.cli.app import app
from medunet.networks.builder import build_network
from medunet.networks.summary import network_table, summarise_network
from medunet.planning.architectures import ARCHITECTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_is_counted_once_and_the_last_row_is_the_output(name):
    plan = plan_network(name, 2)
    rows = summarise_network(plan, describe())
    network = build_network(plan, describe())
    assert sum(row.parameters for row in rows) == sum(weight.numel() for weight in network.parameters())
    assert rows[-1].output == (3, *plan.output_size)
    assert all(row.output for row in rows)
    assert all(row.layers for row in rows)


def test_rows_say_kernel_stride_size_and_parameters():
    planning = {"patch_size": (32, 24, 8), "base_features": 4}
    plan = plan_network("plain", 3, planning=planning, spacing_mm=(1.0, 1.0, 4.0), num_stages=2)
    rows = summarise_network(plan, describe(2))
    assert [(row.name, row.layers, row.output) for row in rows] == [
        ("encoder 0", "2 × conv 3×3×1", (4, 32, 24, 8)),
        ("encoder 1", "conv 3×3×3 /2×2×1, conv 3×3×3", (8, 16, 12, 8)),
        ("upsamplers 0", "transposed conv 2×2×1 /2×2×1", (4, 32, 24, 8)),
        ("decoder 0", "2 × conv 3×3×1", (4, 32, 24, 8)),
        ("heads 0", "conv 1×1×1", (3, 32, 24, 8)),
    ]
    assert rows[0].parameters == (9 * 2 * 4 + 3 * 4) + (9 * 4 * 4 + 3 * 4)
    console = Console(width=120, record=True)
    console.print(network_table(plan, describe(2)))
    text = console.export_text()
    assert "plain, 3D, input 2×32×24×8" in text
    assert f"{sum(row.parameters for row in rows):,}" in text


def test_the_command_shows_the_table(tmp_path):
    data, run = str(write_tiny_cohort(tmp_path / "data")), str(tmp_path / "run")
    network = "planning={base_features: 4, patch_size: [16, 16, 8], network: {name: residual_m}}"
    runner = CliRunner()
    commands = (
        ["manifest", "phantoms", "--run", run, "--set", network],
        ["check", run],
        ["plan", run, "--device", "cpu", "--summary"],
    )
    for command in commands:
        result = runner.invoke(app, [*command, "--data-root", data], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert "residual_m, 3D, input 1×16×16×8" in result.output
    assert "encoder 0" in result.output
    assert "total" in result.output
