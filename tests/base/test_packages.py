"""Optional packages: MONAI is imported without those that medunet does not use through it."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from medunet.base.packages import keep_monai_lean
if {alone}:
    keep_monai_lean()
import monai.transforms
print("pandas" in sys.modules, "matplotlib" in sys.modules)
import matplotlib, pandas
print(pandas.DataFrame({{"a": [1]}}).a.sum(), monai.transforms.RandFlipd is not None)
"""


@pytest.mark.parametrize("alone", [True, False])
def test_programs_import_monai_without_what_they_do_not_use_through_it(alone: bool) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    program = [sys.executable, "-c", PROGRAM.format(alone=alone)]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    loaded, used_after = result.stdout.splitlines()
    assert loaded == ("False False" if alone else "True True")
    assert used_after == "1 True"


BESIDE = """
import sys, threading, time
from medunet.base.packages import keep_monai_lean
keep_monai_lean()

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
