"""Group the files and folders given to `medunet predict` into scans, by the layout known from training.

No file is dropped without a word: what is not predicted is left out with a reason, or is a case that fails.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medunet.base.errors import DataError, InputError
from medunet.base.files import name_on_disk
from medunet.base.words import list_some
from medunet.dataset.layouts.channel_names import (
    are_channel_numbers,
    known_endings,
    split_ending,
    split_number,
)
from medunet.dataset.layouts.dataset_json import modality_of
from medunet.dataset.layouts.folder_pairs import LABEL_SUFFIX
from medunet.dataset.layouts.patterns import FilePattern, file_patterns, stem
from medunet.imaging.volumes import read_header, share_grid
from medunet.inference.given_files import list_files
from medunet.inference.scan import Scan
from medunet.records.description import Modality
from medunet.records.model_card import ModelCard

_MASK = re.compile(rf".+{LABEL_SUFFIX}")
_MOST_CHANNELS = 6  # of a single case that nnU-Net's numbers are believed for
_LABEL = "a mask or label by its name"
_UNUSED = "a channel that the model does not use"
_ANOTHER = "another file of a case that cannot be predicted"
_BESIDE = "no channel by its name, but named as a case whose channels are other files"
_NESTED = "in a subfolder: give that folder, or the files, to predict them"


@dataclass(frozen=True)
class GivenScans:
    """The scans among the given files, and the names of the other files by the reason why they are left out."""

    scans: list[Scan]
    left_out: dict[str, list[str]]
    notes: list[str]


@dataclass
class _Groups:
    """The files found so far: by case and channel, and those that hold all channels or whose channel is unknown."""

    images: dict[str, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    plain: list[tuple[str, Path]] = field(default_factory=list)
    troubles: dict[str, tuple[Path, str]] = field(default_factory=dict)  # by case
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, case: str, channels: Sequence[str], path: Path) -> None:
        """Add the image of a case's channels."""
        images = self.images[case]
        if taken := [channel for channel in channels if channel in images]:
            one, other = images[taken[0]], path
            names = [each.name for each in (one, other)]
            if names[0] == names[1]:
                names = [f"{each.parent.name}/{each.name}" for each in (one, other)]
            self.faults.append(f"case {case}: {' and '.join(names)} are both its {', '.join(taken)}")
            return
        images.update(dict.fromkeys(channels, path))

    def add_trouble(self, case: str, path: Path, text: str) -> None:
        """Add a file of a case that cannot be predicted."""
        if self.troubles.setdefault(case, (path, text))[0] != path:
            self.left_out[_ANOTHER].append(path.name)


def find_scans(given: Sequence[Path], card: ModelCard) -> GivenScans:
    """Group files and folders into scans of the channels that a model was trained on.

    The channel of a file is told by the layout of the training data: its file patterns, or the endings of its
    channels (`CASE_t1.nii.gz`, nnU-Net's `CASE_0000.nii.gz`), which are no part of the case's name, with one channel
    either. Of a folder, files in subfolders are taken if the layout has subfolders, such as one for each case. A file
    may also hold all channels: 4D, or a picture in colour. A case that lacks a channel is a scan with a `trouble`.

    Raises:
        InputError: a path does not exist, two files are the same channel of one case, names differ only in case, or
            there is no scan; lists every fault.
    """
    description = card.description
    groups = _Groups()
    channel_of = known_endings(description, card.endings)

    def channels_of(channel: str) -> list[str]:
        return [channel] if channel else list(description.channels)

    try:
        patterns = file_patterns(description)
    except InputError:  # a layout without patterns: the files were listed in a table
        patterns = ()
    files = list_files(given, groups.left_out, groups.faults, pictures=description.layout == "png")
    are_all_masks = all(_MASK.fullmatch(stem(path.name)) for path, _ in files)  # then it is no mask's name
    for path, nested in files:
        name = stem(path.name)
        match = _match(path, patterns)
        if match and match[0] == "label":
            groups.left_out[_LABEL].append(path.name)
        elif match and match[2]:
            if match[2] in channel_of:
                groups.add(match[1] or path.parent.name, channels_of(channel_of[match[2]]), path)
            else:
                groups.left_out[_UNUSED].append(path.name)
        elif (
            split := None if match and match[1] != name else split_ending(name, path.parent.name, channel_of)
        ):
            if nested and not match and name not in channel_of:
                groups.left_out[_NESTED].append(path.name)
            else:
                groups.add(split[0], channels_of(split[1]), path)
        elif nested and not match:
            groups.left_out[_NESTED].append(path.name)
        elif _MASK.fullmatch(name) and not are_all_masks:
            groups.left_out[_LABEL].append(path.name)
        else:
            groups.plain.append(((match and match[1]) or name, path))
    modalities = {channel.modality for channel in description.channels.values()}
    if len(description.channels) == 1 and not channel_of:
        _leave_out_modalities(groups, *modalities)
    _group_plain(groups, list(description.channels), channel_of)
    return _finish(groups, list(description.channels), channel_of)


def _match(path: Path, patterns: Sequence[FilePattern]) -> tuple[str, str, str] | None:
    """Return the role, case and channel ending of a file by the layout's patterns, which may span several folders."""
    parts = path.absolute().parts[1:]
    for first in range(len(parts)):
        below = "/".join(parts[first:])
        for pattern in patterns:
            if hit := pattern.expression.fullmatch(below):
                found = hit.groupdict()
                case = pattern.case_id.format(id=found["id"]) if found["id"] else ""
                return pattern.role, case, found.get("channel") or ""
    return None


