"""Records: round trips, and descriptions that contradict themselves refused with all faults at once."""

import pytest

from medunet.base.errors import InputError
from medunet.base.record import read_yaml
from medunet.records.description import Description, load_description
from medunet.records.manifest import Case, Manifest
from medunet.records.plan import Plan

BRATS = {
    "name": "brats",
    "layout": "brats",
    "channels": {"t1": {"modality": "MR"}},
    "labels": {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4},
    "regions": {
        "whole": ["necrosis", "oedema", "enhancing"],
        "core": ["necrosis", "enhancing"],
        "enhancing_tumour": ["enhancing"],
    },
    "region_order": ["whole", "core", "enhancing_tumour"],
}


def describe(**changes: object) -> Description:
    return Description.parse({**BRATS, **changes}, "test.yaml")


def test_regions_unite_values_and_are_written_as_their_own_label():
    description = describe()
    assert description.targets == {"whole": (1, 2, 4), "core": (1, 4), "enhancing_tumour": (4,)}
    assert description.written_values == {"whole": 2, "core": 1, "enhancing_tumour": 4}


def test_description_round_trip():
    description = describe()
    assert Description.parse(description.to_dict(), "again") == description


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 1, "necrosis": 0}}, "'background: 0' is missing"),
        ({"labels": {"background": 0, "a": 1, "b": 1}, "regions": {}, "region_order": []}, "share a value"),
        ({"labels": {"background": 0, "a": 300}, "regions": {}, "region_order": []}, r"0\.\.255"),
        ({"region_order": ["whole"]}, "must name each of"),
        ({"regions": {"whole": ["nothing"]}, "region_order": ["whole"]}, r"regions\.whole"),
        ({"regions": {"core": ["necrosis"]}, "region_order": ["core"]}, "belong to no region"),
        ({"region_order": ["core", "whole", "enhancing_tumour"]}, "exactly one label"),
        ({"patient": "no group"}, "exactly one group"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        describe(**changes)


def test_all_faults_at_once():
    with pytest.raises(InputError) as caught:
        describe(labels={"background": 1, "a": 1, "b": 300}, regions={}, region_order=[])
    assert all(
        part in str(caught.value) for part in ("test.yaml", "share a value", "0..255", "background: 0")
    )


def test_unknown_description_lists_those_there_are():
    with pytest.raises(InputError, match=r"one of: .*lits_2017"):
        load_description("lvier")


def test_folds_split_and_one_fold_trains_on_what_it_validates():
    cases = tuple(Case(id=f"c{i}", patient=f"{i}", images={"t1": f"{i}.nii"}, fold=i % 2) for i in range(4))
    manifest = Manifest(description=describe(), cases=cases)
    training, validation = manifest.split_fold(1)
    assert [case.id for case in training] == ["c0", "c2"]
    assert [case.id for case in validation] == ["c1", "c3"]
    assert manifest.split_fold("all") == (cases, cases)
    with pytest.raises(InputError, match=r"Choose one of 0\.\.1"):
        manifest.split_fold(2)
    assert Manifest.parse(manifest.to_dict(), "again") == manifest


def test_yaml_reads_exponents_as_numbers(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("rate: 1e-3\nname: 1e-3x\n")
    assert read_yaml(path) == {"rate": 0.001, "name": "1e-3x"}


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0", "a\nb", "a\x7f"])
def test_case_ids_that_cannot_name_a_file_are_refused(name):
    with pytest.raises(InputError, match="id: "):
        Case.parse({"id": name, "patient": "p", "images": {}}, "manifest.json")


@pytest.mark.parametrize("name", ["case_01", "1.2.840", "Fall Öl 3", "a..b"])
def test_other_case_ids_are_kept(name):
    assert Case.parse({"id": name, "patient": "p", "images": {}}, "manifest.json").id == name


def test_plan_file_holds_each_number_beside_its_reason(tiny_plan: Plan, tmp_path):
    tiny_plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == tiny_plan
    assert tiny_plan.to_dict()["batch_size"] == {"value": 2, "why": tiny_plan.why["batch_size"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": [16, 15, 8]}, r"patch_size: \[16, 15, 8\] is not divisible"),
        ({"patch_size": [16, 16]}, "patch_size: needs 3 axes"),
        ({"patch_size": [16, 16, 0]}, "patch_size: every number must be 1 or more"),
        ({"features": [4]}, "features: a network needs two stages or more"),
        ({"features": [4, 0, 8]}, "features: every stage needs 1 or more"),
        ({"features": [4, 8, 16, 32]}, "kernel_sizes: has . stages but features has 4; strides: has"),
        ({"features": [], "strides": [], "kernel_sizes": []}, "two stages or more, not 0"),
        ({"features": [4, 8], "strides": [[1, 1, 1], [0, 2, 2]]}, "strides: every number"),
        ({"strides": [[2, 2, 2], [2, 2, 2]]}, "strides: those of the first stage"),
        ({"kernel_sizes": [[3, 3], [3, 3]]}, "kernel_sizes: needs 3 axes"),
        ({"kernel_sizes": [[3, 3, 2], [3, 3, 3]]}, "kernel_sizes: every number must be odd"),
        ({"batch_size": 0}, "batch_size: must be 1 or more"),
        ({"deep_supervision": 0}, "deep_supervision: must be 1 or more"),
        ({"spacing_mm": [1, 0, 1]}, "spacing_mm: .* must be positive"),
        ({"slice_axis": 3}, "slice_axis: 3 is not 0"),
        ({"intensities": {}}, "intensities: there is no channel"),
    ],
)
def test_plans_edited_by_hand_are_checked(tiny_plan: Plan, changes, message):
    with pytest.raises(InputError, match=message):
        Plan.parse({**tiny_plan.to_dict(), **changes}, "plan.json")


def test_all_faults_of_a_plan_at_once(tiny_plan: Plan):
    with pytest.raises(InputError, match=r"plan\.json: .*batch_size: .*slice_axis: .*intensities: "):
        Plan.parse(
            {**tiny_plan.to_dict(), "batch_size": -1, "slice_axis": -1, "intensities": {}}, "plan.json"
        )


def test_a_yaml_key_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("labels:\n  liver: 1\n  tumour: 2\n  liver: 3\n")
    with pytest.raises(InputError, match="found the key 'liver' twice") as caught:
        read_yaml(path)
    assert "line 2" in str(caught.value)
