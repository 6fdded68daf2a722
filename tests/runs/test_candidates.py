"""Runs that a selection compares: what is wrong with any of them is named at once."""

import shutil
from pathlib import Path

import pytest
from tiny_selection import DESCRIPTION, change_index, make_run, predict_by_all, shift, write_card

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json
from medunet.records.manifest import Manifest
from medunet.records.plan import Plan
from medunet.runs.candidates import find_candidates, labelled_cases
from medunet.runs.run import Run, open_run


@pytest.fixture
def pair(tmp_path: Path, tiny_plan: Plan) -> tuple[Run, Run]:
    first = make_run(tmp_path / "first", tmp_path / "data", tiny_plan, shift, num_patients=4, num_tests=1)
    second = make_run(tmp_path / "second", tmp_path / "data", tiny_plan, shift, num_patients=4, num_tests=1)
    return first, second


def fault_of(*runs: Run) -> str:
    with pytest.raises(InputError) as error:
        find_candidates(runs)
    return error.value.what


def change_manifest(run: Run, case_id: str, **changes: object) -> None:
    manifest = Manifest.read(run.folder.manifest)
    cases = [
        case.model_copy(update=changes) if case.id == case_id else case
        for case in manifest.cases
        if case.id != case_id or changes
    ]
    manifest.model_copy(update={"cases": tuple(cases)}).write(run.folder.manifest)


def test_candidates_come_from_the_fewest_networks_to_the_most(pair, tiny_plan):
    first, second = pair
    alone = [[each.name for each in find_candidates(runs, ensembles=False)] for runs in (pair, pair[::-1])]
    assert alone == [["first", "second"], ["second", "first"]]
    write_card(first.folder, tiny_plan, 0, 1)
    predict_by_all(first)
    candidates = find_candidates([first, second])
    assert [each.name for each in candidates] == ["second", "first", "first + second"]
    assert candidates[2].members == (*candidates[1].members, *candidates[0].members)
    assert candidates[2].masks == first.folder.root / "ensembles" / "first+second"
    assert [member.model for member in candidates[1].members] == [
        "folds/0/model", "folds/0/seeds/1/model", "folds/1/model",
    ]  # fmt: skip


def test_cases_are_those_that_folds_hold_out_and_tests_are_apart(pair):
    first, _ = pair
    change_manifest(first, "p01a", label=None)
    folds, tests, unlabelled = labelled_cases(first, first.folder.predictions)
    assert [held.case for held in folds] == ["p00a", "p00b", "p02a", "p02b", "p03a"]
    assert [held.case for held in tests] == ["p04a", "p04b"]
    assert unlabelled == ["p01a"]


def test_every_difference_is_named_at_once(pair, tmp_path):
    first, second = pair
    change_manifest(second, "p00a", fold=1)
    change_manifest(second, "p01a", patient="p00")
    change_manifest(second, "p02a", label="p02b.nii.gz")
    change_manifest(second, "p04b")
    change_index(second, "p03a", model_sha256="earlier")
    change_index(first, "p02b", begun=True)
    shutil.rmtree(tmp_path / "first/folds/1")
    text = fault_of(first, second)
    for part in (
        "first: fold 1 is not trained",
        "second: lacks cases of first: p04b",
        "second: has other folds than first: p00a",
        "second: has other patients than first: p01a",
        "second: has other label files than first: p02a",
        "second: masks are of an earlier model: p00a, p03a",  # the model that holds it out is another one now
    ):
        assert part in text


def test_masks_must_be_there_whole_and_as_the_network_made_them(pair):
    first, _ = pair
    change_index(first, "p00a", begun=True)
    assert "first: held-out cases are not predicted: p00a" in fault_of(first)
    change_index(first, "p00a", begun=None)
    change_index(first, "p00b", options_sha256="of options with postprocessing")
    text = fault_of(first)
    assert "first: masks were postprocessed" in text
    assert "remove inference.postprocess" in text


def test_masks_with_other_windows_are_as_the_network_made_them(pair):
    from medunet.inference.mask_index import hash_making_options

    first, _ = pair
    fast = first.config.inference.model_copy(update={"overlap": 0.25})
    window_options = {"overlap": 0.25, "mirror": [], "shifts": 1}
    for resample in (False, True):
        change_index(
            first,
            "p00b",
            options_sha256=hash_making_options(fast, resample=resample),
            window_options=window_options,
        )
        assert len(find_candidates([first])) == 1


def test_a_case_whose_prediction_failed_is_there(pair):
    first, _ = pair
    index = read_json(first.folder.predictions / "index.json")
    del index["cases"]["p00a"]
    write_json(first.folder.predictions / "index.json", {**index, "failed": {"p00a": "NaN"}})
    (first.folder.predictions / "p00a.nii.gz").unlink()
    assert len(find_candidates([first])) == 1
    assert labelled_cases(first, first.folder.predictions)[0][0].mask is None


def test_other_targets_are_refused(pair):
    first, second = pair
    other = DESCRIPTION.model_copy(update={"labels": {"background": 0, "liver": 2, "spleen": 1}})
    manifest = Manifest.read(second.folder.manifest)
    manifest.model_copy(update={"description": other}).write(second.folder.manifest)
    assert "second: has other targets or labels than first" in fault_of(first, second)


def test_runs_are_beside_one_another_and_given_once(pair, tmp_path):
    first, _ = pair
    assert "first: given twice" in fault_of(first, first)
    elsewhere = open_run(shutil.copytree(tmp_path / "second", tmp_path / "deep/second"), first.data_root)
    assert "must be beside one another" in fault_of(first, elsewhere)


def test_seeds_that_are_not_trained_are_named(pair, tiny_plan):
    first, second = pair
    asked = open_run(first.folder.root, first.data_root, changes=["training.seeds=2"])
    write_card(first.folder, tiny_plan, 0, 1)
    assert "first: seed 1 of fold 1 is not trained" in fault_of(asked, second)
    write_card(first.folder, tiny_plan, 1, 1)
    predict_by_all(asked)
    assert len(find_candidates([asked, second], ensembles=False)) == 2


def test_a_model_trained_on_what_it_is_scored_on_is_refused(pair, tiny_plan):
    first, _ = pair
    path = first.folder.model(0) / "model.json"
    write_json(path, {**read_json(path), "train_is_validation": True})
    assert "no case is held out" in fault_of(first)
