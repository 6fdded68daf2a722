"""Fetch NiiVue, which shows scans on report pages, when medunet is built or installed.

Its build for browsers is taken from a wheel of nilearn, which carries it as one file: Python's package index is what
every user has. Both are pinned by their SHA-256. `python hatch_build.py` does the same in a checkout.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script

    class BuildHookInterface:  # type: ignore[no-redef]
        """Stands in for hatchling's class."""


WHEEL = "nilearn==0.14.1"
WHEEL_SHA256 = "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a"
MEMBER = "nilearn/_assets/js/niivue.umd.js"
FILE_SHA256 = "c40dc2679c337c906deef22e157ee02c17459db9b8ecc51aa773af27791a567c"
TARGET = "medunet/reporting/assets/niivue.umd.js"


class FetchViewer(BuildHookInterface):
    """Puts NiiVue into the package before it is packed, or into the checkout that is installed as editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the file if it is not there; without a package index, build without it and say so."""
        say = self.app.display_warning
        if fetch_viewer(Path(self.root), say) and version != "editable":
            build_data["artifacts"].append(TARGET)


def fetch_viewer(root: Path, say: Any = print) -> bool:
    """Write NiiVue below the root of the sources unless it is there, and return whether it is there now."""
    target = root / TARGET
    if target.exists() and _sha256(target.read_bytes()) == FILE_SHA256:
        return True
    try:
        content = _download()
    except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile, KeyError) as error:
        reason = getattr(error, "stderr", "").strip().splitlines()[-1:] or [str(error)]
        say(f"medunet: no interactive viewer, report pages have still pictures only ({reason[0]})")
        target.unlink(missing_ok=True)
        return False
    if _sha256(content) != FILE_SHA256:
        raise RuntimeError(f"{MEMBER} of {WHEEL} is not the file that medunet was tested with")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return True


def _download() -> bytes:
    """Return NiiVue's file from the wheel, by pip with the user's settings of it."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        options = [
            "--require-hashes",
            "--disable-pip-version-check",
            "--dest",
            folder,
            "--requirement",
            str(wanted),
        ]
        subprocess.run([*command, *options], check=True, capture_output=True, text=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(0 if fetch_viewer(Path(__file__).parent) else 1)
