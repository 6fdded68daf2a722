"""training.csv and curves.png say what the checkpoint's history says, whatever its values."""

import io
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medunet.runs.run import Run
from medunet.training import curves
from medunet.training.curves import Curves, draw_curves, history_csv
from medunet.training.module import SegmentationModule

DRAW = Curves._draw  # before conftest replaces it


def history(*hd95_mm: float, dice: float = 0.8) -> list[dict[str, float]]:
    """Return an epoch for each HD95 of the tumour."""
    return [
        {"epoch": number, "step": 250 * (number + 1), "minutes": 0.5 * (number + 1), "learning_rate": 1e-7 / 3,
         "loss": 1 / (number + 2), "validation_loss": math.nan, "patches_per_s": 12345.678, "dice": dice,
         "dice_liver": dice, "hd95_mm_liver": 2.0, "dice_tumour": math.nan, "hd95_mm_tumour": value}
        for number, value in enumerate(hd95_mm)
    ]  # fmt: skip


def test_the_table_agrees_with_the_checkpoint(finished_run: Run):
    folder = finished_run.folder.fold(0)
    rows = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["medunet"]["history"]
    table = pd.read_csv(folder / "training.csv")
    assert list(table.columns) == list(rows[0])
    np.testing.assert_allclose(table.to_numpy(float), [list(row.values()) for row in rows], rtol=1e-5)
    assert {"minutes", "learning_rate", "loss", "validation_loss", "dice", "hd95_mm_tumour"} <= set(
        table.columns
    )


def test_the_picture_is_drawn(finished_run: Run):
    picture = Image.open(finished_run.folder.fold(0) / "curves.png")
    assert picture.size == (1600, 420)
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_the_picture_is_drawn_each_minute_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock, drawn = SimpleNamespace(now=0.0), []
    figure = SimpleNamespace(savefig=lambda *_, **__: drawn.append(clock.now))
    monkeypatch.setattr(curves.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(curves, "draw_curves", lambda rows: figure)
    monkeypatch.setattr(Curves, "_draw", DRAW)
    module, callback = MagicMock(spec=SegmentationModule, history=history(1.5)), Curves(tmp_path)
    for clock.now in (20.0, 61.0, 90.0, 130.0):
        callback.on_train_epoch_end(MagicMock(), module)
        assert (tmp_path / "training.csv").exists()
    callback.on_train_end(MagicMock(), module)
    assert drawn == [61.0, 130.0, 130.0]


def test_undefined_is_blank_infinite_is_inf_and_small_is_not_zero():
    text = history_csv(history(1.5, math.inf, math.nan))
    header, *lines = text.splitlines()
    at = header.split(",").index
    cells = [line.split(",") for line in lines]
    assert [row[at("hd95_mm_tumour")] for row in cells] == ["1.5", "inf", ""]
    assert [row[at("step")] for row in cells] == ["250", "500", "750"]
    assert cells[0][at("validation_loss")] == ""
    assert float(cells[0][at("learning_rate")]) == pytest.approx(1e-7 / 3, rel=1e-5)
    assert pd.read_csv(io.StringIO(text)).hd95_mm_tumour.tolist()[:2] == [1.5, math.inf]


@pytest.mark.parametrize(
    "rows",
    [
        history(1.5, math.inf, math.nan),
        history(math.inf),
        history(math.nan, dice=math.nan),
        history(*[3.0] * 100),
    ],
    ids=["mixed", "infinite", "undefined", "many"],
)
def test_drawing_any_value_neither_warns_nor_fails(rows: list[dict[str, float]], tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curves(rows).savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_what_the_panels_show():
    rows = history(1.5, math.inf, 2.5)
    rows[1]["dice"] = 0.9
    figure = draw_curves(rows)
    dice, distance = figure.axes[1:3]
    curves = {line.get_label(): line for line in dice.lines}
    assert curves["mean"].get_ydata().tolist() == [0.8, 0.9, 0.8]
    assert set(curves["best weights"].get_xdata()) == {1.0}  # the minute of the best epoch
    missed = [line for line in distance.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in missed] == [[1.0]]
    assert missed[0].get_color() == curves["tumour"].get_color()
    assert dice.get_ylim() == (0.8, 1.0)
