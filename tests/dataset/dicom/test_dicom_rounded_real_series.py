"""Real series with rounded headers: one volume as the exact one within its residual; other faults are still told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from medunet.dataset.dicom.series import gather_series, read_headers
from medunet.dataset.dicom.series_checks import Part, check_series
from medunet.imaging.dicom import DicomFile
from medunet.imaging.geometry import corner_displacement_mm, shear_degrees

SERIES = {
    "mr_dicom_series/12-T1post-05670": 6.5,
    "mr_dicom_series/32500-dT1-49467": 6.5,
    "mr_dicom_series/13_HCropVolume": 1.0,
    "ct_dicom_series/series": 2.0,
}


def changed(
    files: list[DicomFile], *, decimals: int = 9, cosines: int = 9, jitter: float = 0, tilt: float = 0
) -> list[DicomFile]:
    """Return files with rounded positions and directions, as if they were written so."""
    draw = np.random.default_rng(0)
    result = []
    for file in files:
        (frame,) = file.frames
        orientation = np.array(frame.orientation)
        position = np.array(frame.position_mm)
        position = position + tilt * position[2] * orientation[3:]
        frame = dataclasses.replace(
            frame,
            position_mm=tuple(np.round(position, decimals)),
            orientation=tuple(np.round(orientation + draw.uniform(-jitter, jitter, 6), cosines)),
        )
        result.append(dataclasses.replace(file, frames=(frame,)))
    return result


def parts_of(files: list[DicomFile], root: Path) -> list[Part]:
    return [part for series in gather_series(files, root) for part in check_series(series)]


@pytest.fixture(params=SERIES)
def files(request: pytest.FixtureRequest, shared_data: Path) -> list[DicomFile]:
    folder = shared_data / request.param
    return [file for file in read_headers(sorted(folder.iterdir())) if isinstance(file, DicomFile)]


@pytest.mark.real_data
@pytest.mark.parametrize(
    "how",
    [
        {"decimals": 3},
        {"decimals": 1},
        {"decimals": 0},
        {"cosines": 4},
        {"cosines": 3},
        {"cosines": 2},
        {"jitter": 2e-4},
        {"jitter": 2e-4, "cosines": 3},
        {"decimals": 1, "cosines": 3},
    ],
    ids=str,
)
def test_rounded_series_are_one_volume_within_their_residual(
    files: list[DicomFile], how: dict[str, float], shared_data: Path
) -> None:
    (exact,) = parts_of(files, shared_data)
    assert exact.stack is not None
    assert not exact.is_refused
    assert "D018" not in [fault.code for fault in exact.faults]
    for order in (files, files[::-1], sorted(files, key=lambda file: file.frames[0].position_mm or ())[:3]):
        (part,) = parts_of(changed(order, **how), shared_data)  # type: ignore[arg-type]
        assert not part.is_refused
        assert part.stack is not None
        assert shear_degrees(part.stack.affine()) < 0.02
        noted = [fault.measured for fault in part.faults if fault.code == "D018"]
        residual_mm = part.stack.residual_mm
        assert len(noted) == (residual_mm > 1e-4)
        assert all(f"up to {residual_mm:.2g} mm" in text for text in noted)
        if len(order) == len(files):
            columns, rows, _ = part.stack.shape
            spacing_mm = part.stack.pixel_spacing_mm
            hidden_mm = 0.5 * part.stack.direction_unit * (columns * spacing_mm[1] + rows * spacing_mm[0])
            hidden_mm += np.sqrt(3) / 2 * part.stack.unit_mm  # what all slices may have in common
            off_mm = corner_displacement_mm(part.stack.shape, part.stack.affine(), exact.stack.affine())
            assert off_mm <= residual_mm + hidden_mm


@pytest.mark.real_data
@pytest.mark.parametrize("how", [{"decimals": 3}, {"decimals": 1}, {"cosines": 4}], ids=str)
def test_gaps_and_tilts_of_rounded_series_are_told(
    files: list[DicomFile], how: dict[str, int], shared_data: Path
) -> None:
    ordered = sorted(files, key=lambda file: file.frames[0].position_mm or ())
    (part,) = parts_of(changed(ordered[:4] + ordered[5:], **how), shared_data)
    assert [fault.code for fault in part.faults if fault.severity == "error"] == ["D002"]
    (part,) = parts_of(changed(files, **how, tilt=np.tan(np.deg2rad(2))), shared_data)
    (fault,) = [fault for fault in part.faults if fault.severity == "error"]
    assert fault.code == "D005"
    assert abs(float(fault.measured.split("°")[0]) - 2) < 0.1