def _leave_out_modalities(groups: _Groups, modality: Modality) -> None:
    """Leave out files that are another modality than a model's only channel by their name, beside one of its own."""
    names = [name for name, _ in groups.plain]
    kept = []
    for name, path in groups.plain:
        if other := _other_modality(name, names, modality):
            groups.left_out[f"{other} by its name, but the model was trained on {modality}"].append(path.name)
        else:
            kept.append((name, path))
    groups.plain = kept


def _group_plain(groups: _Groups, channels: Sequence[str], channel_of: Mapping[str, str]) -> None:
    """Add the files whose channel no ending tells: numbered as nnU-Net's, holding all channels, or of no use."""
    numbers: dict[str, dict[int, Path]] = defaultdict(dict)
    for name, path in groups.plain:
        if split := split_number(name):
            numbers[split[0]].setdefault(split[1], path)
    numbered = len(numbers) > 0 and _are_channels(numbers, groups, len(channels), channel_of)
    known = list(groups.images) if channel_of else []
    for name, path in groups.plain:
        split = split_number(name) if numbered else None
        sibling = next((case for case in known if _is_sibling(name, case)), "")
        if split and split[1] < len(channels) and not channel_of:
            groups.add(split[0], [channels[split[1]]], path)
        elif split or (sibling and (len(channels) == 1 or not _has_all(path, len(channels)))):
            case = split[0] if split else sibling
            if case in numbers and 0 not in numbers[case] and case not in groups.images:
                text = f"no image for {channels[0]} ({case}_0000): only {path.name}"
                groups.add_trouble(case, path, text)
            else:
                groups.left_out[_UNUSED].append(path.name)
        elif _has_all(path, len(channels)):
            groups.add(name, channels, path)
        else:
            groups.add_trouble(name, path, _lacking(channels, channels, channel_of))


def _are_channels(
    numbers: Mapping[str, Mapping[int, Path]],
    groups: _Groups,
    num_channels: int,
    channel_of: Mapping[str, str],
) -> bool:
    """Return whether numbers at the ends of names are nnU-Net's channels rather than part of the names of cases."""
    if channel_of:
        has_numbers = all(re.fullmatch(r"_\d{4}", ending) for ending in channel_of)
        return has_numbers and bool(groups.images)  # as in training
    if not are_channel_numbers({case: set(found) for case, found in numbers.items()}):
        return False
    if len(numbers) == 1:
        ((case, found),) = numbers.items()
        names_a_case = re.search(r"\d", case) is not None  # such as p_7, unlike patient
        if len(found) > _MOST_CHANNELS or not (names_a_case or _share_grid(list(found.values()))):
            return False
    if num_channels > 1 and any(len(found) < num_channels for found in numbers.values()):
        return False
    if any(len(found) > 1 for found in numbers.values()):
        groups.notes.append(
            "Files ending in _0000, _0001, ... are taken as the channels of one case, as nnU-Net's."
        )
    return True


def _share_grid(files: Sequence[Path]) -> bool:
    try:
        return share_grid(files)
    except DataError:
        return False


def _is_sibling(name: str, case: str) -> bool:
    """Return whether a name is a case's with a word behind it, such as `_adc`."""
    return name.startswith(case) and re.fullmatch(r"[_.\- ][A-Za-z][\w-]*", name[len(case) :]) is not None


def _other_modality(name: str, names: Sequence[str], modality: Modality) -> str:
    """Return the modality that a name ends with, as `p1_pet` where `p1_ct` is the model's; "" if there is none."""
    case, _, word = name.rpartition("_")
    other = modality_of(word)
    beside = any(
        each.startswith(f"{case}_") and modality_of(each[len(case) + 1 :]) == modality for each in names
    )
    return other if case and beside and other not in ("other", modality) else ""


def _has_all(path: Path, num_channels: int) -> bool:
    """Return whether a file may hold all channels of a case: one, frames of a 4D volume, or a picture's colours."""
    if num_channels == 1:
        return True
    try:
        header = read_header(path)
    except DataError:
        return True  # reading it says why
    return header.is_picture or header.shape[3:] == (num_channels,)


def _lacking(missing: Sequence[str], channels: Sequence[str], channel_of: Mapping[str, str]) -> str:
    endings = defaultdict(list)
    for ending, channel in channel_of.items():
        endings[channel].append(ending)
    shown = [f"{name} ({' or '.join(endings[name])})" if endings[name] else name for name in missing]
    hint = f"The model needs {', '.join(channels)}, by the endings of the files' names or as the frames of one file."
    return f"no image for {', '.join(shown)}. {hint}"


def _finish(groups: _Groups, channels: Sequence[str], channel_of: Mapping[str, str]) -> GivenScans:
    scans = {}
    for case, (path, text) in groups.troubles.items():
        if case in groups.images:
            groups.left_out[_BESIDE].append(path.name)
        else:
            scans[case] = Scan(case, [path], trouble=text)
    for case, images in groups.images.items():
        missing = [channel for channel in channels if channel not in images]
        trouble = _lacking(missing, channels, channel_of) if missing else ""
        scans[case] = Scan(case, [images[name] for name in channels if name in images], trouble=trouble)
    faults = list(groups.faults)
    same = Counter(map(name_on_disk, scans))
    alike = [case for case in sorted(scans) if same[name_on_disk(case)] > 1]
    if alike:
        faults.append(f"{', '.join(alike)}: names that some disks do not tell apart")
    left_out = {reason: names for reason, names in groups.left_out.items() if names}
    if not scans and not faults:
        others = "; ".join(f"{list_some(sorted(names), 3)}: {reason}" for reason, names in left_out.items())
        faults.append(f"no scan was given{others and f' ({others})'}")
    if faults:
        raise InputError(
            "; ".join(faults),
            where="scans",
            hint="Give every channel of every case once. Rename files with names that collide, or list them in a "
            "manifest.",
        )
    return GivenScans([scans[case] for case in sorted(scans)], left_out, groups.notes)
