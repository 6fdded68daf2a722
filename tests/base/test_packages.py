"""Optional packages: MONAI and NiBabel are imported without those that medunet does not use through them."""

import subprocess
import sys

import pytest

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
