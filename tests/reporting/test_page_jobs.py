"""Pages of cases are made in processes, kept while they are up to date, and made again when anything has changed."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_run import ODD_ID, make_run

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json
from medunet.base.pool import Lost
from medunet.imaging.nifti import read_header, write_mask
from medunet.records.config import ReportConfig
from medunet.records.manifest import Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting import page_job, report
from medunet.reporting.page import page_names
from medunet.reporting.page_job import PageJob, PageResult
from medunet.reporting.report import report_run
from medunet.reporting.report_source import ReportOptions
from medunet.scoring.tables import read_scores

CASES = ["ras_good", "lps_poor", "oblique_healthy", ODD_ID, "no_prediction"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, Path]:
    """A run whose report is there, made without drawing."""
    monkeypatch.setattr(page_job, "load_scan", lambda *_, **__: _no_scan())
    run, data_root = make_run(tmp_path)
    report_run(run, data_root, scores=read_scores(run.scores))
    return run, data_root


def _no_scan() -> None:
    raise OSError


def made_again(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> set[str]:
    """Return the cases whose pages are made in a call."""
    cases: list[str] = []
    make = page_job.case_page
    monkeypatch.setattr(
        page_job,
        "case_page",
        lambda parts, *args, **kwargs: cases.append(parts.case_id) or make(parts, *args, **kwargs),
    )
    call()
    monkeypatch.setattr(page_job, "case_page", make)
    return set(cases)


def test_pages_are_kept_until_their_case_changes(
    made: tuple[RunFolder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data_root = made
    scores = read_scores(run.scores)

    def again(**options: object) -> set[str]:
        return made_again(
            monkeypatch,
            lambda: report_run(run, data_root, scores=scores, options=ReportOptions(**options)),
        )

    index = (run.report / "index.html").read_bytes()
    assert again() == set()
    assert (run.report / "index.html").read_bytes() == index

    header = read_header(data_root / "images" / "ras_good.nii.gz")
    write_mask(run.predictions / "ras_good.nii.gz", np.zeros((30, 34, 20), np.uint8), header)
    # It asks for a review now and so stands elsewhere: the pages beside it have other links.
    assert again() == {"ras_good", "lps_poor", "oblique_healthy"}

    scores.loc[(scores["case"] == "lps_poor") & (scores["label"] == "liver"), "assd_mm"] = 9.0
    assert again() == {"lps_poor"}

    (run.report / "cases" / "lps_poor.html").unlink()
    assert again() == {"lps_poor"}

    (run.report / ".pages" / "lps_poor.json").write_text("{")  # not whole
    assert again() == {"lps_poor"}

    assert again(num_volumes=2) == {"lps_poor", "oblique_healthy", "ras_good"}  # the others are the worst
    assert again(num_volumes=2, settings=ReportConfig(min_dice=0.99)) == set(CASES)

    provenance = read_json(run.provenance)
    write_json(run.provenance, {**provenance, "seed": 8})
    assert again() == set(CASES)

    monkeypatch.setattr(page_job, "__version__", "99")
    assert again() == set(CASES)


def test_cases_are_grouped_by_a_joined_column(
    made: tuple[RunFolder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data_root = made
    scores, table = read_scores(run.scores), tmp_path / "scanners.csv"
    table.write_text("case,scanner\nras_good,one\nlps_poor,two\noblique_healthy,two\n")
    options = ReportOptions(by=("scanner",), join=table)
    index = report_run(run, data_root, scores=scores, options=options).read_text()
    assert "<h2>Summary by scanner</h2>" in index
    assert "<h2>Dice by scanner</h2>" in index
    assert '<option value="unknown">unknown</option>' in index  # two cases are not in the table
    assert "<h2>Summary by voxel size</h2>" in index  # 2 and 5 mm

    def refuse() -> None:
        with pytest.raises(InputError, match="there is no column scaner"):
            report_run(run, data_root, scores=scores, options=ReportOptions(by=("scaner",), join=table))

    (run.report / "cases" / "ras_good.html").unlink()
    assert made_again(monkeypatch, refuse) == set()  # before any page is made


def test_a_stopped_report_goes_on(made: tuple[RunFolder, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run, data_root = made
    scores = read_scores(run.scores)
    for page in (run.report / "cases").iterdir():
        page.unlink()
    make, count = page_job.case_page, [0]

    def stop_at_the_third(*args: object, **kwargs: object) -> object:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return make(*args, **kwargs)

    monkeypatch.setattr(page_job, "case_page", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        report_run(run, data_root, scores=scores)
    monkeypatch.setattr(page_job, "case_page", make)
    done = made_again(monkeypatch, lambda: report_run(run, data_root, scores=scores))
    assert len(done) == 3
    assert len(list((run.report / "cases").iterdir())) == 5


def test_a_case_whose_process_was_killed_is_named(
    made: tuple[RunFolder, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, data_root = made
    left = (
        ".index.html.abcd1234.tmp",
        "cases/.ras_good.html.abcd1234.tmp",
        ".pages/.ras_good.json.abcd1234.tmp",
    )
    for name in left:
        (run.report / name).touch()

    def kill_one(make: Callable[[PageJob], PageResult], jobs: list[PageJob], num_workers: int):
        for index, job in enumerate(jobs):
            yield index, Lost("its process was killed") if job.parts.case_id == "lps_poor" else make(job)

    monkeypatch.setattr(report, "run_parallel", kill_one)
    index = report_run(run, data_root, scores=read_scores(run.scores)).read_text()
    assert "lps_poor</a>: its process was killed" in index
    assert "lps_poor: its process was killed" in caplog.text
    assert not [name for name in left if (run.report / name).exists()]
    page = (run.report / "cases" / page_names(CASES)["lps_poor"]).read_text()
    assert "its process was killed" in page


def test_only_the_first_pictures_are_kept_for_the_index(made: tuple[RunFolder, Path], tmp_path: Path) -> None:
    run, _ = made
    state = read_json(run.report / ".pages" / "lps_poor.json")
    assert set(state) == {"key", "summary", "spacing_mm"}
    assert state["spacing_mm"] == [2.0, 1.5, 5.0]
    assert str(tmp_path) not in str(state)


@pytest.mark.slow
def test_processes_make_the_same_pages(tmp_path: Path) -> None:
    pages = []
    for workers in (1, 2):
        run, data_root = make_run(tmp_path / str(workers))
        report_run(run, data_root, scores=read_scores(run.scores), options=ReportOptions(workers=workers))
        pages.append({path.name: path.read_text() for path in run.report.rglob("*.html")})
    assert pages[0] == pages[1]
    assert len(pages[0]) == 6


def test_what_asks_for_a_review_stands_before_what_is_fine(made: tuple[RunFolder, Path]) -> None:
    run, data_root = made
    scores = read_scores(run.scores)
    scores.loc[scores["case"] == "ras_good", "dice"] = 0.75  # fine
    scores.loc[scores["case"] == "lps_poor", ["dice", "status"]] = [0.9, "ok"]
    scores.loc[scores["case"] == "lps_poor", "predicted_ml"] = 99.0  # and so to review
    page = report_run(run, data_root, scores=scores).read_text()
    rows = re.findall(r'<th scope="row"><a href="cases/([^"]+)"', page)
    severities = [
        read_json(run.report / ".pages" / f"{Path(row).stem}.json")["summary"]["severity"] for row in rows
    ]
    assert severities == sorted(severities, key=["failed", "review", "good"].index)
    assert rows.index("lps_poor.html") < rows.index("ras_good.html")
    second = (run.report / "cases" / rows[1]).read_text()
    assert f'href="{rows[0]}"' in second  # the page of the next worse case


def test_cases_without_a_reference_have_their_own_pages(tmp_path: Path) -> None:
    run, data_root = make_run(tmp_path)
    manifest = Manifest.read(run.manifest)
    good = next(case for case in manifest.cases if case.id == "ras_good")
    new = [
        good.model_copy(update={"id": name, "label": None, "fold": None, "split": "unlabelled"})
        for name in ("new_one", "new_two")
    ]
    manifest.model_copy(update={"cases": (*manifest.cases, *new)}).write(run.manifest)
    shutil.copyfile(run.predictions / "ras_good.nii.gz", run.predictions / "new_one.nii.gz")
    index = report_run(run, data_root, scores=read_scores(run.scores)).read_text()
    listed = index[index.index("<h3>Cases without a reference</h3>") :]
    assert '<a href="cases/new_one.html" dir="auto">new_one</a>' in listed
    assert "1 without a reference, and not predicted" in listed
    assert "new_two" in listed
    page = (run.report / "cases" / "new_one.html").read_text()
    assert "There is no reference, and so no score." in page
    assert "<h2>Volumes</h2>" in page
    assert "<b>4 of 5</b> cases scored" in index
