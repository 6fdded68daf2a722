"""What the check passes, every stage can use, and all see the voxels that other libraries see.

For each format, oddity and corruption: if the check names no error, readers, plan, training and scores succeed; and
if a reader fails, the check has named an error of that case.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from corruptions import ERRORS, WARNINGS, describe
from numpy.typing import NDArray
from odd_files import (
    Kind,
    itk_kinds,
    label,
    nifti_kinds,
    picture,
    picture_kinds,
    put_nifti,
    scan,
    segment_kinds,
)
from PIL import Image

from medunet.base.errors import MedunetError
from medunet.dataset.checks.manifest_checks import check_manifest, errors_left
from medunet.imaging.formats import is_picture
from medunet.imaging.volumes import read_channels, read_header, read_label
from medunet.planning.fingerprint import compute_fingerprint
from medunet.planning.planner import make_plan
from medunet.records.config import PlanningConfig, TrainingConfig
from medunet.records.data_root import case_paths
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.training.cache import prepare_cases
from medunet.training.data import PatchDataset

VOLUMES = describe(channels={"T1": {"modality": "MR"}}, labels={"background": 0, "organ": 1, "core": 2})
GREY = VOLUMES.model_copy(update={"layout": "png"})
COLOURS = GREY.model_copy(
    update={"channels": dict.fromkeys(("red", "green", "blue"), VOLUMES.channels["T1"])}
)


def of_library(path: Path, *, is_label: bool = False) -> NDArray[Any]:
    """Read `(I, J, K)` or `(I, J, K, C)` with the format's own library."""
    name = path.name.lower()
    if is_picture(path):
        pixels = _pixels_of_library(path, is_label=is_label)
        pixels = pixels[..., :3].swapaxes(0, 1)[:, :, None] if pixels.ndim == 3 else pixels.T[:, :, None]
        return pixels[..., 0] if is_label and pixels.ndim == 4 else pixels
    if name.endswith((".nrrd", ".mha", ".mhd")):
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        values = values.max(axis=-1) if values.ndim == 4 else values  # of layers that do not overlap
        return values.T if values.ndim == 3 else values.T[:, :, None]
    loaded = np.asarray(nib.load(path).dataobj)
    return loaded.reshape(loaded.shape[:3])


def _pixels_of_library(path: Path, *, is_label: bool) -> NDArray[Any]:
    """Return pixels by Pillow where it holds them whole, by SimpleITK otherwise."""
    with Image.open(path) as opened:
        if opened.mode in ("P", "PA"):
            return np.asarray(opened if is_label else opened.convert("RGB"))
        if opened.mode in ("L", "LA", "1") or path.suffix.startswith(".j"):
            pixels = np.asarray(opened)
            return pixels[..., 0] if opened.mode == "LA" else pixels
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def use(manifest: Manifest, root: Path, cache: Path) -> None:
    """Do with the cases what planning, training and scoring do, and compare the voxels with those of libraries."""
    description = manifest.description
    pairs, counts = [], {}
    for case in manifest.used:
        images, label_path = case_paths(case, description, root)
        assert label_path is not None
        values = read_label(label_path, description.label_rules).array
        channels = read_channels(images, resample=case.resample).array
        if not case.resample:
            seen = [of_library(path) for path in dict.fromkeys(images)]
            frames = (
                [each[..., n] for each in seen for n in range(each.shape[3])] if seen[0].ndim == 4 else seen
            )
            frames *= len(images) // len(frames)
            assert np.array_equal(channels, np.stack(frames).astype(np.float32))
        assert np.array_equal(values, np.rint(of_library(label_path, is_label=True)))
        counts[case.id] = np.bincount(values.ravel(), minlength=3)
        pairs.append(Pair(case.id, label_path, label_path))
    fingerprint = compute_fingerprint(manifest.used, description, root, seed=0)
    is_flat = max(min(shape) for shape in fingerprint.shapes) == 1
    dimensions: Literal[2, 3] = 2 if is_flat else 3
    planning = PlanningConfig(
        base_features=4, batch_size=2, dimensions=dimensions, patch_size=(8,) * dimensions
    )
    plan = make_plan(fingerprint, description, planning, memory_gb=1.0, memory_why="given")
    cases = prepare_cases(manifest.used, description, plan, root, cache, seed=0)
    for case in cases:
        assert np.array_equal(np.bincount(case.label[:].ravel(), minlength=3), counts[case.id]), (
            "label changed"
        )
        assert np.isfinite(case.image[:]).all()
    patches = PatchDataset(cases, plan, TrainingConfig(), seed=0)
    for index in range(4):
        batch = patches[0, index]
        assert np.isfinite(batch["image"].numpy()).all()
        assert set(np.unique(batch["label"].numpy())) <= set(description.labels.values())
    scores = score_pairs(pairs, description.targets, description.targets, workers=1)
    assert {row.dice for row in scores if row.status != "both_empty"} <= {1.0}
    assert {row.status for row in scores} <= {"ok", "both_empty"}


