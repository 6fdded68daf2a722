"""`medunet predict` on new scans: exit codes, and what the console says of each file and case."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medunet.base.files import read_json, write_json
from medunet.compute.choice_cache import Choice
from medunet.dataset.checks.acceptance import accept_faults
from medunet.imaging.nifti import write_volume
from medunet.inference import probe
from medunet.runs.run import Run, open_run


@pytest.fixture
def scans(finished_run: Run, tmp_path: Path) -> Path:
    """Two good scans, one whose sform was moved by 18 mm, one stored without its intercept, and other files."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, number in (("good", 0), ("moved", 1), ("offset", 4)):
        image = nib.load(finished_run.data_root / f"imagesTr/case_{number:02d}.nii.gz")
        array, affine = np.asarray(image.dataobj), image.affine.copy()
        if name == "offset":
            array = array + np.int16(1024)
        saved = nib.Nifti1Image(array, None)
        saved.header.set_xyzt_units("mm")
        saved.set_qform(affine, 1)
        affine[2, 3] += 18 * (name == "moved")
        saved.set_sform(affine, 2)
        nib.save(saved, folder / f"{name}_0000.nii.gz")
    write_volume(folder / "good_0001.nii.gz", np.zeros((4, 4, 4), np.int16), np.eye(4))
    (folder / "notes.txt").write_text("x")
    (folder / "brain.mgz").write_bytes(b"")
    return folder


def test_each_file_and_case_is_told(call, finished_run: Run, scans: Path, tmp_path: Path):
    model, out = finished_run.folder.model(0), tmp_path / "out"
    code, text = call("predict", model, scans, "--out", out)
    assert code == 1
    assert "left out good_0001.nii.gz: a channel that the model does not use" in text
    assert "left out notes.txt: of type .txt, which is no scan" in text
    assert "left out brain.mgz: FreeSurfer's format" in text
    assert "failed moved: N008 sform and qform disagree: CT: their corners differ by up to 18 mm" in text
    assert "failed offset: N027 intensities unlike the training scans'" in text
    assert "1 of 3 cases" in text
    assert [path.name for path in out.glob("*.nii.gz")] == ["good.nii.gz"]
    arguments = ("predict", model, scans, "--out", out, "--accept", "N008", "--accept", "N027:offset")
    assert call(*arguments)[0] == 0
    code, text = call(*arguments)
    assert code == 0
    assert "accepted N008 sform and qform disagree: moved (their corners" in text
    assert "accepted N027" in text, "a case that is done keeps its fault"
    assert (out / "moved.nii.gz").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("N008:nobody", "there is no case 'nobody'"),
        ("X999", "there is no code X999"),
        ("N003", "a file with N003 (truncated or corrupt voxels) cannot be used"),
    ],
)
def test_what_cannot_be_accepted_is_refused(call, finished_run: Run, scans: Path, tmp_path, entry, message):
    code, text = call(
        "predict", finished_run.folder.model(0), scans, "--out", tmp_path / "out", "--accept", entry
    )
    assert code == 2
    assert message in text
    assert not (tmp_path / "out").exists()


def test_one_case_is_accepted(call, finished_run: Run, scans: Path, tmp_path: Path):
    shutil.copy(scans / "moved_0000.nii.gz", scans / "other_0000.nii.gz")
    options = ("--out", tmp_path / "out", "--accept", "N008:moved=the sform is right", "--accept", "N010")
    code, text = call("predict", finished_run.folder.model(0), scans, *options)
    assert code == 1
    assert "failed other: N008" in text
    assert "accepted N008 sform and qform disagree: moved" in text
    assert "accepted N010, but no predicted scan has it" in text


def test_a_manifest_brings_the_faults_it_accepts(call, finished_run: Run, scans: Path, tmp_path: Path):
    manifest = finished_run.read_manifest()
    cases = tuple(
        case.model_copy(
            update={"images": {"CT": f"{name}_0000.nii.gz"}, "label": None, "split": "unlabelled"}
        )
        for case, name in zip(
            [case.model_copy(update={"fold": None}) for case in manifest.cases],
            ("good", "moved"),
            strict=False,
        )
    )
    listed = manifest.model_copy(update={"cases": cases})
    listed.write(tmp_path / "manifest.json")
    arguments = ("predict", finished_run.folder.model(0), tmp_path / "manifest.json", "--data-root", scans)
    code, text = call(*arguments, "--out", tmp_path / "out")
    assert code == 1
    assert f"failed {cases[1].id}: N008" in text
    accept_faults(listed, [f"N008:{cases[1].id}=the sform is right"]).write(tmp_path / "manifest.json")
    assert call(*arguments, "--out", tmp_path / "out")[0] == 0


