"""Pages of masks of any tool: with the images of a folder or a manifest, or without pictures; and their options."""

import shutil
from pathlib import Path

import pytest
import yaml
from tiny_run import DESCRIPTION, make_run

from medunet.base.errors import InputError
from medunet.commands.mask_cases import find_images
from medunet.commands.report import parse_volumes
from medunet.commands.score import score_mask_files
from medunet.records.config import Config
from medunet.records.description import Description
from medunet.records.run_folder import RunFolder
from medunet.reporting import page_job


@pytest.fixture
def masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, Path, Config]:
    """A run's masks and data, which are scored as those of another tool; nothing is drawn."""
    run, data_root = make_run(tmp_path)
    (run.predictions / "index.json").unlink()
    description = tmp_path / "tiny.yaml"
    description.write_text(yaml.safe_dump(DESCRIPTION.model_dump(mode="json", exclude_defaults=True)))
    seen = []

    def remember(case, *_, **__):
        seen.append(case)
        raise OSError

    monkeypatch.setattr(page_job, "load_scan", remember)
    monkeypatch.setattr(page_job, "seen", seen, raising=False)
    return run, data_root, Config(dataset=str(description))


def test_without_images_the_pages_say_so_once(masks: tuple[RunFolder, Path, Config], tmp_path: Path) -> None:
    run, data_root, config = masks
    out = tmp_path / "out"
    score_mask_files(data_root / "labels", run.predictions, out, config, report=True)
    index = (out / "report" / "index.html").read_text()
    assert index.count("no images are known: name their folder with --images") == 1
    assert len(list((out / "report" / "cases").iterdir())) == 5
    assert "medunet check" not in index
    assert "these are masks of another tool" in index
    assert str(tmp_path) not in index


def test_images_of_a_folder_are_found_by_name(masks: tuple[RunFolder, Path, Config], tmp_path: Path) -> None:
    run, data_root, config = masks
    out = tmp_path / "out"
    (data_root / "images" / "lps_poor.nii.gz").unlink()
    score_mask_files(data_root / "labels", run.predictions, out, config, images=data_root / "images")
    assert {case.id for case in page_job.seen} == {"ras_good", "oblique_healthy", "no_prediction", 'a<b>&"c"'}
    case = next(case for case in page_job.seen if case.id == "ras_good")
    assert case.images == {"CT": "images/ras_good.nii.gz"}
    assert case.label == "labels/ras_good.nii.gz"
    assert "lps_poor</a>: no image is named like this case" in (out / "report" / "index.html").read_text()


def test_a_manifest_names_the_images(masks: tuple[RunFolder, Path, Config], tmp_path: Path) -> None:
    run, data_root, config = masks
    score_mask_files(
        run.manifest, run.predictions, tmp_path / "out", config, data_root=data_root, report=True
    )
    assert len(page_job.seen) == 5
    assert not (tmp_path / "other" / "report").exists()
    score_mask_files(run.manifest, run.predictions, tmp_path / "other", config, data_root=data_root)
    assert not (tmp_path / "other" / "report").exists()


def channels(*names: str) -> Description:
    return DESCRIPTION.model_copy(
        update={
            "channels": {
                name: Description.model_validate(
                    {**DESCRIPTION.model_dump(), "channels": {name: {"modality": "MR"}}}
                ).channels[name]
                for name in names
            }
        }
    )


def test_channels_are_found_by_number_or_in_one_file(tmp_path: Path) -> None:
    for name in ("one_0000", "one_0001", "two", "three_0000"):
        (tmp_path / f"{name}.nii.gz").touch()
    found = find_images(tmp_path, ["one", "two", "three"], channels("T1", "T2"))
    assert {case: {name: path.name for name, path in own.items()} for case, own in found.items()} == {
        "one": {"T1": "one_0000.nii.gz", "T2": "one_0001.nii.gz"},
        "two": {"T1": "two.nii.gz", "T2": "two.nii.gz"},
    }


def test_images_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_images(tmp_path / "none", ["one"], DESCRIPTION)
    (tmp_path / "other.nii.gz").touch()
    with pytest.raises(InputError, match=r"no image is named like a case: one expected, other found.*_0000"):
        find_images(tmp_path, ["one"], DESCRIPTION)
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a"):
        (folder / "one.nii.gz").touch()
    with pytest.raises(InputError, match="case one has several images"):
        find_images(tmp_path, ["one"], DESCRIPTION)
    shutil.rmtree(tmp_path / "a")
    assert set(find_images(tmp_path, ["one"], DESCRIPTION)) == {"one"}


@pytest.mark.parametrize(("text", "number"), [("all", None), ("none", 0), ("7", 7)])
def test_volumes_are_a_number_of_cases(text: str, number: int | None) -> None:
    assert parse_volumes(text) == number


def test_other_volumes_are_refused() -> None:
    with pytest.raises(InputError, match=r"--volumes.*Write all, none or a number"):
        parse_volumes("-1")
