"""The start of `medunet predict`: nothing heavy is loaded that prediction does not need, through MONAI neither."""

import subprocess
import sys
from pathlib import Path

from medunet.runs.run import Run

HEAVY = (
    "SimpleITK", "blosc2", "highdicom", "jinja2", "lightning", "matplotlib", "onnx", "openvino",
    "optuna", "pandas", "pydicom", "ray", "scipy.signal", "skimage", "sklearn", "sympy",
    "torch._dynamo", "medunet.training", "medunet.reporting", "medunet.drawing",
)  # fmt: skip
START = f"""
import sys
from medunet.cli.app import main
try:
    main()
finally:
    print("loaded:", sorted(name for name in {HEAVY} if name in sys.modules))
"""


def test_no_package_is_loaded_that_prediction_does_not_need(finished_run: Run, tmp_path: Path) -> None:
    scan = finished_run.data_root / "imagesTr/case_00.nii.gz"
    arguments = ("predict", finished_run.folder.model(0), scan, "--out", tmp_path / "out", "--device", "cpu")
    result = subprocess.run(
        [sys.executable, "-c", START, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "out/index.json").exists()
    assert result.stdout.splitlines()[-1] == "loaded: []"
