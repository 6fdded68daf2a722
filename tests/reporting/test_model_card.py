"""The model card of a package says what is known, has no empty section, and lists no case."""

import re
from typing import Any

import pytest
from tiny_networks import describe, plan_network

from medunet.records.costs import Cost
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.records.package import Package
from medunet.records.plan import Shown
from medunet.records.released_card import release_card, sum_up
from medunet.reporting.model_card import write_model_card
from medunet.reporting.model_card_scores import Recipe, RunScores
from medunet.scoring.scores_json import StoredScores
from medunet.scoring.summary import LabelSummary, MetricSummary


def make_card(description: Description | None = None, **changes: Any) -> ModelCard:
    description = description or describe()
    plan = plan_network("plain", description=description)
    card = ModelCard(medunet_version="0.8.0", description=description, plan=plan, fold=0, weights_sha256="a")
    return card.model_copy(update=changes)


def make_package(**changes: Any) -> Package:
    member = {"fold": 0, "weights": "best", "precision": "fp32", "medunet_version": "0.8.0"}
    members = changes.pop("members", [{**member, "folder": "members/0"}])
    files = {"MODEL_CARD.md", "example.nii.gz"}
    files |= {
        f"{each['folder']}/{name}" for each in members for name in ("model.json", "weights.safetensors")
    }
    plain = {
        "name": "livers",
        "title": "Livers & <b>tumours</b> | of mice",
        "medunet_version": "0.9.0",
        "weights_licence": "CC-BY-4.0",
        "data_licence": "CC0",
        "channels": {"MR0": "MR"},
        "targets": ["liver", "tumour"],
        "members": members,
        "example": "example.nii.gz",
        "files": dict.fromkeys(files, "0" * 64),
    }
    return Package.parse({**plain, **changes}, "test")


def metric(mean: float, low: float, high: float, num_patients: int = 12) -> MetricSummary:
    return MetricSummary(
        mean=mean,
        mean_low=low,
        mean_high=high,
        median=mean,
        median_low=low,
        median_high=high,
        num_expected=14,
        num_finite=14,
        num_undefined=0,
        num_infinite=0,
        num_patients=num_patients,
        no_interval="" if low == low else "fewer than 10",
    )


def make_scores(**about: Any) -> StoredScores:
    nan = float("nan")
    metrics = {
        "dice": metric(0.91234, 0.88, 0.93),
        "hd95_mm": metric(3.456, nan, nan),
        "nsd_1mm": metric(nan, nan, nan),
    }
    label = LabelSummary("liver", 14, 13, 0, 2, 1, 1, 0, metrics)
    return StoredScores({"folds": ["0", "1"], **about}, 0.9, (label,), ({"case": "mouse_77"},))