def test_held_out_cases_take_the_runs_acceptances(call, own_run: Run):
    arguments = ("predict", own_run.folder.root, "--data-root", own_run.data_root)
    code, text = call(*arguments, "--accept", "N008")
    assert code == 2
    assert "accepted by `medunet check`" in text


def test_the_check_accepts_a_code_in_every_case(call, own_run: Run):
    for number in (1, 2):
        path = own_run.data_root / f"imagesTr/case_{number:02d}.nii.gz"
        image = nib.load(path)
        affine = image.affine.copy()
        affine[:3, 3] += 18
        image.set_sform(affine, 2)
        nib.save(image, path)
        label = nib.load(own_run.data_root / f"labelsTr/case_{number:02d}.nii.gz")
        label.set_sform(affine, 2)
        nib.save(label, own_run.data_root / f"labelsTr/case_{number:02d}.nii.gz")
    arguments = ("check", own_run.folder.root, "--data-root", own_run.data_root)
    assert call(*arguments)[0] == 1
    code, text = call(*arguments, "--accept", "N008")
    assert code == 0
    assert "accepted N008 in 4 place(s)" in text
    run = open_run(own_run.folder.root, own_run.data_root)
    assert {(each.code, each.case) for each in run.read_manifest().accepted} == {
        ("N008", "case_01"),
        ("N008", "case_02"),
    }
    assert call(*arguments)[0] == 0
    code, text = call("predict", own_run.folder.root, "--data-root", own_run.data_root)
    assert code == 0, text


def test_prediction_goes_on_in_the_precision_of_the_masks(
    call, finished_run: Run, scans, tmp_path, monkeypatch
):
    """Another benchmark, as under load, repeats no mask."""
    model, out = finished_run.folder.model(0), tmp_path / "out"

    results = iter(("fp32", "bf16", "fp32"))

    def choose(*given: object, **_: object) -> Choice:
        result, (precision, backend) = next(results), given[3:]
        assert backend in ("auto", "torch")
        return Choice(result if precision == "auto" else str(precision), False, 0.0, "")  # type: ignore[arg-type]

    monkeypatch.setattr(probe, "choose_for_model", choose)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # without the settings of the tests
    for _ in range(3):
        _, text = call("predict", model, scans / "good_0000.nii.gz", "--out", out, "--device", "cpu")
        assert "1 of 1 cases" in text
        assert "predicted again" not in text
        assert read_json(out / "index.json")["cases"]["good"]["precision"] == "fp32"


def test_prediction_goes_on_in_the_backend_of_the_masks(
    call, finished_run: Run, scans, tmp_path, monkeypatch
) -> None:
    model, out, scan = finished_run.folder.model(0), tmp_path / "out", scans / "good_0000.nii.gz"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # without the settings of the tests
    arguments = ("predict", model, scan, "--out", out, "--device", "cpu")
    code, text = call(*arguments, "--backend", "openvino", "--precision", "fp32")
    assert code == 0, text
    first = read_json(out / "index.json")["cases"]["good"]
    assert (first["backend"], first["precision"]) == ("openvino", "fp32")
    code, text = call(*arguments)
    assert code == 0, text
    assert "predicted again" not in text
    assert read_json(out / "index.json")["cases"]["good"] == first
    code, text = call(*arguments, "--backend", "torch", "--precision", "fp32")
    assert "backend torch instead of openvino" in text
    assert read_json(out / "index.json")["cases"]["good"]["backend"] == "torch"