def fail_reading(case: Case, description: Description, root: Path) -> str:
    """Return why the readers of a case fail; "" if they do not."""
    try:
        images, label_path = case_paths(case, description, root)
        read_channels(images, resample=case.resample)
        if label_path is not None:
            read_label(label_path, description.label_rules)
    except MedunetError as error:
        return str(error)
    return ""


def check_contract(manifest: Manifest, root: Path, cache: Path) -> bool:
    """Check both halves of the contract; return whether the check passed the data."""
    errors = errors_left(check_manifest(manifest, root, workers=1), manifest)
    for case in manifest.used:
        if reason := fail_reading(case, manifest.description, root):
            assert {"", case.id} & {fault.case for fault in errors}, f"no error for {case.id}: {reason}"
    if not errors:
        use(manifest, root, cache)
    return not errors


def case_of(root: Path, kind: Kind, *, is_label: bool) -> Manifest:
    """Write a case of one file of a kind, and a plain one beside it."""
    _, ending, write = kind
    image, label_name = ("plain", f"odd{ending}") if is_label else (f"odd{ending}", "plain_label")
    write(root / f"odd{ending}")
    description = VOLUMES
    if is_picture(root / f"odd{ending}"):
        image, label_name = (each if "odd" in each else f"{each}.png" for each in (image, label_name))
        plain = picture(not is_label).astype("u1")
        Image.fromarray(plain).save(root / (image if is_label else label_name))
        is_coloured = not is_label and len(read_or_none(root / image)) == 4
        description = COLOURS if is_coloured else GREY
    else:
        image, label_name = (each if "odd" in each else f"{each}.nii.gz" for each in (image, label_name))
        write_plain_beside(root, image if is_label else label_name, f"odd{ending}", is_label=is_label)
    images = dict.fromkeys(description.channels, image)
    case = Case(id="x", patient="x", images=images, label=label_name, fold=0)
    return Manifest(description=description, cases=(case,))


def read_or_none(path: Path) -> tuple[int, ...]:
    try:
        return read_header(path).shape
    except MedunetError:
        return ()


def write_plain_beside(root: Path, name: str, odd: str, *, is_label: bool) -> None:
    """Write a NIfTI file on the grid of another file."""
    try:
        header = read_header(root / odd, label=is_label)
    except MedunetError:
        put_nifti(root / name, scan() if is_label else label(), "<i2")
        return
    values = scan() if is_label else label()
    if header.shape[:3] != values.shape:  # flat
        values = values[:, :, 2:3]
    forms = {"affine": header.affine}
    put_nifti(root / name, values, "<i2", **forms)


IMAGES = [*nifti_kinds(scan()), *itk_kinds(scan()), *picture_kinds(picture(False), is_label=False)]
LABELS = [
    *nifti_kinds(label()),
    *itk_kinds(label()),
    *segment_kinds(label()),
    *picture_kinds(picture(True), is_label=True),
]


def name_only(value: object) -> str:
    """Return a parameter's id: functions have no name that all processes share."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("kind", IMAGES, ids=lambda kind: kind[0])
def test_scans(tmp_path: Path, kind: Kind) -> None:
    check_contract(case_of(tmp_path, kind, is_label=False), tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("kind", LABELS, ids=lambda kind: kind[0])
def test_labels(tmp_path: Path, kind: Kind) -> None:
    check_contract(case_of(tmp_path, kind, is_label=True), tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("code", "name", "corrupt"), ERRORS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_whatever_a_reader_refuses_is_an_error(
    good_set: Path,
    good_manifest: Manifest,
    code: str,
    name: str,
    corrupt: Callable[[Path], object],
    tmp_path: Path,
) -> None:
    corrupt(good_set)
    assert not check_contract(good_manifest, good_set, tmp_path / "cache")


@pytest.mark.parametrize(
    ("code", "severity", "corrupt"), WARNINGS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_whatever_is_only_warned_of_can_be_used(
    good_set: Path,
    good_manifest: Manifest,
    code: str,
    severity: str,
    corrupt: Callable[[Path], object],
    tmp_path: Path,
) -> None:
    corrupt(good_set)
    unlabelled = {"S005"} & {code}  # for a case of the training set, N001 is an error
    assert check_contract(good_manifest, good_set, tmp_path / "cache") != bool(unlabelled)
