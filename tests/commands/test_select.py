"""`medunet select`: what held-out cases choose, what they do not, and that test cases have no say."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tiny_selection import DESCRIPTION, add_specks, make_run, predict_by_all, shift, write_card

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json
from medunet.commands.predict import predict_ensemble, predict_images
from medunet.commands.score import run_score
from medunet.commands.select import run_select
from medunet.imaging.nifti import read_header, write_mask
from medunet.records.config import PostprocessStep
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder
from medunet.records.selection import Configuration, MeanScores, Member, Selection
from medunet.reporting.report import report_run
from medunet.runs import step_trials
from medunet.runs.run import Run, open_run
from medunet.runs.selection import chosen, model_of
from medunet.scoring.tables import read_scores


@pytest.fixture
def make(tmp_path: Path, tiny_plan: Plan):
    """Return a function that makes a run below one folder, on the same labels."""

    def make(name: str, draw, **options) -> Run:
        return make_run(tmp_path / "runs" / name, tmp_path / "data", tiny_plan, draw, **options)

    return make


def better(rng, label):
    """Return a mask that misses its label by one row."""
    mask = label.copy()
    mask[:, np.flatnonzero(label.any(axis=(0, 2)))[0]] = 0
    return mask


def plain_score(run: Run, patients, *, keep_largest_liver: bool) -> float:
    """Return the mean Dice over patients by NumPy and SciPy alone; every case has both targets."""
    means = []
    for patient in patients:
        own = []
        for path in sorted(run.data_root.glob(f"{patient}?.nii.gz")):
            label = np.asarray(nib.load(path).dataobj)
            mask = np.asarray(nib.load(run.folder.predictions / path.name).dataobj).copy()
            if keep_largest_liver:
                parts, count = ndimage.label(mask == 1, np.ones((3, 3, 3)))
                sizes = ndimage.sum_labels(parts > 0, parts, range(1, count + 1))
                mask[(mask == 1) & (parts != 1 + np.argmax(sizes))] = 0
            both = [2 * ((label == v) & (mask == v)).sum() for v in (1, 2)]
            sizes = [(label == v).sum() + (mask == v).sum() for v in (1, 2)]
            own.append(np.mean(np.array(both) / sizes))
        means.append(np.mean(own))
    return float(np.mean(means))


def test_a_step_that_helps_is_chosen_and_nothing_else(make):
    run = make("specks", add_specks, num_tests=4)
    selection = run_select(run)
    assert selection.postprocess == {"liver": (PostprocessStep(keep_largest=True),)}
    assert Selection.read(run.folder.selection) == selection
    first, second = selection.rounds
    assert [trial.tried for trial in first.trials if trial.is_chosen] == ["keep_largest"]
    assert not any(trial.is_chosen for trial in second.trials)
    assert second.trials[0].against == "liver: keep_largest"
    assert (first.level, second.level) == (0.025, 0.0125)
    assert {trial.num_patients for trial in first.trials} == {16}
    folds, tests = [f"p{number:02d}" for number in range(16)], [f"p{number}" for number in range(16, 20)]
    assert selection.folds.first == pytest.approx(plain_score(run, folds, keep_largest_liver=False))
    assert selection.folds.chosen == pytest.approx(plain_score(run, folds, keep_largest_liver=True))
    assert (selection.folds.num_patients, selection.folds.num_cases) == (16, 24)
    assert selection.test.first == pytest.approx(plain_score(run, tests, keep_largest_liver=False))
    assert selection.test.chosen == pytest.approx(plain_score(run, tests, keep_largest_liver=True))
    assert (selection.test.num_patients, selection.test.num_cases) == (4, 6)
    page = (run.folder.root / "selection.html").read_text()
    assert "liver: <b>keep_largest</b>; spleen: <b>none</b>" in page
    assert "they flatter what was chosen" in page
    assert str(run.data_root.parent) not in page + run.folder.selection.read_text()


def test_the_report_leads_to_the_selection(make):
    run = make("specks", shift)
    scores = run_score(run)
    assert {row.status for row in scores} == {"ok"}
    for selected in (False, True):
        if selected:
            run_select(run)
        page = report_run(run.folder, run.data_root, scores=read_scores(run.folder.scores))
        assert ('href="../selection.html"' in page.read_text()) is selected


def test_nothing_is_chosen_where_nothing_helps(make):
    selection = run_select(make("plain", shift))
    assert selection.postprocess == {}
    (only,) = selection.rounds
    assert only.why == "none of 14 tried gains more than it may by chance at the level 0.025"
    assert selection.test is None
    assert selection.folds.gain == 0


def test_the_simplest_configuration_is_kept_unless_another_gains(make, tiny_plan):
    worse, alike, good = make("worse", shift), make("alike", shift, seed=1), make("good", better)
    assert run_select(worse, [alike], ensembles=False).chosen == "worse"
    assert run_select(alike, [worse], ensembles=False).chosen == "alike"
    selection = run_select(worse, [alike, good], ensembles=False)
    assert selection.chosen == "good"
    assert [each.name for each in selection.configurations] == ["worse", "alike", "good"]
    assert selection.folds.first == selection.configurations[0].mean_dice
    assert selection.folds.chosen == selection.configurations[2].mean_dice
    assert [trial.tried for trial in selection.rounds[0].trials if trial.is_chosen] == ["good"] * 2
    assert selection.rounds[1].level == selection.rounds[0].level / 2
    write_card(worse.folder, tiny_plan, 0, 1)  # two networks: no longer the simplest
    with pytest.raises(InputError, match="worse: masks are of an earlier model"):
        run_select(worse, [alike], ensembles=False)
    predict_by_all(worse)
    assert run_select(worse, [alike], ensembles=False).chosen == "alike"


def test_few_patients_choose_nothing(make):
    selection = run_select(make("specks", add_specks, num_patients=8))
    assert selection.postprocess == {}
    assert selection.rounds[-1].why == "8 patients are too few to tell a gain from chance (10 are needed)"


def test_test_cases_do_not_choose(make):
    """What would help the test cases alone is not chosen, and what they score does not depend on it being chosen."""
    one = run_select(make("one", shift, num_tests=12))
    other = run_select(make("other", shift, num_tests=12, draw_test=add_specks))
    assert one.rounds == other.rounds
    assert (one.postprocess, one.folds) == (other.postprocess, other.folds)
    assert one.test.first > other.test.first


def test_what_is_done_is_not_done_again(make, monkeypatch):
    run = make("specks", add_specks, num_tests=1)
    first = run_select(run)
    stamp = run.folder.selection.stat().st_mtime_ns
    monkeypatch.setattr(step_trials, "_compute", None)
    assert run_select(run) == first
    assert run.folder.selection.stat().st_mtime_ns == stamp
    monkeypatch.undo()
    mask = run.folder.predictions / "p01a.nii.gz"
    write_mask(mask, np.zeros(nib.load(mask).shape, np.uint8), read_header(run.data_root / mask.name))
    again = run_select(run)
    assert again.folds.first < first.folds.first
    assert again.inputs_sha256 != first.inputs_sha256
    assert not (run.folder.root / "selection.partial.jsonl").exists()


def test_a_stopped_selection_goes_on(make, monkeypatch):
    run, compute, computed = make("specks", add_specks), step_trials._compute, []

    def stop_at_the_fortieth(*arguments):
        computed.append(arguments)
        if len(computed) == 40:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(step_trials, "_compute", stop_at_the_fortieth)
    with pytest.raises(KeyboardInterrupt):
        run_select(run)
    assert not run.folder.selection.exists()
    stopped = run_select(run)
    num_computed = len(computed)
    for name in ("selection.json", "selection.html"):
        (run.folder.root / name).unlink()
    computed.clear()
    monkeypatch.setattr(step_trials, "_compute", lambda *arguments: computed.append(0) or compute(*arguments))
    assert run_select(run) == stopped
    assert num_computed == len(computed) + 1  # the case that was stopped


def test_a_failed_prediction_scores_0_and_is_no_gap(make):
    run = make("specks", add_specks)
    before = run_select(run).folds.first
    index = read_json(run.folder.predictions / "index.json")
    del index["cases"]["p01a"]
    write_json(run.folder.predictions / "index.json", {**index, "failed": {"p01a": "NaN"}})
    (run.folder.predictions / "p01a.nii.gz").unlink()
    selection = run_select(run)
    assert (selection.folds.num_cases, selection.folds.num_patients) == (24, 16)
    assert before - selection.folds.first == pytest.approx(before / 16, rel=0.2)


def test_a_selection_is_read_until_its_networks_or_masks_change(make, tiny_plan):
    run = make("specks", add_specks)
    assert chosen(run.folder) is None
    selection = run_select(run)
    assert chosen(run.folder) == selection
    mask = run.folder.predictions / "p00a.nii.gz"
    mask.write_bytes(mask.read_bytes() + b" ")
    with pytest.raises(InputError, match="made with other masks of held-out cases than predictions"):
        chosen(run.folder)
    shutil.rmtree(run.folder.predictions)  # to save space
    assert chosen(run.folder) == selection
    card = run.folder.model(1) / "model.json"
    write_json(card, {**read_json(card), "final_weights_sha256": "trained again"})
    with pytest.raises(InputError, match="other networks: folds/1/model changed") as error:
        chosen(run.folder)
    assert "--no-selection" in str(error.value)


def test_a_run_that_is_moved_keeps_its_selection(make, tmp_path):
    run = make("specks", add_specks)
    selection = run_select(run, [make("other", shift)], ensembles=False)
    moved = RunFolder(shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere") / "specks")
    assert chosen(moved) == selection
    assert selection.configuration.masks == "../other/predictions"
    models = [model_of(moved, member).resolve() for member in selection.configuration.members]
    assert models == [(tmp_path / "elsewhere/other/folds" / fold / "model").resolve() for fold in "01"]


def speck_both_and_hole(rng, label):
    """Return a mask with a speck of each target, and a hole in the liver."""
    mask = add_specks(rng, label)
    mask[23, 18, :2] = 2
    i, j, _ = (int(each.mean()) for each in np.nonzero(label == 1))
    mask[i - 1 : i + 2, j, 4] = 0
    return mask


def test_every_target_gets_its_steps_one_round_after_another(make):
    run = make("both", speck_both_and_hole)
    selection = run_select(run)
    keys = {
        name: [next(iter(step.model_dump())) for step in steps]
        for name, steps in selection.postprocess.items()
    }
    assert sorted(keys["liver"]) in (["fill_holes", "keep_largest"], ["closing_mm", "keep_largest"])
    assert keys["spleen"] == ["keep_largest"]
    first, second, *_ = selection.rounds
    assert {trial.target for trial in first.trials if trial.is_chosen} == {"liver", "spleen"}
    assert {trial.target for trial in second.trials if trial.is_chosen} == {"liver"}
    assert selection.folds.chosen > selection.folds.first


def test_the_command_names_all_faults(make, call, tmp_path):
    make("specks", add_specks)
    make("few", shift, num_patients=12)
    code, text = call(
        "select", tmp_path / "runs/specks", tmp_path / "runs/few", "--data-root", tmp_path / "data"
    )
    assert code == 2
    assert "few: lacks cases of specks: p12a, p12b, p13a" in text
    code, text = call("select", tmp_path / "runs/specks", "--data-root", tmp_path / "data")
    assert code == 0
    assert "Select: specks; postprocessing liver: keep_largest" in text
    assert "folds, which chose: mean Dice" in text


# ---- prediction -------------------------------------------------------------------------------------------------


SPLIT = PostprocessStep(opening_mm=60)  # removes all but the background


def write_selection(run: Run, name: str, folder: str, postprocess) -> None:
    """Write a selection that chose fold 0 of the run in a folder relative to the run."""
    card = ModelCard.read(run.folder.root / folder / "folds/0/model/model.json")
    member = {
        "run": folder, "model": "folds/0/model", "weights_sha256": card.sha256_of(card.inference.weights),
    }  # fmt: skip
    means = {"num_cases": 1, "num_patients": 1} | dict.fromkeys(("first", "chosen", "gain", "low", "high"))
    plain = {
        "medunet_version": "0", "inputs_sha256": "", "targets": list(DESCRIPTION.targets), "chosen": name,
        "configurations": [
            {"name": name, "members": [member], "masks": f"{folder}/none", "masks_sha256": "", "mean_dice": None}
        ],
        "postprocess": postprocess, "rounds": [], "folds": means,
    }  # fmt: skip
    Selection.parse(plain, "test").write(run.folder.selection)


def predict(call, run: Run, model: Path, out: Path, *options: str) -> tuple[str, np.ndarray]:
    scan = sorted((run.data_root / "imagesTr").iterdir())[0]
    code, text = call(
        "predict", model, scan, "--out", out, "--device", "cpu", "--backend", "torch", "--precision", "fp32",
        *options,
    )  # fmt: skip
    assert code == 0, text
    return text, np.asarray(nib.load(out / scan.name).dataobj)


def test_prediction_follows_the_selection_and_says_so(own_run, call, tmp_path):
    root = own_run.folder.root
    text, plain = predict(call, own_run, root, tmp_path / "plain")
    assert "selection" not in text
    assert plain.any()
    write_selection(own_run, "run", ".", {"liver": [SPLIT.model_dump()]})
    text, tidied = predict(call, own_run, root, tmp_path / "tidied")
    assert "selection: run; postprocessing liver: opening_mm 60" in text
    assert not (tidied == 1).any()
    for folder, model, options in (
        ("ignored", root, ["--no-selection"]),
        ("model", own_run.folder.model(0), []),  # a model folder by itself is predicted as it is
    ):
        text, mask = predict(call, own_run, model, tmp_path / folder, *options)
        assert "selection" not in text
        assert np.array_equal(mask, plain)
    text, again = predict(call, own_run, root, tmp_path / "plain")  # earlier masks without it are made again
    assert "other options of inference" in text
    assert np.array_equal(again, tidied)


def test_a_models_own_steps_take_precedence(own_run, call, tmp_path):
    write_selection(own_run, "run", ".", {"liver": [SPLIT.model_dump()]})
    path = own_run.folder.model(0) / "model.json"
    card = read_json(path)
    card["inference"]["postprocess"] = {"tumour": [{"keep_largest": True}]}
    write_json(path, card)
    text, mask = predict(call, own_run, own_run.folder.root, tmp_path / "out")
    assert "the model has its own inference.postprocess (tumour: keep_largest)" in text
    assert (mask == 1).any()


def test_the_network_of_another_run_predicts_if_it_was_chosen(own_run, call, tmp_path):
    other = shutil.copytree(own_run.folder.root, tmp_path / "other")
    path = other / "folds/0/model/model.json"
    write_json(path, {**read_json(path), "fold": 1})
    write_selection(own_run, "other", "../other", {})
    text, _ = predict(call, own_run, own_run.folder.root, tmp_path / "out")
    assert "selection: other; postprocessing none" in text
    entry = next(iter(json.loads((tmp_path / "out/index.json").read_text())["cases"].values()))
    assert entry["fold"] == 1


def test_held_out_cases_never_follow_a_selection(own_run, call):
    write_selection(own_run, "run", ".", {"liver": [SPLIT.model_dump()]})
    code, text = call("predict", own_run.folder.root, "--data-root", own_run.data_root, "--device", "cpu")
    assert code == 0
    assert "predicted again" not in text
    code, text = call("predict", own_run.folder.root, "--no-selection", "--data-root", own_run.data_root)
    assert code == 2
    assert "held-out cases are never predicted by a selection" in text


def test_a_stale_selection_stops_a_prediction(own_run, tmp_path, call):
    write_selection(own_run, "run", ".", {})
    path = own_run.folder.model(0) / "model.json"
    write_json(path, {**read_json(path), "final_weights_sha256": "other"})
    scan = sorted((own_run.data_root / "imagesTr").iterdir())[0]
    code, text = call("predict", own_run.folder.root, scan, "--out", tmp_path / "out")
    assert code == 2
    assert "other networks: folds/0/model changed" in text
    assert not (tmp_path / "out").exists()


def test_a_library_call_without_selection_is_as_before(own_run, tmp_path):
    scan = sorted((own_run.data_root / "imagesTr").iterdir())[0]
    failed = predict_images(
        [own_run.folder.model(0)], [scan], tmp_path / "out", None, device_name="cpu", overwrite=False
    )
    assert failed == {}


def average(paths: list[Path]) -> np.ndarray:
    """Return what most of the masks say, voxel by voxel."""
    return np.median([np.asarray(nib.load(path).dataobj) for path in paths], axis=0).astype(np.uint8)


def test_ensembles_of_runs_are_candidates(make, monkeypatch, tmp_path):
    """Pairs and all together, predicted once into a folder of the first run, and chosen if they gain."""
    runs = [make(name, shift, seed=seed) for seed, name in enumerate(("one", "two", "three"))]
    predicted = []

    def predict(of, out: Path):
        predicted.append(out.name)
        for path in of[0].folder.predictions.glob("*.nii.gz"):
            masks = [run.folder.predictions / path.name for run in of]
            write_mask(
                out / path.name, average([*masks, masks[0]] if len(of) == 2 else masks), read_header(path)
            )
        return {}

    monkeypatch.setattr("medunet.commands.predict.predict_ensemble", predict)
    selection = run_select(runs[0], runs[1:])
    names = ["one", "two", "three", "one + two", "one + three", "two + three", "one + two + three"]
    assert [each.name for each in selection.configurations] == names
    assert predicted == ["one+two", "one+three", "two+three", "one+two+three"]
    assert selection.chosen == "one + two + three"  # shifts in all directions, whose median is better
    members = selection.configuration.members
    assert [(member.run, member.model) for member in members] == [
        (run, f"folds/{fold}/model") for run in (".", "../two", "../three") for fold in (0, 1)
    ]
    assert chosen(runs[0].folder) == selection
    monkeypatch.setattr("medunet.commands.predict.predict_ensemble", lambda *_: {"p00a": "no memory"})
    with pytest.raises(InputError, match="1 cases cannot be predicted: p00a: no memory"):
        run_select(runs[0], runs[1:])


def test_a_chosen_ensemble_predicts_new_scans(own_run: Run, call, tmp_path):
    """By the networks of all folds of its runs; held-out cases of a fold by this fold's networks."""
    root, second = own_run.folder.root, tmp_path / "second"
    shutil.copytree(root, second)
    folder = RunFolder(second).model(0)
    card = ModelCard.read(folder / "model.json")
    out = tmp_path / "held out"
    runs = [own_run, open_run(second, own_run.data_root)]
    assert predict_ensemble(runs, out) == {}
    entries = read_json(out / "index.json")["cases"]
    assert set(entries) == set(read_json(own_run.folder.predictions / "index.json")["cases"])
    assert {len(entry["members"]) for entry in entries.values()} == {2}

    sha256 = card.sha256_of(card.inference.weights or "best")
    members = [Member(run=run, model="folds/0/model", weights_sha256=sha256) for run in (".", "../second")]
    pair = Configuration(name="pair", members=members, masks="none", masks_sha256="", mean_dice=0.5)
    means = MeanScores(num_cases=2, num_patients=2, first=0.5, chosen=0.5, gain=0.0, low=None, high=None)
    selection = Selection(
        medunet_version="0",
        inputs_sha256="",
        targets=("a",),
        configurations=(pair,),
        chosen="pair",
        rounds=(),
        folds=means,
    )
    selection.write(own_run.folder.selection)
    scan = sorted((own_run.data_root / "imagesTr").iterdir())[0]
    given = ("predict", root, scan, "--out", tmp_path / "out", "--device", "cpu")
    code, text = call(*given)
    assert code == 0, text
    assert "2 networks averaged" in text
    assert "selection: pair; postprocessing none" in text
    code, text = call(*given, "--fold", "0")
    assert "selection.json is not followed: --fold and --with say which networks predict" in text
    assert "networks averaged" not in text
