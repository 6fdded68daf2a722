"""Pages of a comparison: every difference is a dot that leads to its case, with all methods' scores and masks."""

import base64
import html
import io
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scored_case import draw_masks, make_case
from tiny_run import DESCRIPTION, ODD_ID, make_run

from medunet.base.files import write_text
from medunet.commands.compare import compare_scores
from medunet.drawing.still import draw_still
from medunet.imaging.nifti import write_mask
from medunet.imaging.volumes import read_header, read_label
from medunet.records.manifest import Case
from medunet.records.scores import CaseScore
from medunet.reporting import compare_page, compare_pictures, errors_shown
from medunet.reporting.page import page_names
from medunet.scoring.compare import compare
from medunet.scoring.tables import read_scores, write_scores

TARGETS = {"liver": (1,), "tumour": (2,)}
ODD = """<img src=x onerror=alert(1)>"&'$"""


def write_method(folder: Path, dice: dict[str, float], missed: str = "") -> Path:
    scores = []
    for case, value in dice.items():
        for label in TARGETS:
            lost = label == "tumour" and case == missed
            scores.append(
                CaseScore(
                    case,
                    label,
                    "missed" if lost else "ok",
                    "area",
                    dice=0.0 if lost else value,
                    hd95_mm=math.inf if lost else 10 * (1 - value),
                    nsd={1.0: value},
                )
            )
    write_scores(scores, folder, about={}, targets=TARGETS)
    return folder


@pytest.fixture
def methods(tmp_path: Path) -> list[Path]:
    first = {f"case_{number}": 0.70 + 0.02 * number for number in range(12)} | {ODD: 0.5}
    second = {case: dice - 0.013 * number for number, (case, dice) in enumerate(first.items(), 1)}
    return [
        write_method(tmp_path / "runs" / "best", first),
        write_method(tmp_path / "runs" / "second", second, missed="case_3"),
    ]


