"""The manifest's records: what thousands of cases take in memory, and that cases share nothing that can change."""

import gc
import tracemalloc
from pathlib import Path

from medunet.records.description import load_description
from medunet.records.manifest import Case, Manifest


def case(number: int) -> Case:
    name = f"case_{number:05}"
    return Case(id=name, patient=f"p{number:05}", images={"CT": f"imagesTr/{name}.nii.gz"}, fold=number % 5)


def test_a_case_of_thousands_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    num_cases = 2000
    cases = tuple(case(number) for number in range(num_cases))
    Manifest(description=load_description("phantoms"), cases=cases).write(tmp_path / "manifest.json")
    Manifest.read(tmp_path / "manifest.json")  # once before, so that modules are loaded
    del cases
    gc.collect()
    tracemalloc.start()
    manifest = Manifest.read(tmp_path / "manifest.json")
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(manifest.cases) == num_cases
    assert held / num_cases < 900  # about 600; 1,400 if each held its own set of given fields


def test_a_changed_copy_leaves_the_fields_that_other_cases_were_given() -> None:
    first, second = case(1), case(2)
    assert first.model_copy(update={"label": "labelsTr/case_00001.nii.gz"}).model_fields_set == {
        "id", "patient", "images", "fold", "label"
    }  # fmt: skip
    assert first.model_fields_set == second.model_fields_set == {"id", "patient", "images", "fold"}
