"""A whole report of a tiny run: what its pages say, that they are safe, offline and complete."""

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tiny_run import ODD_ID, make_run

from medunet.base.errors import InputError
from medunet.records.manifest import Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting.page import page_names
from medunet.reporting.report import report_run
from medunet.scoring.tables import read_scores

ODD_ESCAPED = "a&lt;b&gt;&amp;&#34;c&#34;"


class _Tags(HTMLParser):
    """Collects a page's tags, links and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run, data_root = make_run(tmp_path_factory.mktemp("tiny"))
    assert report_run(run, data_root, scores=read_scores(run.scores)) == run.report / "index.html"
    return run


@pytest.fixture(scope="module")
def pages(made: RunFolder) -> dict[str, str]:
    names = page_names(case.id for case in Manifest.read(made.manifest).cases)
    return {case: (made.report / "cases" / name).read_text() for case, name in names.items()}


@pytest.fixture(scope="module")
def index(made: RunFolder) -> str:
    return (made.report / "index.html").read_text()


def test_every_case_has_a_page_and_every_link_leads_somewhere(
    made: RunFolder, pages: dict[str, str], index: str
) -> None:
    assert len(list((made.report / "cases").iterdir())) == len(pages) == 5
    for folder, html in [(made.report, index), *((made.report / "cases", page) for page in pages.values())]:
        for address in _Tags(html).addresses:
            if address.startswith("#"):
                assert f'id="{address[1:]}"' in html
                continue
            assert address.startswith("data:image/png;base64,") or (folder / unquote(address)).is_file()


def test_pages_are_offline_and_run_only_their_own_scripts(
    made: RunFolder, pages: dict[str, str], index: str
) -> None:
    for html in [index, *pages.values()]:
        assert not re.search(r"https?://|<link|@import|url\(|javascript:|\son\w+=", html)
        assert "content=\"default-src 'none'; img-src data:" in html
        allowed = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
        assert allowed
        scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
        hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
        assert set(re.findall(r"'sha256-([^']+)'", allowed[1])) == hashes
        assert html.count("<script") == len(scripts) + html.count('<script type="application/json"')
        assert "Research use only" in html
        assert str(made.root) not in html
        assert str(made.root.parent) not in html


def test_names_are_escaped(pages: dict[str, str], index: str) -> None:
    for html in [index, *pages.values()]:
        assert ODD_ID not in html
        assert "Tiny livers &amp; tumours" in html
    assert ODD_ESCAPED in index
    assert f">{ODD_ESCAPED}</h1>" in pages[ODD_ID]
    assert ODD_ID in _Tags(pages[ODD_ID]).text
    assert "expected &lt;b&gt;" in pages[ODD_ID]


def test_the_index_names_failures_first_then_the_worst(index: str) -> None:
    text = _Tags(index[index.index("<body>") :]).text
    order = ["no_prediction", ODD_ID, "lps_poor", "oblique_healthy", "ras_good"]
    table = text.index("worst first")
    places = [text.index(name, table) for name in order]
    assert places == sorted(places)
    assert text.index("Failed and missing") < text.index(order[0]) < text.index("Worst error") < table
    assert re.search(rf"Worst error: {re.escape(ODD_ID)}", text)
    assert "Missing: the prediction failed: the scan has a hole" in text
    assert "4 of 5" in text
    why = "5 cases, fewer than 10; 4 cases, fewer than 10; 1 case, fewer than 10"
    assert f"Where there is none: {why}." in text


def test_case_pages_show_what_is_undefined_infinite_missed(pages: dict[str, str]) -> None:
    assert "∞" in pages["lps_poor"]
    assert "<li>Missed: tumour (1.80 ml)</li>" in pages["lps_poor"]
    assert "<li>Invented: tumour (0.96 ml)</li>" in pages[ODD_ID]
    healthy = _Tags(pages["oblique_healthy"]).text
    assert re.search(r"tumour\s*both empty\s*–\s*–", healthy)
    assert re.search(r"tilted by up to 12\.0° from", healthy)
    for html in pages.values():
        assert not re.search(r"\b(nan|NaN|inf|None)\b", _Tags(html).text)


def test_a_missing_prediction_has_a_page_with_its_reason_and_the_reference(pages: dict[str, str]) -> None:
    page = pages["no_prediction"]
    assert "Missing: the prediction failed: the scan has a hole" in page
    assert page.count("<img") == 1  # all targets of the reference, without errors
    assert "<h2>Overview</h2>" in page
    assert "<h2>Errors</h2>" not in page


def test_warnings_of_the_check_and_of_the_border(pages: dict[str, str]) -> None:
    assert "L004" in pages[ODD_ID]
    left = "liver reaches the border of the scan and may be cut off"  # LAS: moved towards the left
    assert f"<b>Border</b>: {left}" in pages[ODD_ID]
    assert "(prediction: left)" in pages[ODD_ID]
    assert "L004" not in pages["ras_good"]
    assert (
        "Found when predicted: N025 spacing unlike the training scans', CT: 9 mm."
        in _Tags(pages["ras_good"]).text
    )
    assert "Found when predicted" not in pages["lps_poor"]
    assert "<b>Border</b>" not in pages["ras_good"]


def test_provenance_is_shown(pages: dict[str, str]) -> None:
    text = re.sub(r"\s+", " ", _Tags(pages["ras_good"]).text)
    assert re.search(r"fold ?0", text)
    assert re.search(r"seed ?7", text)
    assert re.search(r"model_sha256 ?0123abcd", text)
    assert "surface “area”" in text
    assert "HD95 is percentile 95" in text


def test_a_case_that_cannot_be_shown_is_named_and_stops_nothing(tmp_path: Path) -> None:
    run, data_root = make_run(tmp_path)
    (data_root / "images" / "ras_good.nii.gz").write_bytes(b"not a scan")
    table = pd.read_csv(run.scores).drop(columns="reason")
    pd.concat([table, table.iloc[:1].assign(case="stranger")]).to_csv(run.scores, index=False)
    scores = read_scores(run.scores)
    run.checks.unlink()
    (run.predictions / "index.json").unlink()
    run.provenance.unlink()
    stale = run.report / "cases" / "of_an_earlier_run.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    index = report_run(run, data_root, scores=scores).read_text()
    assert "Cases without pictures" in index
    assert "Missing: there is no prediction<" in index
    assert re.search(r"ras_good</a>: case ras_good: not a readable NIfTI file", index)
    assert re.search(r"stranger</a>: the case is not in manifest.json", index)
    assert (
        "No pictures: case ras_good: not a readable NIfTI file"
        in (run.report / "cases" / "ras_good.html").read_text()
    )
    assert "The data were not checked" in index
    assert str(tmp_path) not in index
    assert not stale.exists()
    assert len(list((run.report / "cases").iterdir())) == 6


def test_a_run_without_a_manifest_is_refused(tmp_path: Path, made: RunFolder) -> None:
    with pytest.raises(InputError, match=r"manifest.json is missing.*medunet manifest"):
        report_run(RunFolder(tmp_path), tmp_path, scores=read_scores(made.scores))


def test_the_index_says_how_to_open_tensorboard(tmp_path: Path, made: RunFolder) -> None:
    run = RunFolder(tmp_path / "liver of 2026")
    shutil.copytree(made.root, run.root)
    scores = read_scores(run.scores)
    none = scores.iloc[:0]
    assert "tensorboard --logdir" not in report_run(run, tmp_path, scores=none).read_text()
    event = run.fold(0) / "tensorboard" / "events.out.tfevents.1"
    event.parent.mkdir(parents=True)
    event.touch()
    page = report_run(run, tmp_path, scores=none).read_text()
    assert "<code>tensorboard --logdir &#39;liver of 2026/folds&#39;</code>" in page
    assert str(tmp_path) not in page


def test_a_table_without_rows_still_makes_an_index(tmp_path: Path, made: RunFolder) -> None:
    run = RunFolder(tmp_path)
    Manifest.read(made.manifest).write(run.manifest)
    index = report_run(run, tmp_path, scores=read_scores(made.scores).iloc[:0]).read_text()
    assert "No case could be scored" in index
    assert "5 training cases, which are not among these scores" in index


def test_a_label_map_off_the_scan_is_shown_with_a_warning_or_not_at_all(tmp_path: Path) -> None:
    run, data_root = make_run(tmp_path)
    good, poor = (run.predictions / f"{case}.nii.gz" for case in ("ras_good", "lps_poor"))
    labels = nib.load(good)
    moved = nib.affines.from_matvec(np.eye(3), (0, 6, 0)) @ labels.affine
    nib.save(nib.Nifti1Image(np.asarray(labels.dataobj), moved), good)
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.uint8), labels.affine), poor)
    index = report_run(run, data_root, scores=read_scores(run.scores)).read_text()
    assert "places it 6.00 mm away from the scan" in (run.report / "cases" / "ras_good.html").read_text()
    assert "case lps_poor: prediction shape (5, 6, 7) differs from the scan&#39;s (30, 34, 20)" in index


def test_making_it_again_gives_the_same_bytes(made: RunFolder) -> None:
    before = {path: path.read_bytes() for path in made.report.rglob("*.html")}
    report_run(made, made.root.parent / "data", scores=read_scores(made.scores))
    assert {path: path.read_bytes() for path in made.report.rglob("*.html")} == before
