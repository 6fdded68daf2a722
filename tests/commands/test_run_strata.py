"""Scores by patient and by stratum, from the commands to the files: patients, sites, joined tables and hashes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medunet.base.errors import InputError
from medunet.base.files import hash_file, read_json, write_json
from medunet.commands.compare import compare_scores
from medunet.commands.score import score_mask_files
from medunet.imaging.nifti import write_volume
from medunet.records.config import change_config
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest
from medunet.reporting.summaries import summarise_cohort
from medunet.scoring.tables import read_lesions, read_scores

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
PLAIN = {
    "schema": "medunet.dataset/1",
    "name": "liver",
    "title": "Livers",
    "layout": "pairs",
    "channels": {"CT": {"modality": "CT"}},
    "labels": {"background": 0, "liver": 1},
    "patient": r"^(p\d+)_",
    "site": r"_(north|south)",
}
NUM_PATIENTS = 12


def case_ids() -> list[str]:
    """Return two scans of twelve patients, half of them from either site."""
    return [
        f"p{number:02}_{'north' if number % 2 else 'south'}_{scan}"
        for number in range(NUM_PATIENTS)
        for scan in (1, 2)
    ]


def write_masks(folder: Path) -> tuple[Path, Path]:
    """Write references and predictions, those of a patient alike; return both folders."""
    generator = np.random.default_rng(0)
    for number, case in enumerate(case_ids()):
        reference = np.zeros((12, 10, 8), dtype=np.uint8)
        reference[2:9, 2:8, 2:6] = 1
        prediction = np.roll(reference, number // 2 % 4, axis=0)
        prediction[generator.integers(2, 9), 3, 3] = 0
        for name, array in (("labels", reference), ("masks", prediction)):
            (folder / name).mkdir(exist_ok=True)
            write_volume(folder / name / f"{case}.nii.gz", array, AFFINE)
    return folder / "labels", folder / "masks"


@pytest.fixture
def description(tmp_path: Path) -> Path:
    write_json(tmp_path / "liver.yaml", PLAIN)
    return tmp_path / "liver.yaml"


@pytest.fixture
def masks(tmp_path: Path) -> tuple[Path, Path]:
    return write_masks(tmp_path)


def config_of(description: Path):
    return change_config({"dataset": str(description)}, [], "--dataset")


def test_patients_and_sites_of_the_ids_reach_every_file(
    masks: tuple[Path, Path], description: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    score_mask_files(*masks, out, config_of(description), by=["site"])
    table = read_scores(out / "scores.csv")
    assert table["patient"].tolist() == [case[:3] for case in case_ids()]
    assert table["site"].tolist() == [case.split("_")[1] for case in case_ids()]
    first = masks[0] / f"{case_ids()[0]}.nii.gz"
    assert table["reference_sha256"][0] == hash_file(first)[:16]
    assert (table["prediction_sha256"].str.len() == 16).all()
    content = read_json(out / "scores.json")
    assert content["about"]["by"] == ["site"]
    dice = content["summary"][0]["metrics"]["dice"]
    assert (dice["num_finite"], dice["num_patients"], dice["no_interval"]) == (24, 12, "")
    assert dice["mean_low"] < dice["mean"] < dice["mean_high"] <= 1
    strata = [
        (stratum["value"], stratum["num_cases"], stratum["num_patients"]) for stratum in content["strata"]
    ]
    assert strata == [("north", 12, 6), ("south", 12, 6)]
    for stratum in content["strata"]:
        metric = stratum["summary"][0]["metrics"]["dice"]
        own = table.loc[table["site"] == stratum["value"], "dice"]
        assert metric["mean"] == pytest.approx(own.mean())
        assert metric["no_interval"] == "6 patients, fewer than 10"
        assert metric["mean_low"] is None
    text = " ".join(capsys.readouterr().out.split())
    assert "over 24 cases of 12 patients" in text
    assert "site north" in text
    assert "without an interval: site north: 6 patients, fewer than 10" in text
    page = summarise_cohort(table, out / "scores.json")
    assert [(stratum.value, stratum.num_patients) for stratum in page.strata] == [("north", 6), ("south", 6)]
    assert page.remark == ""


def test_a_patient_in_free_text_does_not_reach_the_scores(
    masks: tuple[Path, Path], description: Path, tmp_path: Path
) -> None:
    names = {case: f"Doe, Jane {case[:3]}" for case in case_ids()}
    cases = tuple(
        Case(
            id=case,
            patient=names[case],
            site="Ward 7",
            images={"CT": "x.nii.gz"},
            label=f"{case}.nii.gz",
            fold=0,
        )
        for case in case_ids()
    )
    manifest = Manifest(
        description=Description.model_validate({**PLAIN, "patient": "", "site": ""}), cases=cases
    )
    write_json(tmp_path / "manifest.json", manifest.model_dump(mode="json", by_alias=True))
    out = tmp_path / "out"
    score_mask_files(
        *(tmp_path / "manifest.json", masks[1], out, config_of(description)),
        data_root=masks[0],
        by=["fold", "site"],
    )
    assert "Doe" not in (out / "scores.csv").read_text() + (out / "scores.json").read_text()
    table = read_scores(out / "scores.csv")
    assert table["patient"].tolist() == [f"{case[:-1]}1" for case in case_ids()]  # the patient's first case
    assert set(table["site"]) == {"Ward 7"}
    assert set(table["fold"]) == {"0"}


def test_a_joined_table_gives_strata_and_names_cases_without_a_value(
    masks: tuple[Path, Path], description: Path, tmp_path: Path, capsys
) -> None:
    joined = tmp_path / "scanners.csv"
    rows = [f"{case};{'=A' if number % 4 else 'B'};61" for number, case in enumerate(case_ids()[:-2])]
    joined.write_text("\n".join(["case;vendor;age", *rows]), encoding="utf-8-sig")
    out = tmp_path / "out"
    score_mask_files(*masks, out, config_of(description), by=["vendor"], join=joined)
    table = read_scores(out / "scores.csv")
    assert table["vendor"].value_counts().to_dict() == {"=A": 16, "B": 6, "unknown": 2}
    assert "age" not in table
    assert "2 case(s) without vendor are “unknown”: p11_north_1, p11_north_2" in capsys.readouterr().out
    values = [stratum["value"] for stratum in read_json(out / "scores.json")["strata"]]
    assert values == ["=A", "B", "unknown"]


@pytest.mark.parametrize(
    ("by", "rows", "why"),
    [
        (["ward"], None, "there is no column ward"),
        (["dice"], None, "dice is a score"),
        (["kvp"], ["case,kvp", *(f"{case},{n}" for n, case in enumerate(case_ids()))], "kvp has 24 values"),
        (["kvp"], ["case,kvp", "other,120"], "kvp: no case has a value"),
        (["kvp"], ["scan,kvp", "p00,120"], "has no column case"),
        (["kvp"], ["case,kvp", "p00,120", "p00,100"], "row 3: p00 differs from an earlier row"),
        ([], ["case,kvp", "p00,120"], "no column is named"),
    ],
)
def test_columns_that_cannot_be_strata_are_refused(
    masks: tuple[Path, Path],
    description: Path,
    tmp_path: Path,
    by: list[str],
    rows: list[str] | None,
    why: str,
) -> None:
    joined = None
    if rows is not None:
        joined = tmp_path / "join.csv"
        joined.write_text("\n".join(rows))
    with pytest.raises(InputError) as caught:
        score_mask_files(*masks, tmp_path / "out", config_of(description), by=by, join=joined)
    assert why in str(caught.value)


def test_text_columns_of_an_edited_table_are_read_and_compared(
    masks: tuple[Path, Path], description: Path, tmp_path: Path, capsys
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    score_mask_files(*masks, ours, config_of(description))
    score_mask_files(masks[0], masks[0], theirs, config_of(description))
    table = pd.read_csv(ours / "scores.csv", dtype=str)
    table["scanner"] = ["1.50", "3.0"] * 12  # text, also where it looks like numbers
    table["slice_thickness_mm"] = "2"  # no metric, although its name ends like a distance
    table.to_csv(ours / "scores.csv", index=False)
    old = pd.read_csv(theirs / "scores.csv", dtype=str)  # as written before 0.7
    old.drop(columns=["patient", "site", "reference_sha256", "prediction_sha256"]).to_csv(
        theirs / "scores.csv", index=False
    )
    assert read_scores(ours / "scores.csv")["scanner"].tolist()[:2] == ["1.50", "3.0"]
    compare_scores([ours, theirs], tmp_path / "out", by=["scanner", "site"])
    pairs = pd.read_csv(tmp_path / "out" / "comparison.csv")
    dice = pairs[pairs["metric"] == "dice"].iloc[0]
    assert (dice["num_cases"], dice["num_patients"]) == (
        24,
        12,
    )  # the old table's cases are those patients' too
    assert dice["low"] < dice["mean_difference"] < dice["high"]
    assert "slice_thickness_mm" not in set(pairs["metric"])
    strata = pd.read_csv(tmp_path / "out" / "strata.csv", dtype={"stratum": str})
    own = strata[strata["metric"] == "dice"]
    assert own["stratum"].tolist() == ["1.50", "3.0", "north", "south"]
    assert own["num_cases"].tolist() == [12] * 4
    assert own["num_patients"].tolist() == [12, 12, 6, 6]
    assert own["low"].notna().tolist() == [True, True, False, False]
    assert "over 24 cases of 12 patients" in " ".join(capsys.readouterr().out.split())
    compare_scores([ours, theirs], tmp_path / "out")
    assert not (tmp_path / "out" / "strata.csv").exists()


def test_a_stratum_with_two_values_for_a_case_is_refused(
    masks: tuple[Path, Path], description: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        score_mask_files(*masks, tmp_path / name, config_of(description))
    path = tmp_path / "b" / "scores.csv"
    path.write_text(path.read_text().replace(",north,", ",east,"))
    with pytest.raises(InputError, match="site of p01_north_1 is north and east"):
        compare_scores([tmp_path / "a", tmp_path / "b"], tmp_path / "out", by=["site"])


def test_text_columns_of_lesions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lesions.csv"
    path.write_text(
        "case,label,rules,lesion,status,counted,dice,hd95_mm,reference_ml,predicted_ml,long_axis_mm,"
        "short_axis_mm,slice,reader\na,tumour,lits,1,matched,true,0.8,2.5,1,1,14,9,31,Dr. A\n"
    )
    table = read_lesions(path)
    assert table["reader"].tolist() == ["Dr. A"]
    assert table["hd95_mm"].tolist() == [2.5]


def test_patients_of_a_joined_table_are_no_free_text_and_blank_ones_are_apart(
    masks: tuple[Path, Path], description: Path, tmp_path: Path
) -> None:
    cases, table = case_ids(), tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"{case},Meier {case[:3]}\n" for case in cases[:20]))
    out = tmp_path / "out"
    score_mask_files(*masks, out, config_of(description), by=["patient"], join=table)
    text = (out / "scores.csv").read_text() + (out / "scores.json").read_text()
    assert "Meier" not in text
    known = read_scores(out / "scores.csv").set_index("case")["patient"]
    assert known[cases[0]] == known[cases[1]] == cases[0]
    assert known.nunique() == 14  # ten patients, and four cases without one


def test_a_joined_table_of_other_cases_says_which(
    masks: tuple[Path, Path], description: Path, tmp_path: Path
) -> None:
    table = tmp_path / "scanners.csv"
    table.write_text("case,vendor,dice\n" + "".join(f"{case}.nii.gz,GE,1\n" for case in case_ids()))
    with pytest.raises(
        InputError,
        match=r"vendor: no case has a value, since it is given for p00_south_1\.nii\.gz, .* p00_south_1, ",
    ):
        score_mask_files(*masks, tmp_path / "out", config_of(description), by=["vendor"], join=table)
    table.write_text("case,vendor,dice\n" + "".join(f"{case},GE,1\n" for case in case_ids()))
    with pytest.raises(InputError, match=r"dice is a score\. Choose from \['patient', 'site', 'vendor'\]"):
        score_mask_files(*masks, tmp_path / "out", config_of(description), by=["dice"], join=table)
