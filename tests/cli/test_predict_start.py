"""The start of `medunet predict`: nothing heavy is loaded that neither MONAI nor the prediction needs."""

import subprocess
import sys
from pathlib import Path

from medunet.runs.run import Run

HEAVY = (
    "SimpleITK", "blosc2", "highdicom", "jinja2", "lightning", "onnx", "openvino", "optuna", "ray", "sympy",
    "tensorboard", "torch._dynamo", "medunet.training", "medunet.reporting", "medunet.drawing",
)  # fmt: skip
START = f"""
import sys
import monai.transforms  # imports what is installed of its optional packages
before = set(sys.modules)
from medunet.cli.app import app
app(sys.argv[1:], standalone_mode=False)
print("loaded:", sorted(name for name in {HEAVY} if name in sys.modules and name not in before))
"""


def test_no_package_is_loaded_that_prediction_does_not_need(finished_run: Run, tmp_path: Path) -> None:
    scan = finished_run.data_root / "imagesTr/case_00.nii.gz"
    arguments = ("predict", finished_run.folder.model(0), scan, "--out", tmp_path / "out", "--device", "cpu")
    result = subprocess.run(
        [sys.executable, "-c", START, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "out/index.json").exists()
    assert result.stdout.splitlines()[-1] == "loaded: []"