def test_options_that_cannot_be_used_are_refused(call, finished_run: Run, scans, tmp_path) -> None:
    model, scan = finished_run.folder.model(0), scans / "good_0000.nii.gz"
    arguments = ("predict", model, scan, "--out", tmp_path / "out", "--device", "cpu")
    code, text = call(*arguments, "--precision", "int8")
    assert code == 2
    assert "the model has no int8 network. Make it with `medunet calibrate RUN`" in text
    code, text = call(*arguments, "--precision", "int8", "--backend", "torch")
    assert code == 2
    assert "int8 is computed by OpenVINO on the CPU" in text


def test_pages_of_new_scans(call, finished_run: Run, scans: Path, tmp_path: Path):
    model, out = finished_run.folder.root, tmp_path / "out"
    code, text = call("predict", model, scans, "--out", out, "--report")
    assert code == 1, "two scans fail"
    assert "open in a browser" in text
    index = (out / "report/index.html").read_text()
    places = [index.index(f'dir="auto">{case}</a>') for case in ("moved", "offset", "good")]
    assert places == sorted(places), "failed ones first"
    page = (out / "report/cases/good.html").read_text()
    assert "<h2>Volumes</h2>" in page
    assert "<h2>Provenance</h2>" in page
    assert "model_sha256" in page
    assert "<h2>Targets</h2>" not in page
    failed = (out / "report/cases/moved.html").read_text()
    assert "Failed: N008 sform and qform disagree" in failed
    for html in (index, page, failed):
        assert str(tmp_path) not in html
        assert str(finished_run.data_root) not in html


def test_held_out_cases_have_their_own_report(call, finished_run: Run):
    code, text = call("predict", finished_run.folder.root, "--report")
    assert code == 2
    assert "the pages of held-out cases are written by `medunet report`" in text


def test_pages_of_a_folder_of_masks_can_be_made_later(call, finished_run: Run, scans: Path, tmp_path: Path):
    model, out = finished_run.folder.root, tmp_path / "out"
    call("predict", model, scans, "--out", out, "--report")
    pages = {path: path.read_bytes() for path in (out / "report").rglob("*.html")}
    assert len(pages) == 4
    shutil.rmtree(out / "report")
    code, text = call("report", out, "--model", model, "--images", scans)
    assert code == 0, text
    assert "open in a browser" in text
    assert {path: path.read_bytes() for path in (out / "report").rglob("*.html")} == pages

    shutil.copyfile(scans / "offset_0000.nii.gz", scans / "other_0000.nii.gz")
    shutil.copyfile(scans / "offset_0000.nii.gz", scans / "good_0000.nii.gz")
    code, text = call("report", out, "--model", model, "--images", scans)
    assert code == 0
    assert "other: not predicted into this folder" in text
    page = (out / "report/cases/good.html").read_text()
    assert "Failed: the scan is not the one that was predicted" in page
    for scan in scans.glob("good_*"):
        scan.unlink()
    code, text = call("report", out, "--model", model, "--images", scans)
    assert code == 0, text
    assert "Failed: the scan is not among those given" in (out / "report/cases/good.html").read_text()


def test_what_a_folder_of_masks_lacks_is_asked_for(call, finished_run: Run, scans: Path, tmp_path: Path):
    model, out = finished_run.folder.root, tmp_path / "out"
    call("predict", model, scans, "--out", out)
    for options in ((), ("--model", model), ("--images", scans)):
        code, text = call("report", out, *options)
        assert code == 2
        assert "Add --model RUN and --images SCANS" in text
    code, text = call("report", out, "--model", model, "--images", scans, "--volumes", "all")
    assert code == 2
    assert "--volumes" in text
    (tmp_path / "others").mkdir()
    shutil.copyfile(scans / "good_0000.nii.gz", tmp_path / "others" / "new_0000.nii.gz")
    code, text = call("report", out, "--model", model, "--images", tmp_path / "others")
    assert code == 2
    assert "none of the predicted cases (good, moved, offset) is among the scans" in text
    index = read_json(out / "index.json")
    write_json(out / "index.json", {**index, "targets": {"kidney": [1]}})
    code, text = call("report", out, "--model", model, "--images", scans)
    assert code == 2
    assert "holds masks of ['kidney']" in text
    code, text = call("report", finished_run.folder.root, "--model", model)
    assert code == 2
    assert "a run knows its scans and models" in text
