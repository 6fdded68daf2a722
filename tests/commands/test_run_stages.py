"""A whole run on a tiny cohort: every file where it belongs, nothing private in any, each stage idempotent."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import TINY

from medunet.base.errors import FaultsError, InputError
from medunet.base.files import read_json
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.predict import run_predict
from medunet.commands.report import run_report
from medunet.commands.run import run_all
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.commands.tune import run_tune
from medunet.dataset.checks.manifest_checks import read_faults
from medunet.records.manifest import Manifest
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.reporting.viewer import LIBRARY
from medunet.runs.provenance import add_provenance, read_provenance
from medunet.runs.run import Run, external_run, open_run


def test_run_folder_holds_what_the_house_promises(finished_run: Run):
    root = finished_run.folder.root
    for name in (
        *("config.yaml", "manifest.json", "checks.json", "checks.csv", "plan.json", "provenance.json"),
        *(
            "folds/0/checkpoints/last.ckpt",
            "folds/0/checkpoints/previous.ckpt",
            "folds/0/checkpoints/best.ckpt",
        ),
        *("folds/0/model/weights.safetensors", "folds/0/model/model.json"),
        *("folds/0/training.csv", "folds/0/curves.png"),
        *("predictions/index.json", "scores.csv", "scores.json", "summary.json", "report/index.html"),
    ):
        assert (root / name).stat().st_size > 0, name
    assert list((root / "folds/0/tensorboard").glob("events.out.tfevents.*"))
    assert Manifest.read(root / "manifest.json") == finished_run.read_manifest()
    assert Plan.read(root / "plan.json").batch_size == 2
    assert ModelCard.read(root / "folds/0/model/model.json").plan == finished_run.read_plan()


def test_no_saved_file_holds_a_path_of_this_machine(finished_run: Run):
    private = [str(finished_run.data_root), str(finished_run.folder.root.parent), "/tmp/", "/home/"]
    for path in finished_run.folder.root.rglob("*"):
        if path.is_file() and path.suffix != ".gz" and path.name != LIBRARY:  # NiiVue, which is not ours
            content = path.read_bytes()
            for text in private:
                assert text.encode() not in content, f"{path.name} holds {text}"


def test_tiny_network_learns(finished_run: Run):
    scores = pd.read_csv(finished_run.folder.scores)
    assert scores[scores.label == "liver"].dice.mean() > 0.8
    assert (scores.surface == "area").all()


def test_masks_have_their_scans_geometry(finished_run: Run):
    index = read_json(finished_run.folder.predictions / "index.json")
    assert index["failed"] == {}
    for case in index["cases"]:
        mask = nib.load(finished_run.folder.predictions / f"{case}.nii.gz")
        scan = nib.load(finished_run.data_root / f"imagesTr/{case}.nii.gz")
        assert mask.shape == scan.shape
        assert np.array_equal(mask.affine, scan.affine)
        assert mask.get_data_dtype() == np.uint8


def test_every_stage_again_changes_no_result(own_run: Run):
    names = ("plan.json", "scores.csv", "folds/0/model/weights.safetensors", "folds/0/training.csv")
    before = {name: (own_run.folder.root / name).read_bytes() for name in names}
    masks = {path: path.stat().st_mtime_ns for path in own_run.folder.predictions.glob("*.nii.gz")}
    run_all(own_run)
    assert {name: (own_run.folder.root / name).read_bytes() for name in names} == before
    assert {path: path.stat().st_mtime_ns for path in masks} == masks


def test_a_missing_mask_is_a_failed_case_not_a_skipped_one(own_run: Run):
    victim = next(own_run.folder.predictions.glob("*.nii.gz"))
    victim.unlink()
    index = read_json(own_run.folder.predictions / "index.json")
    other = next(case for case in index["cases"] if not victim.name.startswith(case))
    index["cases"][other] = {"begun": True}  # killed while predicting: what lies there is not this model's
    (own_run.folder.predictions / "index.json").write_text(json.dumps(index))
    scores = run_score(own_run)
    assert {row.status for row in scores if row.case == other} == {"missing"}
    rows = [row for row in scores if row.case == victim.name.removesuffix(".nii.gz")]
    assert {row.status for row in rows} == {"missing"}
    assert run_report(own_run).read_text().count(rows[0].case) > 0


def test_training_refuses_errors_until_the_case_is_excluded_by_name(own_run: Run):
    (own_run.data_root / "labelsTr/case_01.nii.gz").write_bytes(b"broken")
    assert [fault.case for fault in run_check(own_run)] == ["case_01"]
    with pytest.raises(FaultsError, match=r"case_01 \(N002\)"):
        run_train(own_run)
    assert read_faults(own_run.folder.checks)
    fixed = open_run(own_run.folder.root, own_run.data_root, changes=["exclude.case_01=broken label"])
    run_manifest(fixed)
    with pytest.raises(FaultsError, match="not been checked"):
        run_plan(fixed)
    assert run_check(fixed) == []
    run_plan(fixed)
    assert fixed.read_manifest().excluded[0].reason == "broken label"


def test_another_plan_does_not_resume_these_checkpoints(own_run: Run):
    changed = open_run(own_run.folder.root, own_run.data_root, changes=["planning.batch_size=3"])
    run_plan(changed)
    with pytest.raises(InputError, match="another plan, case list, seed, optimizer"):
        run_train(changed)


def plan_for_a_card(run: Run) -> None:
    """Let the plan that stands be one that was made for a card."""
    made = read_provenance(run)["plan"]
    add_provenance(run, "plan", {**made, "device": "cuda"})


def test_a_plan_made_for_another_device_is_refused_with_the_command_that_plans_anew(own_run: Run):
    shutil.rmtree(own_run.folder.fold(0))
    plan_for_a_card(own_run)
    anew = rf"plan\.json: .* made for cuda.* run on cpu.*`medunet plan {own_run.folder.root} --device cpu`"
    with pytest.raises(InputError, match=anew):
        run_train(own_run)
    with pytest.raises(InputError, match=anew):
        run_tune(own_run)
    assert not own_run.folder.fold(0).exists()
    run_plan(own_run)
    assert read_provenance(own_run)["plan"]["device"] == "cpu"
    run_train(own_run)


def test_a_run_that_has_started_keeps_its_plan_on_another_device_and_says_so(own_run: Run, capsys):
    plan_for_a_card(own_run)
    before = own_run.folder.plan.read_bytes()
    run_train(own_run)
    told = " ".join(capsys.readouterr().err.split())
    assert "made for cuda" in told
    assert "the plan is kept" in told
    assert own_run.folder.plan.read_bytes() == before


def test_a_plan_edited_by_hand_is_kept_until_its_inputs_change(own_run: Run):
    plain = read_json(own_run.folder.plan)
    plain["batch_size"]["value"] = 7
    own_run.folder.plan.write_text(json.dumps(plain))
    assert run_plan(own_run).batch_size == 7
    changed = open_run(own_run.folder.root, own_run.data_root, changes=["planning.base_features=4"])
    assert run_plan(changed).batch_size == 2


def brighten(run: Run) -> None:
    """Change the content of every scan, and check the data again."""
    for path in (run.data_root / "imagesTr").glob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 50, image.affine), path)
    assert run_check(run) == []


def test_a_plan_is_of_the_data_as_they_are(own_run: Run, capsys: pytest.CaptureFixture[str]):
    run_plan(own_run)
    kept = own_run.folder.plan.read_bytes()
    for path in (own_run.data_root / "imagesTr").iterdir():
        path.touch()
    assert run_check(own_run) == []
    run_plan(own_run)
    assert "have changed" not in capsys.readouterr().out
    brighten(own_run)
    for _ in range(2):
        run_plan(own_run)
        assert "changed since the plan, with which training has begun" in capsys.readouterr().out
    assert own_run.folder.plan.read_bytes() == kept
    shutil.rmtree(own_run.folder.fold(0))
    before = own_run.read_plan().fingerprint.intensities["CT"]["mean"]
    assert run_plan(own_run).fingerprint.intensities["CT"]["mean"] == pytest.approx(before + 50, abs=1)
    assert "which is made again" in capsys.readouterr().out
    run_plan(own_run)
    assert "changed" not in capsys.readouterr().out


def test_fixed_folds_are_kept_in_the_run_without_their_path(tmp_path, finished_run: Run):
    folds = [["case_00", "case_01"], ["case_02", "case_03", "case_04", "case_05"]]
    (tmp_path / "splits.json").write_text(json.dumps({"folds": folds}))
    changes = (*TINY, f"folds_file={tmp_path / 'splits.json'}")
    run = open_run(tmp_path / "run", finished_run.data_root, dataset="phantoms", changes=changes)
    run_manifest(run)
    again = open_run(tmp_path / "run", finished_run.data_root)
    run_manifest(again)
    assert {case.id: case.fold for case in again.read_manifest().cases} == {
        case: fold for fold, cases in enumerate(folds) for case in cases
    }
    assert str(tmp_path) not in run.folder.config.read_text()


def test_a_model_is_tried_on_scans_with_other_label_values(own_run: Run):
    """The other dataset writes liver as 5: labels are joined by name, in scores and in pictures."""
    description = {
        "name": "elsewhere", "layout": "msd", "channels": {"CT": {"modality": "CT"}},
        "labels": {"background": 0, "spleen": 1, "liver": 5},
    }  # fmt: skip
    (own_run.folder.root / "elsewhere.yaml").write_text(yaml.safe_dump(description))
    for path in (own_run.data_root / "labelsTr").glob("*.nii.gz"):
        image = nib.load(path)
        values = np.where(np.asarray(image.dataobj) > 0, 5, 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(values, image.affine), path)
    elsewhere = external_run(own_run, str(own_run.folder.root / "elsewhere.yaml"), own_run.data_root)
    run_manifest(elsewhere)
    assert run_check(elsewhere) == []
    assert run_predict(elsewhere, model=own_run.folder.model(0)) == {}
    scores = run_score(elsewhere, targets=("liver",))
    assert len(scores) == 6
    assert min(row.dice for row in scores) > 0.5
    page = run_report(elsewhere)
    assert "case_00" in page.read_text()


def test_data_changed_after_the_check_are_not_trained_on(own_run: Run):
    path = own_run.data_root / "labelsTr/case_01.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.int16) * 129, image.affine), path)
    with pytest.raises(FaultsError, match="not been checked, or have changed"):
        run_train(own_run)


def test_a_model_is_not_scored_on_cases_that_it_was_trained_on(own_run: Run):
    refolded = open_run(own_run.folder.root, own_run.data_root, changes=["seed=7"])
    run_manifest(refolded)
    held_out = {case.id for case in refolded.read_manifest().split_fold(0)[1]}
    assert held_out & set(ModelCard.read(own_run.folder.model(0) / "model.json").training_cases)
    with pytest.raises(InputError, match=r"trained on .* held-out cases"):
        run_predict(refolded)


def test_fold_all_leaves_the_held_out_scores_alone(own_run: Run):
    before = own_run.folder.scores.read_text()
    whole = open_run(
        own_run.folder.root, own_run.data_root, changes=["training.fold=all", "training.epochs=1"]
    )
    assert run_train(whole)[0].train_is_validation
    with pytest.raises(InputError, match="holds out no cases"):
        run_predict(whole, fold="all")
    assert run_predict(whole) == {}  # by the numbered folds
    run_score(own_run)
    assert own_run.folder.scores.read_text() == before


def test_scores_on_training_cases_say_so_everywhere(finished_run: Run, tmp_path, capsys):
    changes = (*TINY, "training.fold=all", "training.epochs=1")
    run = open_run(tmp_path / "run", finished_run.data_root, dataset="phantoms", changes=changes)
    assert run_all(run)[0] == []
    assert "say nothing about new scans" in " ".join(capsys.readouterr().out.split())
    assert read_json(tmp_path / "run/scores.json")["about"]["train_is_validation"]
    for page in (tmp_path / "run/report").rglob("*.html"):
        assert "say nothing about new scans" in page.read_text()


def test_a_test_set_beside_fold_all_is_held_out(finished_run: Run, tmp_path, capsys):
    changes = (*TINY, "training.fold=all", "training.epochs=1", "test_share=0.3")
    run = open_run(tmp_path / "run", finished_run.data_root, dataset="phantoms", changes=changes)
    assert run_all(run)[0] == []
    text = " ".join(capsys.readouterr().out.split())
    assert "The test cases are scored apart." in text
    assert "say nothing about new scans" not in text
    scores = read_json(tmp_path / "run/scores.json")
    assert not scores["about"]["train_is_validation"]
    tests = {case.id for case in run.read_manifest().used if case.split == "test"}
    assert {row["case"] for row in scores["scores"]} == tests
    for page in (tmp_path / "run/report").rglob("*.html"):
        assert "say nothing about new scans" not in page.read_text()


def test_masks_of_an_earlier_model_are_not_scored(own_run: Run):
    longer = open_run(own_run.folder.root, own_run.data_root, changes=["training.epochs=8"])
    before = own_run.folder.model(0).joinpath("weights.safetensors").read_bytes()
    run_train(longer)
    assert own_run.folder.model(0).joinpath("weights.safetensors").read_bytes() != before
    with pytest.raises(InputError, match="earlier model"):
        run_score(longer)
    run_predict(longer)
    run_score(longer)


def test_a_refused_option_is_not_kept(own_run: Run):
    before = own_run.folder.config.read_text()
    for change in ("training.fold=9", "seed=5"):
        with pytest.raises(InputError):
            run_train(open_run(own_run.folder.root, own_run.data_root, changes=[change]))
    run_predict(open_run(own_run.folder.root, own_run.data_root, changes=["training.precision=fp32"]))
    assert own_run.folder.config.read_text() == before


def test_cases_left_out_by_name_stay_out_when_the_pipeline_is_started_again(own_run: Run):
    kept = open_run(own_run.folder.root, own_run.data_root, changes=["exclude.case_01=why"])
    run_manifest(kept)
    config_file = own_run.folder.root.parent / "pipeline.yaml"
    config_file.write_text("dataset: phantoms\n")
    again = open_run(own_run.folder.root, own_run.data_root, config_file=config_file)
    assert again.config.exclude == {"case_01": "why"}


def test_a_run_that_has_started_keeps_its_plan_on_another_device(own_run: Run):
    before = own_run.folder.plan.read_bytes()
    provenance = read_json(own_run.folder.provenance)
    provenance["plan"]["device"] = "cuda"
    own_run.folder.provenance.write_text(json.dumps(provenance))
    run_plan(own_run)
    assert own_run.folder.plan.read_bytes() == before


def test_postprocessing_of_an_unknown_target_is_refused_before_training(own_run: Run):
    changes = [
        "inference.postprocess.livr=[keep_largest: true]",
        "inference.postprocess.liver=[inside: tumr]",
    ]
    with pytest.raises(InputError, match=r"no target 'livr'; liver, step 1.*'tumr'.*Choose from"):
        run_plan(open_run(own_run.folder.root, own_run.data_root, changes=changes))


def test_only_training_is_shared_among_processes(own_run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for stage in (run_manifest, run_predict, run_all):
        with pytest.raises(InputError, match="only training can be distributed"):
            stage(own_run)


def test_what_killed_stages_left_goes(own_run: Run):
    root = own_run.folder.root
    names = (
        "manifest.json",
        "checks.json",
        "checks.html",
        "provenance.json",
        "config.yaml",
        "scores.csv",
        "summary.json",
    )
    left = [root / f".{name}.abcd1234.tmp" for name in names]
    for path in left:
        path.touch()
    run_check(own_run)
    run_score(own_run)
    assert not [path.name for path in left if path.exists()]
