"""Packages: MONAI and NiBabel are imported without those that are not used through them; versions are told apart."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import medunet
from medunet.base.packages import describe_software, hash_code
from medunet.base.ray_engine import _Actor

PROGRAM = """
import sys
from medunet.base.packages import keep_imports_lean
if {alone}:
    keep_imports_lean()
import monai.transforms
print(*(name in sys.modules for name in ("pandas", "matplotlib", "skimage", "scipy.signal", "pydicom")))
import matplotlib, pandas
print(pandas.DataFrame({{"a": [1]}}).a.sum(), monai.transforms.RandFlipd is not None)
"""


@pytest.mark.parametrize("alone", [True, False])
def test_programs_import_monai_without_what_they_do_not_use_through_it(alone: bool) -> None:
    for name in ("pandas", "matplotlib", "skimage", "pydicom"):
        pytest.importorskip(name)
    program = [sys.executable, "-c", PROGRAM.format(alone=alone)]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    loaded, used_after = result.stdout.splitlines()
    assert set(loaded.split()) == {str(not alone)}
    assert used_after == "1 True"


BESIDE = """
import sys, threading, time
from medunet.base.packages import keep_imports_lean
keep_imports_lean()

def use_beside():
    while "monai.utils" not in sys.modules:
        time.sleep(0.001)
    import pandas
    print(pandas.DataFrame({"a": [1]}).a.sum())

thread = threading.Thread(target=use_beside)
thread.start()
import monai.transforms
thread.join()
"""


def test_another_thread_imports_what_it_likes_meanwhile() -> None:
    pytest.importorskip("pandas")
    result = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, check=True)
    assert result.stdout == "1\n", result.stderr


def test_the_software_of_a_computer_is_told_by_version_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = describe_software.__wrapped__
    ours = describe()
    assert ours["numpy"] == np.__version__
    assert ours["torch"] == torch.__version__.partition("+")[0]
    assert ours["medunet"] == medunet.__version__
    shutil.copytree(Path(medunet.__file__).parent, tmp_path / "medunet")
    monkeypatch.setattr(medunet, "__file__", str(tmp_path / "medunet" / "__init__.py"))
    assert describe() == ours
    for file in ("base/files.py", "reporting/templates/case.css"):
        (tmp_path / "medunet" / file).write_text("other code\n")
        hash_code.cache_clear()
        now = describe()
        assert {name for name, value in now.items() if value != ours[name]} == {"medunet's code"}
        ours = now


def test_a_node_with_other_software_is_refused() -> None:
    ours = describe_software()
    actor = object.__new__(_Actor)
    assert actor._greet(ours, "node7", "abc").kind == "ready"
    without = {name: value for name, value in ours.items() if name != "openvino"}  # it has no use for it
    assert actor._greet(without, "node7", "abc").kind == "ready"
    message = actor._greet(ours | {"torch": "2.0.0", "medunet's code": "00000000"}, "node7", "abc")
    assert message.kind == "error"
    assert "node7 has medunet's code 00000000, torch 2.0.0, and this computer medunet's" in str(message.value)