def test_every_difference_is_a_dot_that_leads_to_its_case(methods: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare_scores(methods, out)
    page = (out / "comparison.html").read_text()
    one, two = (pd.read_csv(folder / "scores.csv").set_index(["label", "case"]) for folder in methods)
    section = page[page.index("<h2>Differences in Dice</h2>") :].partition("</section>")[0]
    charts = re.findall(r"<svg.*?</svg>", section, re.DOTALL)
    for chart, label in zip(charts, TARGETS, strict=True):
        dots = re.findall(r'<a href="([^"]+)" data-c="\d+"><title>(.*?)</title>', chart)
        expected = (one["dice"] - two["dice"])[label]
        said = {}
        for address, title in dots:
            case, _, rest = html.unescape(title).rpartition(f": {label}, ")
            assert (out / address).is_file()
            said[case] = float(rest.rpartition(" ")[2].replace("−", "-"))
        assert said == pytest.approx(expected.to_dict(), abs=5.1e-4)
    distances = page[page.index("<h2>Differences in HD95 in mm</h2>") :].partition("</section>")[0]
    assert re.search(r"case_3: tumour, A − B −∞</title><path", distances)


def test_the_largest_differences_are_listed_first(methods: list[Path], tmp_path: Path) -> None:
    compare_scores(methods, tmp_path / "out")
    page = (tmp_path / "out" / "comparison.html").read_text()
    table = page[page.index("<h2>Largest differences</h2>") :].partition("</table>")[0]
    rows = re.findall(r'<th scope="row"><a [^>]*>(.*?)</a></th><td[^>]*>(\w+)</td>', table)
    one, two = (pd.read_csv(folder / "scores.csv").set_index(["case", "label"]) for folder in methods)
    largest = (one["dice"] - two["dice"]).abs().round(12).sort_values(ascending=False, kind="stable")
    assert [(html.unescape(case), label) for case, label in rows][:3] == list(largest.index[:3])
    assert rows[0] == ("case_3", "tumour")
    assert re.search(r"A−B</td><td[^>]*>0.760</td><td[^>]*>0.000</td><td[^>]*>\+0.760</td>", table)
    case = (tmp_path / "out" / "cases" / "case_3.html").read_text()
    assert re.search(r"<td>B</td><td><span class=\"status missed\">missed</span></td><td[^>]*>0.000", case)
    assert "smaller differences" in case
    assert "larger differences" not in case


def test_names_are_no_markup(methods: list[Path], tmp_path: Path) -> None:
    compare_scores(methods, tmp_path / "out")
    pages = list((tmp_path / "out").rglob("*.html"))
    assert len(pages) == 14
    for page in pages:
        text = page.read_text()
        assert "<img src=x" not in text
        assert "Research use only" in text
        assert str(tmp_path) not in text
        assert not re.search(r"https?://", text.replace("http-equiv", ""))


def test_a_methods_own_page_is_linked_if_it_is_near(methods: list[Path], tmp_path: Path) -> None:
    write_text(methods[0] / "report" / "cases" / "case_1.html", "own")
    out, far = tmp_path / "out", tmp_path / "a" / "b" / "c" / "out"
    compare_scores(methods, out)
    compare_scores(methods, far)
    address = re.search(r'<a href="([^"]+)" dir="auto">best</a>', (out / "cases" / "case_1.html").read_text())
    assert address
    assert (out / "cases" / address[1]).read_text() == "own"
    assert ">best</a>" not in (out / "cases" / "case_2.html").read_text()
    assert ">best</a>" not in (far / "cases" / "case_1.html").read_text()


def test_pages_of_cases_that_are_gone_are_removed(methods: list[Path], tmp_path: Path) -> None:
    write_text(tmp_path / "out" / "cases" / "old.html", "old")
    compare_scores(methods, tmp_path / "out")
    assert not (tmp_path / "out" / "cases" / "old.html").exists()


def test_pictures_show_both_methods_masks_where_scans_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data_root = make_run(tmp_path)
    other = tmp_path / "other"
    for path in run.predictions.glob("*.nii.gz"):
        header = read_header(path, label=True)
        labels = read_label(path).array
        write_mask(other / path.name, labels * (labels != 2), header)
    shown = {}

    def remember(scan, targets, colours, presets, findings=(), *, masks, **_):
        shown[len(shown)] = (set(masks), set(targets), {name: len(each) for name, each in presets.items()})

    monkeypatch.setattr(compare_pictures, "make_viewer", remember)
    monkeypatch.setattr(compare_page, "NUM_PICTURED", 2)
    mine = tmp_path / "mine"
    run.predictions.rename(mine)
    (mine / "index.json").unlink()
    compare_scores([mine, other], tmp_path / "out", run.manifest, data_root=data_root)
    assert shown[0][0] == {"reference", "A: mine", "B: other"}
    assert shown[0][1] == {"liver", "tumour"}
    assert list(shown[0][2]) == ["CT"]
    with_pictures = [
        path.stem for path in (tmp_path / "out" / "cases").iterdir() if "<img" in path.read_text()
    ]
    # The tumours that only one method found, or invented.
    assert sorted(with_pictures) == [page_names([ODD_ID])[ODD_ID].removesuffix(".html"), "ras_good"]
    page = (tmp_path / "out" / "cases" / "ras_good.html").read_text()
    assert page.count("<img") == 2
    assert "<b>B</b>: tumour: largest false negative region" in page
    place = re.search(r"<b>B</b>: .*?, (at .*? mm)", page)
    assert place
    assert f"<b>A</b>: no error here, in the slices of the worst error of B, {place[1]}</figcaption>" in page


def test_a_method_without_errors_is_drawn_in_the_slices_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows, _ = make_case(tmp_path, *draw_masks())
    (tmp_path / "right").mkdir()
    shutil.copy(tmp_path / "label.nii.gz", tmp_path / "right/one.nii.gz")
    case = Case(id="one", patient="one", images={"CT": "image.nii.gz"}, label="label.nii.gz")
    folder = write_method(tmp_path / "scores", {"one": 1.0})
    tables = {"wrong": rows, "right": read_scores(folder / "scores.csv")}
    masks = {
        "wrong": {"one": tmp_path / "predicted.nii.gz"},
        "right": {"one": tmp_path / "right/one.nii.gz"},
    }
    drawn = []

    def remember(view, focus, **options):
        drawn.append((view, focus, options))
        return draw_still(view, focus, **options)

    monkeypatch.setattr(errors_shown, "draw_still", remember)
    comparison = compare(tables)
    images = compare_pictures.Images(DESCRIPTION, tmp_path, {"one": case}, masks)
    made = compare_pictures.draw_compared("one", tables, comparison, images)
    wrong, right = made.of_methods
    assert right.text.startswith("no error here, in the slices of the worst error of A, at ")
    assert right.picture
    (first, focus, _), (second, same, options) = drawn
    assert same is focus
    assert options["heading"] == "no error here"
    assert np.array_equal(second.prediction, second.reference)
    assert np.array_equal(first.reference, second.reference)
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(each.picture.split(",")[1]))).size for each in (wrong, right)
    ]
    assert sizes[0] == sizes[1]