def sections_of(text: str) -> dict[str, str]:
    """Return a card's sections by heading; none may be empty."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))
    assert all(sections.values())
    return sections


def test_scores_are_shown_with_their_intervals_and_counts():
    text = write_model_card(make_package(), {"members/0": make_card()}, [RunScores(make_scores())])
    rows = sections_of(text)["Scores"].splitlines()
    cells = [cell.strip() for cell in rows[-1].strip("|").split("|")]
    assert rows[-3].count("|") == rows[-1].count("|")
    assert cells == ["liver", "0.912 (0.880–0.930)", "3.46", "–", "14", "12", "2", "1", "1"]
    assert "held-out scans of folds 0 and 1" in text
    assert "mouse_77" not in text


def test_a_model_without_scores_says_so():
    text = write_model_card(make_package(), {"members/0": make_card()})
    assert sections_of(text)["Scores"] == "Not scored."
    assert "has not been measured" in sections_of(text)["Limits"]
    assert "Time" not in sections_of(text)


def test_scores_on_training_scans_are_not_called_held_out():
    scores = [RunScores(make_scores(train_is_validation=True))]
    text = write_model_card(make_package(), {"members/0": make_card(train_is_validation=True)}, scores)
    assert "On held-out" not in sections_of(text)["Scores"]
    assert "say nothing about new scans" in sections_of(text)["Limits"]


def test_scores_of_the_recipe_are_not_called_those_of_these_weights():
    member = {"folder": "members/0", "fold": "all", "weights": "final", "precision": "fp32"}
    package = make_package(members=[{**member, "medunet_version": "0.9.0", "num_training_cases": 40}])
    scores = RunScores(make_scores(folds=["all"]), 0, num_networks=5, recipe=Recipe(26, 14))
    sections = sections_of(write_model_card(package, {"members/0": make_card()}, [scores]))
    for part in (
        "Of the recipe, not of these weights: the mean of 5 networks, trained alike on 26 scans, on a test set",
        "were trained on 40 scans, 14 of the scored ones among them.",
    ):
        assert part in sections["Scores"]
    assert "fewer scans" in sections["Limits"]


def test_an_ensemble_is_said_to_be_scored_as_one():
    scores = RunScores(make_scores(), 0, num_networks=3)
    text = write_model_card(make_package(), {"members/0": make_card()}, [scores])
    assert "each is scored with the mean of 3 networks that were not trained on it." in text


def test_text_from_elsewhere_is_no_markup():
    text = write_model_card(make_package(attribution="a\n\n# b <script>"), {"members/0": make_card()})
    assert "Livers & \\<b\\>tumours\\</b\\> \\| of mice" in text
    assert "a # b \\<script\\>" in text


@pytest.mark.parametrize("known", [True, False])
def test_inputs_say_what_is_refused(known: bool):
    shown = Shown(field_of_view_mm=(300.0, 200.0, 120.5), darkest={}) if known else None
    card = make_card(describe(2))
    fingerprint = card.plan.fingerprint.model_copy(update={"shown": shown, "nonzero_fraction": 0.5})
    card = card.model_copy(update={"plan": card.plan.model_copy(update={"fingerprint": fingerprint})})
    inputs = sections_of(write_model_card(make_package(), {"members/0": card}))["Inputs"]
    assert ("at most 300 × 200 × 120.5 mm" in inputs) is known
    assert ("N028" in inputs) is known
    assert ("not known" in inputs) is not known
    assert "MR0 (MR) and MR1 (MR)" in inputs


def test_a_ct_and_pictures_have_their_own_inputs():
    plain = describe().to_dict()
    ct = Description.parse({**plain, "channels": {"CT": {"modality": "CT"}}}, "test")
    card = make_card().model_copy(update={"description": ct})
    known = {"percentile_00_5": -12.0, "percentile_99_5": 180.0, "mean": 90.0, "std": 30.0}
    fingerprint = card.plan.fingerprint.model_copy(update={"intensities": {"CT": known}})
    card = card.model_copy(update={"plan": card.plan.model_copy(update={"fingerprint": fingerprint})})
    inputs = sections_of(write_model_card(make_package(), {"members/0": card}))["Inputs"]
    assert "Hounsfield units; the structures have -12 to 180" in inputs
    picture = make_card(Description.parse({**plain, "layout": "png"}, "test"))
    assert "volumes are refused" in write_model_card(make_package(), {"members/0": picture})


def test_members_and_times_are_tables():
    member = {"fold": 1, "weights": "final", "precision": "fp16", "medunet_version": "0.8.0", "seed": 3}
    members = [{**member, "folder": f"members/{number}", "steps": 400} for number in (0, 1)]
    cost = make_cost()
    cards = {f"members/{number}": make_card(costs={"fast": cost} if number else {}) for number in (0, 1)}
    text = write_model_card(make_package(members=members), cards, [RunScores(make_scores(), 3)])
    sections = sections_of(text)
    assert "| `members/1` | 1 | 3 | not known | not known | 400 | final | fp16 |" in sections["Members"]
    assert "not with all members together" in sections["Scores"]
    assert "| `members/1` | 12 | 3 | −0.0012 | 20 | openvino on A processor |" in sections["Time"]


def make_cost() -> Cost:
    return Cost(
        targets={},
        difference=-0.0012,
        worst_case="mouse_77",
        worst_target="liver",
        worst_difference=-0.1,
        num_cases=20,
        num_patients=18,
        seconds_fp32=12.3,
        seconds=3.0,
        backend_fp32="openvino",
        backend="openvino",
        device="cpu",
        processor="A processor: AVX",
        versions={},
        weights_sha256="a",
        options_sha256="b",
    )


def test_a_released_card_lists_no_case_and_keeps_the_costs_of_its_weights():
    cost = make_cost()
    card = make_card(
        training_cases=("mouse_77",),
        validation_cases=("mouse_78",),
        validation_dice={"dice": 0.9},
        costs={"fast": cost, "int8": cost},
    )
    released = release_card(card, used_sha256="a", released_sha256="c")
    assert "mouse" not in released.to_text()
    assert list(released.costs) == ["fast"]
    assert released.cost_of("fast", "best", released.inference) is None, "other options"
    assert released.costs["fast"].weights_sha256 == released.weights_sha256 == "c"
    assert "at most by" not in released.costs["fast"].describe()
    assert release_card(card, used_sha256="b", released_sha256="c").costs == {}, "of other weights"


def test_a_summed_up_fingerprint_refuses_the_same():
    card = make_card()
    rows = {
        "spacings_mm": ((1.0, 2.0, 3.0), (2.0, 1.0, 3.0), (1.5, 1.5, 3.0)),
        "shapes": ((9, 8, 7), (4, 20, 7), (5, 5, 9)),
    }
    fingerprint = card.plan.fingerprint.model_copy(update=rows)
    summed = sum_up(fingerprint)
    assert summed.spacings_mm == ((1.0, 1.0, 3.0), (2.0, 2.0, 3.0))
    assert summed.shapes == ((4, 5, 7), (9, 20, 9))
    assert summed.field_of_view_mm == fingerprint.field_of_view_mm == (9.0, 20.0, 27.0)
    assert summed.darkest == {}
