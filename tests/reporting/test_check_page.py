"""The page of a data check: what it says, pictures of the cases at fault, and that it is safe and offline."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from medunet.cli import app as cli
from medunet.commands.manifest import run_manifest
from medunet.dataset.checks.acceptance import accept_faults
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.manifest_checks import check_manifest, read_faults
from medunet.dataset.manifest import make_manifest
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description
from medunet.records.manifest import Excluded, Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting.check_page import check_html, draw_cases, write_check_page
from medunet.runs.run import open_run

ODD_ID = 'a<b>&"c"'
SHAPE = (20, 18, 12)
DESCRIPTION = Description(
    name="tiny",
    title="Tiny livers & tumours",
    layout="msd",
    channels={"CT": {"modality": "CT"}},
    labels={"background": 0, "liver": 1, "tumour": 2},
    folds=2,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight cases: one good, one of each fault that the tests name, and a file that belongs to no case."""
    folder = tmp_path / "data"
    rng = np.random.default_rng(4)
    for number, name in enumerate(("good", "undeclared", "cut", "moved", "bent", "empty", ODD_ID, "away")):
        label = np.zeros(SHAPE, np.uint8)
        label[4:15, 4:14, 2:9] = 1
        label[7 : 10 + number // 4, 7 : 10 + number % 4, 4:7] = 2
        image = np.choose(label, [-80, 110, 40]) + rng.normal(0, 8, SHAPE)
        affine = np.eye(4)
        if name in ("undeclared", ODD_ID):
            label[1, 1, 1] = 7
        if name == "empty":
            label[:] = 0
        if name == "bent":
            affine[1, 2] = 0.5
        write_volume(folder / f"imagesTr/{name}.nii.gz", image.astype(np.int16), affine)
        if name == "moved":
            affine[0, 3] = 5
        shown = label[:, :, 1:] if name == "away" else label
        write_volume(folder / f"labelsTr/{name}.nii.gz", shown, affine)
    image = folder / "imagesTr/cut.nii.gz"
    image.write_bytes(image.read_bytes()[:900])
    write_volume(folder / "sketch<i>.nii.gz", np.ones(SHAPE, np.uint8), np.eye(4))
    return folder


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return make_manifest(DESCRIPTION, root)


def card_of(html: str, case: str) -> str:
    """Return the part of a page that shows a case."""
    return next(part for part in html.split("<article>")[1:] if f"<h3>{case} " in part).split("</article>")[0]


def write_page(folder: RunFolder, manifest: Manifest, root: Path) -> str:
    faults = check_manifest(manifest, root)
    page = write_check_page(folder, manifest, faults, root)
    assert page == folder.root / "checks.html"
    return page.read_text()


def test_every_case_at_fault_has_a_card(tmp_path: Path, root: Path, manifest: Manifest) -> None:
    html = write_page(RunFolder(tmp_path / "run"), manifest, root)
    names = re.findall(r"<h3>(.+?) <", html)
    assert set(names) == {"undeclared", "cut", "moved", "bent", "empty", "a&lt;b&gt;&amp;&#34;c&#34;", "away"}
    assert names[-1] == "empty"  # a warning comes behind the errors
    assert "1 of 8" in html
    assert '<span class="status error">error</span> <b>L001</b> label: 7 in 1 voxels' in card_of(
        html, "undeclared"
    )
    assert card_of(html, "undeclared").count("data:image/png") == 1
    assert "Training is refused" in html
    assert "<b>S004</b> sketch&lt;i&gt;.nii.gz: belongs to no case" in html


def test_what_cannot_be_drawn_says_why(tmp_path: Path, root: Path, manifest: Manifest) -> None:
    html = write_page(RunFolder(tmp_path / "run"), manifest, root)
    broken = card_of(html, "cut")
    assert "data:image" not in broken
    assert "Not pictured." in broken
    assert broken.count("truncated or corrupt") == 1  # by the fault itself
    away = card_of(html, "away")
    assert "data:image/png" in away
    assert "Pictured without its label: reference shape" in away


def test_the_page_is_offline_runs_nothing_and_names_no_folder(
    tmp_path: Path, root: Path, manifest: Manifest
) -> None:
    html = write_page(RunFolder(tmp_path / "run"), manifest, root)
    assert not re.search(r"https?://|<script|<link|@import|url\(|javascript:|\son\w+=", html)
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in html
    assert "Research use only" in html
    assert ODD_ID not in html
    assert "Tiny livers &amp; tumours" in html
    assert str(tmp_path) not in html


def test_each_code_says_what_it_means_and_how_to_mend(tmp_path: Path, root: Path, manifest: Manifest) -> None:
    html = write_page(RunFolder(tmp_path / "run"), manifest, root)
    assert html.count("<details") == len(
        {(fault.severity, fault.code) for fault in check_manifest(manifest, root)}
    )
    kind = html[html.index("<b>P002</b>") : html.index("</details>", html.index("<b>P002</b>"))]
    assert "label displaced from image" in kind
    assert "more than a tenth of a voxel" in kind
    assert "exclude the case" in kind
    assert "5 mm from those of CT" in kind


def test_accepted_and_excluded_stay_in_sight(tmp_path: Path, root: Path, manifest: Manifest) -> None:
    accepted = accept_faults(manifest, ["L001:undeclared=the <seven> is a marker"])
    excluded = accepted.model_copy(update={"excluded": (Excluded(id="cut", reason="lost & gone"),)})
    html = write_page(RunFolder(tmp_path / "run"), excluded, root)
    assert "Accepted: the &lt;seven&gt; is a marker" in card_of(html, "undeclared")
    assert "Left out: lost &amp; gone" in card_of(html, "cut")
    names = re.findall(r"<h3>(.+?) <", html)
    assert names[-2:] == ["undeclared", "cut"]
    refused = re.search(r'<p class="verdict bad">(.+)</p>', html)
    assert refused
    assert "undeclared" not in refused[1]
    assert "cut" not in refused[1]


def test_at_most_sixty_cards_and_the_rest_is_counted(manifest: Manifest) -> None:
    case = manifest.cases[0]
    names = [f"case_{number:03d}" for number in range(70)]
    many = manifest.model_copy(
        update={"cases": tuple(case.model_copy(update={"id": name}) for name in names)}
    )
    faults = [make_fault("L003", name, "label", "every voxel is 0") for name in names]
    html = check_html("many", many, faults, {})
    assert html.count("<article>") == 60
    assert "10 cases more with errors or warnings" in html
    assert "No errors are left" in html
    assert "No faults found" in check_html("none", many, [], {})


def test_files_that_must_not_be_read_are_not_drawn(root: Path, manifest: Manifest) -> None:
    for code in ("N013", "N018", "N099"):
        fault = make_fault(code, "good", "CT", "measured")
        picture = draw_cases({"good": [fault]}, manifest, root)["good"]
        assert picture.uri is None
        assert code in picture.remark


def test_processes_draw_the_same_pictures(root: Path, manifest: Manifest) -> None:
    cards = {name: [make_fault("L003", name, "label", "")] for name in ("good", "empty", "cut")}
    alone = draw_cases(cards, manifest, root, workers=1)
    assert draw_cases(cards, manifest, root, workers=2) == alone
    assert alone["good"].uri


def test_the_command_accepts_faults_and_a_new_manifest_keeps_them(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tmp_path / "tiny.json"
    DESCRIPTION.write(description)
    run = open_run(tmp_path / "run", root, dataset=str(description))
    run_manifest(run)

    def check(*options: str) -> int:
        arguments = ["medunet", "check", str(run.folder.root), "--data-root", str(root), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    errors = [fault for fault in check_manifest(run.read_manifest(), root) if fault.severity == "error"]
    known = [option for fault in errors for option in ("--accept", f"{fault.code}:{fault.case}=known")]
    assert check(*known[:4]) == 1
    assert check("--workers", "1", *known[4:]) == 0
    assert len(run.read_manifest().accepted) == len({(fault.code, fault.case) for fault in errors})
    run_manifest(run)
    assert check() == 0
    kept = {fault.accepted for fault in read_faults(run.folder.checks) if fault.severity == "error"}
    assert kept == {"known"}
    header, first, *_ = (run.folder.root / "checks.csv").read_text().splitlines()
    assert header.endswith(",mend,accepted")
    assert first.endswith(",known")
    assert (run.folder.root / "checks.html").read_text().count("Accepted: known") >= len(errors)
    capsys.readouterr()
    before = run.read_manifest()
    assert check("--accept", "L003:nobody=x", "--accept", "L003:empty") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "there is no case 'nobody'" in said
    assert "'L003:empty' is not CODE:CASE=REASON" in said
    assert run.read_manifest() == before
