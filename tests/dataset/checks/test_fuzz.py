"""Thousands of broken headers, streams and case lists: always a message, never a crash, nor memory beyond the cap.

All draws are the same in every run. DICOM tags have theirs in test_dicom_fuzz.py.
"""

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medunet.base.errors import MedunetError
from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.manifest import make_manifest
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest

SHAPE = (9, 8, 7)
CAP_GB = 0.002
FUZZ = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
CASE = Case(id="a", patient="a", images={"MR": "a.nii.gz"}, label="a_seg.nii.gz", fold=0)
DESCRIPTION = Description.parse(
    {
        "name": "fuzz",
        "layout": "pairs",
        "channels": {"MR": {"modality": "MR"}},
        "labels": {"background": 0, "organ": 1},
    },
    "test",
)


def volume_bytes(version: type[nib.Nifti1Image], dtype: type, top: int) -> bytes:
    """Return an uncompressed NIfTI file of random voxels below `top`."""
    array = np.random.default_rng(0).integers(0, top, SHAPE).astype(dtype)
    image = version(array, np.diag([1.5, 1.0, 2.0, 1.0]))
    image.header.set_xyzt_units("mm")
    stream = io.BytesIO()
    image.to_stream(stream)
    return stream.getvalue()


IMAGES = [volume_bytes(version, np.int16, 900) for version in (nib.Nifti1Image, nib.Nifti2Image)]
BOMBS = [gzip.compress(bytes(1 << 24), 9, mtime=0), gzip.compress(IMAGES[0] + bytes(1 << 23), 9, mtime=0)]
LABEL = gzip.compress(volume_bytes(nib.Nifti1Image, np.uint8, 2), 1, mtime=0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDUNET_MAX_VOLUME_GB", str(CAP_GB))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(IMAGES[0], 1, mtime=0))
    (tmp_path / "a_seg.nii.gz").write_bytes(LABEL)
    return tmp_path


def check_quietly(root: Path) -> None:
    """Check the case: every fault has its words, and none is a crash."""
    tracemalloc.start()
    faults, _ = check_case(CASE, DESCRIPTION, root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for fault in faults:
        assert fault.code != "N099", fault.measured
        assert fault.measured
        assert fault.hint
        assert str(root) not in fault.measured
    assert peak < 20 * CAP_GB * 1e9


EDIT = st.tuples(
    st.integers(0, 400),
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.sampled_from(
            [b"\xff" * 8, b"\x00" * 8, b"\x7f\xff" * 4, b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"]
        ),
    ),
)


def edited(plain: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    """Return bytes with others written over them."""
    changed = bytearray(plain)
    for place, new in edits:
        place %= len(changed)
        changed[place : place + len(new)] = new
    return bytes(changed)


@pytest.mark.slow
@settings(max_examples=900, **FUZZ)
@given(version=st.sampled_from([0, 1]), edits=st.lists(EDIT, min_size=1, max_size=4), of_label=st.booleans())
def test_headers(version: int, edits: list[tuple[int, bytes]], of_label: bool, root: Path) -> None:
    broken = edited(IMAGES[version], edits)
    name, other = ("a_seg.nii.gz", "a.nii.gz") if of_label else ("a.nii.gz", "a_seg.nii.gz")
    (root / name).write_bytes(gzip.compress(broken, 1, mtime=0))
    (root / other).write_bytes(LABEL if not of_label else gzip.compress(IMAGES[0], 1, mtime=0))
    check_quietly(root)


STREAM_CHANGES: list[Callable[[bytes, int], bytes]] = [
    lambda packed, place: packed[: place % len(packed)],
    lambda packed, place: packed + packed[: place % len(packed)],
    lambda packed, place: packed + bytes(place % 4096),
    lambda packed, place: packed[place % len(packed) :] + packed,
    lambda packed, place: gzip.compress(packed, 1, mtime=0),
    lambda packed, place: packed[:10] + bytes(place % 512) + packed[10:],
    lambda packed, place: BOMBS[place % 2] + packed,
]


@settings(max_examples=500, **FUZZ)
@given(
    change=st.sampled_from(STREAM_CHANGES),
    place=st.integers(0, 1 << 16),
    edits=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=3)), min_size=0, max_size=2
    ),
)
def test_streams(
    change: Callable[[bytes, int], bytes], place: int, edits: list[tuple[int, bytes]], root: Path
) -> None:
    packed = change(gzip.compress(IMAGES[place % 2], 1, mtime=0), place)
    (root / "a.nii.gz").write_bytes(edited(packed, edits) if packed else packed)
    check_quietly(root)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 1 << 70)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(["../../x.nii.gz", "/etc/passwd", "train", "a", "CON", "\x00", "=1+1", "‮", "a" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[place for key, item in inner for place in places_of(item, (*path, key))]]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a JSON value with one of its values replaced."""
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


MANIFEST = Manifest(description=DESCRIPTION, cases=(CASE,)).to_dict()
PLACES = places_of(MANIFEST)


@settings(max_examples=400, **FUZZ)
@given(place=st.sampled_from(PLACES), new=JSON_VALUES, cut=st.one_of(st.none(), st.integers(0, 600)))
def test_manifests(place: tuple[Any, ...], new: Any, cut: int | None, root: Path) -> None:
    text = json.dumps(replaced(MANIFEST, place, new))
    path = root / "manifest.json"
    path.write_text(text[:cut], encoding="utf-8")
    message = ""
    try:
        manifest = Manifest.read(path)
    except MedunetError as error:
        message = str(error)
    if message:
        assert "manifest.json" in message
        return
    for case in manifest.used:
        faults, _ = check_case(case, manifest.description, root)
        assert all(fault.code != "N099" for fault in faults), faults


DATALIST = {
    "labels": {"background": 0, "organ": 1},
    "channel_names": {"0": "MR"},
    "training": [{"image": "a.nii.gz", "label": "a_seg.nii.gz", "fold": 0}],
    "test": ["a.nii.gz"],
}


@settings(max_examples=300, **FUZZ)
@given(
    place=st.sampled_from([("description",), *places_of(DESCRIPTION.to_dict(), ("description",))]),
    entry=st.sampled_from(places_of(DATALIST)),
    values=st.tuples(JSON_VALUES, JSON_VALUES),
    both=st.booleans(),
)
def test_descriptions_and_datalists(
    place: tuple[Any, ...], entry: tuple[Any, ...], values: tuple[Any, Any], both: bool, root: Path
) -> None:
    plain = replaced(MANIFEST, place, values[0]) if both else MANIFEST
    (root / "list.json").write_text(json.dumps(replaced(DATALIST, entry, values[1])), encoding="utf-8")
    message = None
    try:
        description = Description.parse(plain["description"], "description")
        make_manifest(description, root, datalist=root / "list.json")
    except MedunetError as error:
        message = str(error)
    assert message is None or len(message) > 10
