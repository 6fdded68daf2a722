"""Make a dataset description from nnU-Net's or the Decathlon's `dataset.json`."""

import re
from collections.abc import Mapping
from typing import Any

from medunet.base.errors import InputError
from medunet.records.description import Description, Layout, Modality

_MR_NAMES = re.compile(r"mri?|t[12].*|.*flair|pd|pdw|dwi|adc|dce|swi|swan|dti|asl|cine|lge|bssfp|.*gre", re.I)
_WHOLE = re.compile(r"-?\d+")
_PET_NAMES = re.compile(r"pet|pt|suv", re.I)


def modality_of(name: str) -> Modality:
    """Return the modality of a channel by its name: CT as in nnU-Net (the name is CT), MR and PET by usual names."""
    plain = name.strip().replace("-", "").replace("_", "")
    if plain.casefold() == "ct":
        return "CT"
    if _PET_NAMES.fullmatch(plain):
        return "PET"
    return "MR" if _MR_NAMES.fullmatch(plain) else "other"


def describe_json(plain: Mapping[str, Any], name: str, layout: Layout, **others: Any) -> Description:
    """Make a description from the channels, labels and regions of a `dataset.json`.

    Labels may have nnU-Net's form, `{"liver": 1}` or `{"liver": [1, 2]}` with `regions_class_order`, or the
    Decathlon's, `{"1": "liver"}`. A label that occurs only in regions is named after its value, such as label_1.

    Args:
        name: of the dataset, such as its folder's name.
        others: further keys of the description.

    Raises:
        InputError: labels or channels are missing or inconsistent; the message lists all faults.
    """
    faults: list[str] = []
    table = _read_labels(plain.get("labels"), faults)
    channels = read_channel_names(plain, faults)
    if faults:
        raise InputError("; ".join(faults), where="dataset.json", hint="Correct these keys.")
    numbered = layout == "nnunet"
    description = Description.parse(
        {
            "name": plain_name(name),
            "title": _text(plain, "description") or _text(plain, "name"),
            "source": _text(plain, "reference"),
            "licence": _text(plain, "licence", "license"),
            "layout": layout,
            "channels": {
                channel: {
                    "modality": modality_of(re.sub(r"_\d+$", "", channel)),
                    "endings": [f"_{number:04d}"] if numbered else [],
                }
                for number, channel in enumerate(channels)
            },
            "sided": has_sides(set(table)),
            **_as_labels(table),
            **others,
        },
        where="dataset.json",
    )
    if description.regions:
        _check_order(description, plain.get("regions_class_order"))
    return description


def read_channel_names(plain: Mapping[str, Any], faults: list[str]) -> list[str]:
    """Return the channels' names in order; names that occur several times get the channel's number appended."""
    table = plain.get("channel_names", plain.get("modality"))
    if isinstance(table, list):
        table = dict(enumerate(table))
    if (
        not isinstance(table, dict)
        or not table
        or sorted(map(str, table)) != sorted(map(str, range(len(table))))
    ):
        faults.append('channel_names: write {"0": "CT", "1": ...}, with a name for each channel')
        return []
    names = [str(table[key]).strip() for key in sorted(table, key=int)]
    if empty := [str(number) for number, name in enumerate(names) if not name]:
        faults.append(f"channel_names: {', '.join(empty)} has no name")
    return [f"{name}_{number}" if names.count(name) > 1 else name for number, name in enumerate(names)]


def number_labels(labels: Mapping[str, int]) -> dict[str, Any]:
    """Return a description's `labels`, numbered 1 to n with `stored_values` if any value is not in 0..255."""
    if all(0 <= value <= 255 for value in labels.values()):
        return {"labels": dict(labels)}
    others = {name: value for name, value in labels.items() if name != "background"}
    return {
        "labels": {"background": 0} | {name: number for number, name in enumerate(others, start=1)},
        "stored_values": others,
    }


def has_sides(labels: set[str]) -> bool:
    """Return whether two labels are the left and the right side of the same structure."""
    lower = {label.casefold() for label in labels}
    return any("left" in label and label.replace("left", "right") in lower for label in lower)


def plain_name(text: str) -> str:
    """Return a text as a valid name of a description."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.") or "dataset"


def _read_labels(labels: Any, faults: list[str]) -> dict[str, tuple[int, ...]]:
    """Return the values of each label name, in the file's order; the label of value 0 is named background."""
    table: dict[str, tuple[int, ...]] = {}
    if not isinstance(labels, dict) or not labels:
        faults.append('labels: write {"background": 0, "liver": 1}')
        return table
    for key, entry in labels.items():
        name, parts = str(key).strip(), entry if isinstance(entry, list) else [entry]
        if isinstance(entry, str) and _WHOLE.fullmatch(name):
            name, parts = entry.strip(), [int(key)]
        if not parts or not all(type(part) is int or _WHOLE.fullmatch(str(part)) for part in parts):
            faults.append(f"labels.{key}: {entry!r} is not a value, list of values or name")
            continue
        values = tuple(int(part) for part in parts)
        name = "background" if values == (0,) else name
        if name in table:
            faults.append(f"labels: {name!r} occurs twice")
        table[name] = values
    return {"background": (0,), **table}


def _as_labels(table: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the description's keys: labels and, if any name has several values, regions with one for each name."""
    if all(len(values) == 1 for values in table.values()):
        return number_labels({name: values[0] for name, values in table.items()})
    single = {values[0]: name for name, values in table.items() if len(values) == 1}
    occurring = {value for values in table.values() for value in values}
    name_of = {value: single.get(value, f"label_{value}") for value in sorted(occurring)}
    regions = {name: values for name, values in table.items() if name not in ("background", "ignore")}
    return {
        **number_labels({name: value for value, name in name_of.items()}),
        "regions": {name: [name_of[value] for value in values] for name, values in regions.items()},
        "region_order": list(regions),
    }


def _check_order(description: Description, order: Any) -> None:
    """Check that `regions_class_order` gives the same predicted values as the description.

    nnU-Net writes value i of the list for region i, later regions over earlier ones.

    Raises:
        InputError: it does not.
    """
    stored = {value: description.stored_as(name)[0] for name, value in description.labels.items()}
    written = {region: stored[value] for region, value in description.written_values.items()}
    if not isinstance(order, list) or order != list(written.values()):
        raise InputError(
            f"regions_class_order {order} does not write each region as the label that no later region contains: "
            + ", ".join(f"{region} as {value}" for region, value in written.items()),
            where="dataset.json",
            hint=f"Write {list(written.values())} if you mean this, or describe the dataset in a YAML file.",
        )


def _text(plain: Mapping[str, Any], *keys: str) -> str:
    return next((plain[key] for key in keys if isinstance(plain.get(key), str)), "")
