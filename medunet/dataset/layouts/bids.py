"""BIDS layout: scans in sub-*/[ses-*]/anat/ and label maps of a pipeline below derivatives/.

Only file names are used, such as `sub-01_ses-1_acq-3D_T1w.nii.gz`: the part after the subject and session identifies
the channel or the kind of label map.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from medunet.imaging.formats import NIFTI
from medunet.records.description import FilePatterns

_ID = r"(?P<id>sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)"
_ENTITIES = r"(?:_(?!ses-)[a-z]+-[A-Za-z0-9]+)*"
_NIFTI = f"(?i:{NIFTI.expression.replace('(', '(?:')})"  # the only format of BIDS
_SCANS = "T1w|T2w|T1rho|T1map|T2map|T2star|T2starw|PDw|PDT2|FLAIR|FLASH|inplaneT1|inplaneT2|angio|UNIT1|dwi|ct|CT|pet"
_LABELS = "dseg|mask|roi"
_FOLDERS = r"sub-[A-Za-z0-9]+/(?:ses-[A-Za-z0-9]+/)?(?:[a-z]+/)?"

IMAGE = rf"{_FOLDERS}{_ID}(?P<channel>{_ENTITIES}_(?:{_SCANS})){_NIFTI}"
LABEL = (
    rf"derivatives/(?P<pipeline>(?:.*?/)??)(?:{_FOLDERS})?{_ID}(?P<kind>{_ENTITIES}_(?:{_LABELS})){_NIFTI}"
)
PATIENT = r"^sub-([A-Za-z0-9]+)"
CT_ENDINGS = ("ct", "CT")


@dataclass(frozen=True)
class LabelKind:
    """One kind of label map: the pipeline's folder, such as 'derivatives/manual/', and the common file ending."""

    folder: str
    ending: str  # such as _label-lesion_mask
    cases: frozenset[str]

    def __str__(self) -> str:
        return f"{self.folder}…{self.ending} ({len(self.cases)} cases)"

    @property
    def patterns(self) -> FilePatterns:
        """The patterns of the scans and of this kind of label map."""
        label = rf"{re.escape(self.folder)}(?:{_FOLDERS})?{_ID}{re.escape(self.ending)}{_NIFTI}"
        return FilePatterns(image=IMAGE, label=label)


def find_label_kinds(paths: Iterable[str]) -> list[LabelKind]:
    """Return the kinds of label maps among relative paths, those with the most cases first."""
    cases: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in paths:
        if match := re.fullmatch(LABEL, path):
            cases[f"derivatives/{match['pipeline']}", match["kind"]].add(match["id"])
    kinds = [LabelKind(folder, ending, frozenset(found)) for (folder, ending), found in cases.items()]
    return sorted(kinds, key=lambda kind: (-len(kind.cases), kind.folder, kind.ending))


def find_channels(paths: Iterable[str], labelled: frozenset[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the endings of the scans that are channels, and notes on those that not every labelled case has.

    Those are endings of at least four in five of the labelled cases; if there are none, the most frequent one.
    """
    endings: Counter[str] = Counter()
    for path in paths:
        if (match := re.fullmatch(IMAGE, path)) and match["id"] in labelled:
            endings[match["channel"]] += 1
    usual = sorted(ending for ending, count in endings.items() if 5 * count >= 4 * len(labelled))
    chosen = tuple(usual) or tuple(ending for ending, _ in endings.most_common(1))
    notes = []
    for ending, count in sorted(endings.items()):
        if count < len(labelled):
            use = "cases without it are left out" if ending in chosen else "it is not used as a channel"
            notes.append(f"{count} of {len(labelled)} labelled cases have a scan {ending}: {use}")
    return chosen, notes
