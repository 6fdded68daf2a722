"""NiiVue is fetched when medunet is built: once, whole, and the very file that is pinned."""

import base64
import hashlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPOSITORY

ASSETS = REPOSITORY / "medunet/reporting/assets"
CONTENT = b"niivue"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The build hook, which wants six letters and gets them."""
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FILE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(module, "_download", lambda: CONTENT)
    return module


def fail() -> bytes:
    raise OSError("no network")


def test_it_is_fetched_once(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.fetch_viewer(tmp_path)
    assert (tmp_path / build.TARGET).read_bytes() == CONTENT
    monkeypatch.setattr(build, "_download", fail)
    assert build.fetch_viewer(tmp_path)


def test_a_damaged_file_is_replaced(build: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / build.TARGET
    target.parent.mkdir(parents=True)
    target.write_bytes(b"half")
    assert build.fetch_viewer(tmp_path)
    assert target.read_bytes() == CONTENT


def test_without_an_index_one_line_says_that_it_is_missing(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_download", fail)
    said: list[str] = []
    assert not build.fetch_viewer(tmp_path, said.append)
    assert said == ["medunet: no interactive viewer, report pages have still pictures only (no network)"]
    assert not (tmp_path / build.TARGET).exists()


def test_another_file_is_refused(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_download", lambda: b"other")
    with pytest.raises(RuntimeError, match="not the file that medunet was tested with"):
        build.fetch_viewer(tmp_path)
    assert not (tmp_path / build.TARGET).exists()


def test_it_is_not_committed() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "/medunet/reporting/assets/niivue.umd.js" in ignored


@pytest.mark.skipif(not (ASSETS / "niivue.umd.js").exists(), reason="medunet was installed without NiiVue")
def test_every_library_that_niivue_bundles_has_its_licence() -> None:
    bundle = (ASSETS / "niivue.umd.js").read_text()
    # Compiled to WebAssembly, in which class names and messages remain.
    compiled = b"".join(
        base64.b64decode(text[: len(text) // 4 * 4])
        for text in re.findall(r"AGFzbQEAAAA[A-Za-z0-9+/]+", bundle)
    )
    assert b"N6snappy6SourceE" in compiled
    assert b"blosclz" in compiled
    assert b"zstd codec error" in compiled
    assert '.set("lz4",' in bundle
    headings = re.findall(r"(?m)^=+\n(.+) \(.+\).*\n=+$", (ASSETS / "niivue.LICENCES.txt").read_text())
    names = {heading.split(", in ")[0] for heading in headings}
    assert {"C-Blosc", "FastLZ", "Bitshuffle", "Snappy", "LZ4", "Zstandard", "zlib"} <= names
    assert "LZ4, in numcodecs and in its C-Blosc" in headings
