"""Tell the channel of an image file by its name: by the endings known from training, or by nnU-Net's numbers."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from medunet.dataset.layouts.datalists import common_start
from medunet.dataset.layouts.patterns import channel_endings, stem
from medunet.records.description import Description
from medunet.records.manifest import Case

_SEPARATORS = "_.- "
_MOST_ENDINGS = 5  # of a channel: more are no endings but names
_NUMBER = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")

Endings = Mapping[str, Sequence[str]]  # of the file names of each channel


def learn_endings(cases: Iterable[Case], description: Description) -> dict[str, tuple[str, ...]]:
    """Return the endings of each channel's file names in the training cases, such as `_ct` and `_pet`.

    They are needed where the description has none: it lists the files in a table, or their folders are named. Returns
    {} where the names have no common endings, or the description has them. A file name without its case's id is
    an ending only if several patients have it: that of one may be the patient's name, and the model would tell it.
    """
    if channel_endings(description):
        return {}
    found: dict[str, set[str]] = defaultdict(set)
    num_names: Counter[str] = Counter()
    patients: dict[str, set[str]] = defaultdict(set)  # of the names that are taken as a whole
    for case in cases:
        names = {channel: stem(path) for channel, path in case.images.items()}
        if len(names) == 1 or len({*names.values()}) < len(names):  # one channel; or several in one 4D file
            start = case.id
        else:
            start = common_start([*names.values()]).rstrip(_SEPARATORS)
        for channel, name in names.items():
            found[channel].add(name.removeprefix(start))
            num_names[channel] += 1
            if not start or not name.startswith(start):
                patients[name].add(case.patient)
    if any(len(found[channel]) == number > 1 for channel, number in num_names.items()):
        return {}  # every case has another one
    if any(len(own) == 1 for own in patients.values()):
        return {}
    known = len(found) == len(description.channels) and all(
        len(endings) <= _MOST_ENDINGS and "" not in endings for endings in found.values()
    )
    distinct = sum(map(len, found.values())) == len(set().union(*found.values()))
    shared = len({frozenset(endings) for endings in found.values()}) == 1  # one file holds all channels
    return (
        {name: tuple(sorted(endings)) for name, endings in found.items()}
        if known and (distinct or shared)
        else {}
    )


def known_endings(description: Description, learnt: Endings) -> dict[str, str]:
    """Return the channel of each known ending: those of the description or, if it has none, those learnt.

    The channel is "" if a file with this ending holds all channels, such as the colours of a picture.
    """
    if described := channel_endings(description):
        return described
    channels: dict[str, list[str]] = defaultdict(list)
    for channel, endings in learnt.items():
        for ending in endings:
            channels[ending].append(channel)
    return {ending: names[0] if len(names) == 1 else "" for ending, names in channels.items()}


def split_ending(name: str, folder: str, channel_of: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the case and the channel of a file's stem by its ending; None if it has none of the known endings.

    A stem that is an ending as a whole, such as `ct`, is of the case that its folder is named after. Endings are the
    same in upper and lower case unless this is ambiguous.
    """
    lower: dict[str, set[str]] = defaultdict(set)
    for ending, channel in channel_of.items():
        lower[ending.casefold()].add(channel)
    for ending in sorted(channel_of, key=len, reverse=True):
        for text, sought in ((name, ending), (name.casefold(), ending.casefold())):
            if not text.endswith(sought) or (text is not name and len(lower[sought]) > 1):
                continue
            case = name[: len(name) - len(ending)] or folder
            return case, channel_of[ending]
    return None


def split_number(name: str) -> tuple[str, int] | None:
    """Return the case and the channel's number of a name such as `case_0001`, as nnU-Net has them; None without."""
    match = _NUMBER.fullmatch(name)
    return (match["case"], int(match["number"])) if match else None


def are_channel_numbers(numbers: Mapping[str, set[int]]) -> bool:
    """Return whether the numbers of each case can be nnU-Net's channels: 0000, 0001, ... without a gap.

    A folder `p_0001`, `p_0002`, ... numbers its cases.
    """
    return bool(numbers) and all(found == set(range(len(found))) for found in numbers.values())
