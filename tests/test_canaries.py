"""What headers, sidecars, folders and file names say of a patient is in nothing that a run writes.

The dataset is a table of cases, so that case ids do not come from file names. Its manifest lists the files, relative
to the data root, since that is what it is for: only there may their names stand.
"""

import base64
import gzip
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import TINY
from nibabel.nifti1 import Nifti1Extension
from tiny_cohort import write_tiny_cohort
from typer.testing import CliRunner, Result

from medunet.cli.app import app
from medunet.imaging.nifti import read_header

pytestmark = pytest.mark.slow

CANARIES = ("mueller", "annegret", "pat4711", "19700102", "1970-01-02")
FIELDS = {  # 24, 80, 16, 18 and 10 characters at most
    "aux_file": b"/archive/mueller",
    "descrip": b"Mueller^Annegret PAT4711 born 19700102",
    "intent_name": b"PAT4711 Mueller",
    "db_name": b"Annegret 19700102",
}
SIDECAR = {
    "PatientName": "Mueller^Annegret",
    "PatientID": "PAT4711",
    "PatientBirthDate": "1970-01-02",
    "AcquisitionDateTime": "1970-01-02T10:11:12",
}
MAY_LIST_FILES = {"manifest.json"}


def plant(path: Path) -> None:
    """Write a patient's data into each place of a NIfTI file, and beside it as dcm2niix does."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    planted = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    for field, text in FIELDS.items():
        planted.header[field] = text
    planted.header.extensions.append(Nifti1Extension("comment", b"Mueller^Annegret PAT4711"))
    nib.save(planted, path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(SIDECAR))


def call(*arguments: object, code: int = 0) -> str:
    result: Result = CliRunner().invoke(app, [str(item) for item in arguments], env={"COLUMNS": "400"})
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of all that the commands wrote, and what they said."""
    top = tmp_path_factory.mktemp("canaries")
    root, out = top / "Mueller_Annegret_PAT4711", top / "out"
    write_tiny_cohort(root, 5)
    lines = ["case,image,label,site"]
    for number in range(5):
        folder = root / f"PAT4711_{number}"
        folder.mkdir()
        for role in ("images", "labels"):
            path = folder / f"Mueller{number}_{role}_19700102.nii.gz"
            (root / f"{role}Tr/case_{number:02d}.nii.gz").rename(path)
            plant(path)
        files = ",".join(f"{folder.name}/{path.name}" for path in sorted(folder.glob("*.nii.gz")))
        lines.append(f"subject_{number},{files},{'north' if number % 2 else 'south'}")
    (root / "cases.csv").write_text("\n".join(lines) + "\n")
    description = {
        "name": "tiny",
        "layout": "csv",
        "table": "cases.csv",
        "channels": {"CT": {"modality": "CT"}},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "regions": {"liver": ["liver", "tumour"], "tumour": ["tumour"]},
        "region_order": ["liver", "tumour"],
        "folds": 2,
    }
    (top / "tiny.yaml").write_text(yaml.safe_dump(description))
    (top / "config.yaml").write_text(yaml.safe_dump({"dataset": str(top / "tiny.yaml")}))
    run = out / "run"
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("medunet"), "propagate", True)
        changes = [part for change in TINY for part in ("--set", change)]
        said.append(call("run", top / "config.yaml", "--data-root", root, "--run", run, *changes))
        scans = root / "new"
        scans.mkdir()
        for number in range(2):
            image = root / f"PAT4711_{number}/Mueller{number}_images_19700102.nii.gz"
            shutil.copy(image, scans / f"new_{number}.nii.gz")
        (scans / "broken.nii.gz").write_bytes(image.read_bytes()[:2000])
        options = ("--report", "--probabilities")
        said.append(call("predict", run / "folds/0/model", scans, "--out", out / "new", *options, code=1))
        (run / "predictions/subject_0.nii.gz").write_bytes(b"no mask")
        said.append(call("report", run, "--data-root", root, "--by", "site"))
        masks = (run / "manifest.json", run / "predictions", "--data-root", root)
        said.append(call("score", *masks, "--report", "--out", out / "scores", code=1))
        said.append(call("compare", run, out / "scores", "--out", out / "compared", code=1))
    return out, "\n".join(said)


def texts_of(path: Path) -> Iterator[bytes]:
    """Yield a file's content as it is stored, uncompressed, and what its pages hold as base64."""
    content = path.read_bytes()
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    if path.suffix == ".html":
        for coded in re.findall(rb"[A-Za-z0-9+/]{64,}={0,2}", content):
            if len(coded) % 4 == 0:
                inner = base64.b64decode(coded)
                yield gzip.decompress(inner) if inner[:2] == b"\x1f\x8b" else inner


def leaks_in(text: bytes, *more: str) -> list[str]:
    return [canary for canary in (*CANARIES, *more) if canary.encode() in text.lower()]


def test_the_canaries_were_planted_where_they_are_looked_for(tmp_path: Path) -> None:
    write_tiny_cohort(tmp_path, 1)
    path = tmp_path / "imagesTr/case_00.nii.gz"
    plant(path)
    stored, plain = texts_of(path)
    assert leaks_in(stored) == []
    assert leaks_in(plain) == ["mueller", "annegret", "pat4711", "19700102"]
    page = tmp_path / "page.html"
    page.write_bytes(b'<img src="data:,' + base64.b64encode(path.read_bytes()) + b'">')
    assert leaks_in(list(texts_of(page))[-1]) == leaks_in(plain)


def test_no_file_holds_what_the_data_say_of_a_patient(written: tuple[Path, str]) -> None:
    out, _ = written
    leaks, kinds = {}, set()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        kinds.add(path.name.split(".", 1)[-1] if "tfevents" not in path.name else "tfevents")
        folders = (out.parent.name,)  # no absolute path
        canaries = folders if path.name in MAY_LIST_FILES else (*CANARIES, *folders)
        found = {canary for text in texts_of(path) for canary in canaries if canary.encode() in text.lower()}
        if found:
            leaks[str(path.relative_to(out))] = sorted(found)
    assert leaks == {}
    assert {"html", "csv", "json", "tfevents", "nii.gz", "yaml"} <= kinds


def test_no_line_of_the_commands_holds_it(written: tuple[Path, str]) -> None:
    out, said = written
    assert "Report" in said
    assert leaks_in(said.replace(str(out), "").encode()) == []


def test_written_masks_have_no_text_of_their_own(written: tuple[Path, str]) -> None:
    out, _ = written
    masks = [*out.glob("run/predictions/subject_[1-9].nii.gz"), *out.glob("new/*.nii.gz")]
    assert len(masks) > 2
    for path in masks:
        header = nib.load(path).header
        assert all(
            not header[field].tobytes().strip(b"\0") for field in ("aux_file", "intent_name", "db_name")
        )
        assert not header.extensions
        assert read_header(path)
