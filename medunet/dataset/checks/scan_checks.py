"""Read a new scan for prediction through the checks of an image, and compare it with the training scans.

The checks are those of `medunet check`: each file is decoded once, and the voxels that were checked are returned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medunet.base.errors import DataError
from medunet.dataset.checks.acceptance import EVERY_CASE, GRID_CODES
from medunet.dataset.checks.case_checks import read_file
from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts
from medunet.dataset.checks.duplicates import check_duplicates
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.image_checks import check_image
from medunet.dataset.checks.pair_checks import compare_files
from medunet.dataset.checks.scope_checks import compare_grid, compare_values, raise_severity
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import join_channels
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted, Case
from medunet.records.plan import Fingerprint

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
        faults += [raise_severity(fault, self.fingerprint) for fault in found]
        if not any(fault.severity == "error" and not FAULT_KINDS[fault.code].usable for fault in faults):
            known = self.description, self.fingerprint
            faults += compare_values(self.case, channels, header, stored, *known)
            if not facts:
                faults += compare_grid(self.case, channels[0], header, stored, self.fingerprint)
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
