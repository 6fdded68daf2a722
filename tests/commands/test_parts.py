"""`medunet predict --part` and `--missing`: parts are stable, disjoint and together all; what is missing is named."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cohort import write_tiny_cohort

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json
from medunet.base.lock import hold
from medunet.commands.parts import CaseChoice, part_of
from medunet.runs.run import Run

EXACT = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")
NAMES = [f"case_{number:02d}" for number in range(6)]


# By `printf %s liver_7 | sha256sum`, of which the first 16 digits are a number.
@pytest.mark.parametrize(
    ("case", "of_two", "of_three", "of_32"),
    [("case_00", 1, 3, 3), ("case_01", 2, 3, 10), ("liver_7", 1, 1, 27), ("Müller", 1, 1, 15)],
)
def test_a_part_is_the_remainder_of_the_hash(case: str, of_two: int, of_three: int, of_32: int) -> None:
    assert [part_of(case, count) for count in (1, 2, 3, 32)] == [1, of_two, of_three, of_32]


@settings(deadline=None)
@given(st.sets(st.text(min_size=1), min_size=1), st.sets(st.text(min_size=1)), st.integers(1, 40))
def test_more_cases_move_no_case_to_another_part(cases: set[str], more: set[str], count: int) -> None:
    before = {case: part_of(case, count) for case in cases}
    after = {case: part_of(case, count) for case in cases | more}
    assert set(after.values()) <= set(range(1, count + 1))  # so that the parts are disjoint and together all
    assert {case: after[case] for case in cases} == before


def test_parts_of_many_cases_are_about_equal() -> None:
    sizes = Counter(part_of(f"patient{number:05d}_ct", 32) for number in range(10_000))
    assert len(sizes) == 32
    assert max(abs(size - 312.5) for size in sizes.values()) < 4 * (10_000 / 32) ** 0.5


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "1/3/5", "all", "a/b", "1.0/3", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no part"):
        CaseChoice.parse(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dry-run",), "Add --missing"),
        (("--part", "all/3"), "Add --missing"),
        (("--part", "4/3"), "with I from 1 to N"),
        (("--missing", "--overwrite"), "repeats what is not missing"),
        (("--part", "1/3", "--out", "OUT", "--report", "SCAN"), "add it after all parts"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    finished_run: Run, call, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    places = {"OUT": tmp_path, "SCAN": finished_run.data_root / "imagesTr"}
    code, text = call("predict", finished_run.folder.root, *(places.get(each, each) for each in options))
    assert (code, message in text) == (2, True), text


def test_parts_into_one_folder_are_together_the_whole(finished_run: Run, call, tmp_path: Path) -> None:
    model, scans = finished_run.folder.model(0), finished_run.data_root / "imagesTr"
    given = ("predict", model, scans, *EXACT, "--out")
    assert call(*given, tmp_path / "whole")[0] == 0
    out = tmp_path / "parts"
    parts = {number: [case for case in NAMES if part_of(case, 4) == number] for number in (1, 2, 3, 4)}
    assert all(parts.values())
    with hold(out, "predict", parts[1]):  # another command has the first part in work
        code, text = call(*given, out, "--part", "2/4")
        assert code == 0, text
        assert f"part 2 of 4 {len(parts[2])} of 6 cases" in text
    assert sorted(read_json(out / "index.json")["cases"]) == parts[2]
    for number in (1, 3, 4):
        assert call(*given, out, "--part", f"{number}/4")[0] == 0
    whole, joined = (read_json(each / "index.json")["cases"] for each in (tmp_path / "whole", out))
    assert whole.keys() == joined.keys() == set(NAMES)
    for case in NAMES:
        assert joined[case]["options_sha256"] == whole[case]["options_sha256"]
        one, other = (each / f"{case}.nii.gz" for each in (tmp_path / "whole", out))
        assert one.read_bytes() == other.read_bytes()


def test_a_part_without_cases_is_done_at_once(finished_run: Run, call, tmp_path: Path) -> None:
    count = next(
        count for count in range(7, 100) if not any(part_of(case, count) == 1 for case in NAMES)
    )  # fmt: skip
    scans = finished_run.data_root / "imagesTr"
    part = ("--part", f"1/{count}")
    code, text = call("predict", finished_run.folder.model(0), scans, "--out", tmp_path / "out", *part)
    assert (code, f"part 1 of {count} 0 of 6 cases" in text) == (0, True), text
    assert not (tmp_path / "out").exists()


def test_held_out_cases_have_parts_and_missing_ones_too(own_run: Run, call) -> None:
    given = ("predict", own_run.folder.root, "--data-root", own_run.data_root, *EXACT)
    (held_out,) = [sorted(read_json(own_run.folder.predictions / "index.json")["cases"])]
    (part_of_first,) = {part_of(held_out[0], 2)}
    for path in own_run.folder.predictions.iterdir():
        path.unlink()
    code, text = call(*given, "--part", f"{part_of_first}/2")
    assert code == 0, text
    done = sorted(read_json(own_run.folder.predictions / "index.json")["cases"])
    assert done == [case for case in held_out if part_of(case, 2) == part_of_first]
    absent = [case for case in held_out if case not in done]
    code, text = call(*given, "--missing", "--dry-run", "--part", "all/2")
    assert code == (1 if absent else 0)
    assert all(f"missing {case} (part {3 - part_of_first}): not done" in text for case in absent)
    assert call(*given)[0] == 0
    assert call(*given, "--missing", "--dry-run")[0] == 0


def test_every_missing_case_is_named_with_its_reason_and_taken(
    finished_run: Run, call, tmp_path: Path
) -> None:
    scans, out = write_tiny_cohort(tmp_path / "scans", 7) / "imagesTr", tmp_path / "out"
    given = ("predict", finished_run.folder.model(0), scans, "--out", out, *EXACT)
    broken = scans / "case_04.nii.gz"
    whole, _ = broken.read_bytes(), broken.write_bytes(b"no scan")
    assert call(*given)[0] == 1
    index = read_json(out / "index.json")
    (out / "case_00.nii.gz").unlink()
    index["cases"]["case_01"] = {"begun": True}
    index["cases"]["case_02"]["model_sha256"] = "0" * 64
    del index["cases"]["case_03"]
    (out / "case_03.nii.gz").unlink()
    write_json(out / "index.json", index)
    broken.write_bytes(whole)
    kept = [out / f"{case}.nii.gz" for case in ("case_05", "case_06")]
    before = [path.stat().st_mtime_ns for path in kept]
    named = {
        "case_00": "its mask was removed",
        "case_01": "begun, but not finished",
        "case_02": "its mask is of other weights",
        "case_03": "not done",
        "case_04": "failed: ",
    }
    code, text = call(*given, "--missing", "--dry-run", "--part", "all/32")
    assert code == 1
    for case, reason in named.items():
        assert f"missing {case} (part {part_of(case, 32)}): {reason}" in text
    assert "missing 5 of 7 cases" in text
    numbers = ",".join(map(str, sorted({part_of(case, 32) for case in named})))
    assert f"parts {numbers} of 32 have missing cases" in text
    assert not (out / "case_03.nii.gz").exists()

    one = part_of("case_03", 32)
    code, text = call(*given, "--missing", "--part", f"{one}/32")
    assert (code, "Predict: 1 of 1 cases" in text) == (0, True), text
    code, text = call(*given, "--missing")
    assert (code, "Predict: 4 of 4 cases" in text) == (0, True), text
    assert call(*given, "--missing")[0] == 0
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"case_{n:02d}.nii.gz" for n in range(7)]
    code, text = call(*given, "--missing", "--dry-run", "--probabilities")
    assert (code, text.count("no map of probabilities")) == (1, 7)


def test_what_is_missing_is_named_without_loading_torch(finished_run: Run, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom medunet.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print('loaded:', sorted({'torch', 'monai'} & sys.modules.keys()))"
    )
    new = (finished_run.folder.model(0), finished_run.data_root / "imagesTr", "--out", tmp_path / "out")
    held_out = (finished_run.folder.root, "--data-root", finished_run.data_root)
    for places, code in ((new, 1), (held_out, 0)):
        command = ["predict", *map(str, places), "--missing", "--dry-run"]
        result = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
        assert result.returncode == code, result.stderr
        assert result.stdout.splitlines()[-1] == "loaded: []"
    assert not (tmp_path / "out").exists()
