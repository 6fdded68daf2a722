"""Read a new scan for prediction through the checks of an image, and compare it with the training scans.

The checks are those of `medunet check`: each file is decoded once, and the voxels that were checked are returned.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.dataset.checks.acceptance import EVERY_CASE, GRID_CODES
from medunet.dataset.checks.case_checks import read_file
from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts
from medunet.dataset.checks.duplicates import check_duplicates
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.image_checks import check_image, sample_voxels
from medunet.dataset.checks.pair_checks import compare_files
from medunet.imaging.volume import Header, StoredVoxels, Volume
from medunet.imaging.volumes import join_channels
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted, Case
from medunet.records.plan import Fingerprint

_SPACING_FACTOR = 2.0  # beyond the training scans' range: augmentation covers less
_FEW = 1 / 2000  # of the voxels
_RESAMPLED = "resampled to the grid of the first channel"


@dataclass
class CheckedScan:
    """A scan that is read through its checks; `read` sets `faults`, with the reasons of those that are accepted."""

    case: str
    images: Sequence[Path]  # one per channel, in the model's order; a path given n times has n frames
    description: Description
    fingerprint: Fingerprint  # of the training scans
    accepted: Sequence[Accepted] = ()
    resample: bool = False  # whether files on other grids are resampled to the grid of the first one
    faults: list[Fault] = field(default_factory=list)

    @np.errstate(over="ignore", invalid="ignore")  # such values are reported as faults
    def read(self) -> Volume:
        """Return the channels as float32 `(C, I, J, K)`, with the header of the first file.

        Raises:
            DataError: errors were found that are not accepted; the message has all of them.
        """
        volumes: list[tuple[Volume, int]] = []
        facts: list[VolumeFacts] = []
        faults: list[Fault] = []
        by_channel = dict(zip(self.description.channels, self.images, strict=True))
        files = dict.fromkeys(self.images)
        for path in files:
            channels = [name for name, image in by_channel.items() if image == path]
            self._read_file(path, channels, faults, facts, volumes, hashed=len(files) > 1)
        faults += compare_files(self.case, facts, None)
        case = Case(id=self.case, patient=self.case, images={}, split="unlabelled")
        faults += check_duplicates([CaseFacts(case, tuple(facts))], [])
        self.faults = [replace(fault, accepted=self._reason(fault)) for fault in faults]
        if refused := self._refused(faults):
            raise DataError(" ".join(map(fault_text, refused)))
        return join_channels(_handed_over(volumes), resample=self.resample)

    def _read_file(
        self,
        path: Path,
        channels: list[str],
        faults: list[Fault],
        facts: list[VolumeFacts],
        volumes: list[tuple[Volume, int]],
        *,
        hashed: bool,
    ) -> None:
        """Read and check one file and add what was found; only its values are kept, not the stored voxels."""
        found, opened = read_file(self.case, path, path.name, channels, self.description)
        faults += found
        if opened is None:
            return
        header, stored = opened.header, opened.stored
        found, one = check_image(
            self.case, path.name, channels, header, stored, self.description, hashed=hashed
        )
        faults += found
        if not any(fault.severity == "error" and not FAULT_KINDS[fault.code].usable for fault in faults):
            faults += self._compare_intensities(channels, stored, header)
            if not volumes:
                faults += self._compare_spacing(header)
        facts.append(one)
        if not self._refused(faults):
            volumes.append((Volume(stored.values(), header), len(channels)))

    def _refused(self, faults: Sequence[Fault]) -> list[Fault]:
        return [fault for fault in faults if fault.severity == "error" and not self._reason(fault)]

    def _reason(self, fault: Fault) -> str:
        """Return why a fault is accepted; "" if it is not."""
        if self.resample and fault.code in GRID_CODES:
            return _RESAMPLED
        fits = (
            entry.reason
            for entry in self.accepted
            if entry.code == fault.code and entry.case in (fault.case, EVERY_CASE)
        )
        return next(fits, "") if FAULT_KINDS[fault.code].usable else ""

    def _compare_spacing(self, header: Header) -> list[Fault]:
        """Compare the spacing along the body's axes with the range of the training scans."""
        if header.is_picture or not self.fingerprint.spacings_mm:
            return []
        axes = nib.io_orientation(header.affine)[:, 0]
        if not np.isfinite(axes).all():
            return []
        spacing_mm = [header.spacing_mm[int(np.flatnonzero(axes == body)[0])] for body in range(3)]
        known = np.array(self.fingerprint.spacings_mm)
        low, high = known.min(axis=0), known.max(axis=0)
        factor = max(
            max(mm / most, least / mm) for mm, least, most in zip(spacing_mm, low, high, strict=True)
        )
        if factor <= _SPACING_FACTOR * (1 + 1e-3):
            return []
        usual = " × ".join(
            f"{least:.3g}" if math.isclose(least, most, rel_tol=1e-2) else f"{least:.3g}–{most:.3g}"
            for least, most in zip(low, high, strict=True)
        )
        measured = f"{_times(spacing_mm)} mm left–right, back–front and bottom–top, {factor:.3g} times off"
        return [
            make_fault(
                "N025", self.case, next(iter(self.description.channels)), measured, expected=f"{usual} mm"
            )
        ]

    def _compare_intensities(
        self, channels: Sequence[str], stored: StoredVoxels, header: Header
    ) -> list[Fault]:
        """Compare the range of each CT channel's voxels with that of the structures in the training scans."""
        faults = []
        for index, name in enumerate(channels):
            known = self.fingerprint.intensities.get(name)
            if self.description.channels[name].modality != "CT" or header.is_picture or not known:
                continue
            frame: NDArray[Any] = stored.array if stored.array.ndim == 3 else stored.array[..., index]
            sample = sample_voxels(frame) * stored.slope + stored.intercept
            low, high = known["percentile_00_5"], known["percentile_99_5"]
            if low < high and np.mean((sample >= low) & (sample <= high)) < _FEW:
                measured = f"{sample.min():.4g} to {sample.max():.4g}, median {np.median(sample):.4g}"
                expected = (
                    f"voxels of {low:.4g} to {high:.4g}, as in the labelled structures of the training scans"
                )
                faults.append(make_fault("N027", self.case, name, measured, expected=expected))
        return faults


def _handed_over(volumes: list[tuple[Volume, int]]) -> Iterator[tuple[Volume, int]]:
    """Yield the volumes without keeping them."""
    while volumes:
        yield volumes.pop(0)


def fault_text(fault: Fault) -> str:
    """Return a fault of a case in one line: code, title, file, measured and expected values, and the hint."""
    kind = FAULT_KINDS[fault.code]
    usual = f" (expected: {fault.expected})" if fault.expected else ""
    text = f"{fault.code} {kind.title}: {fault.subject}: {fault.measured}{usual}. {fault.hint}"
    if fault.severity == "error" and kind.usable and fault.code not in GRID_CODES:
        text += f" Or accept it: --accept {fault.code}."
    return text


def _times(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
