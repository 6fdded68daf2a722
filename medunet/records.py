"""Frozen records that the stages hand one another.

Those that live in files (description, manifest) are pydantic models that refuse unknown keys; those that live in
memory only are dataclasses. What planning decides is in plans.py.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from medunet.errors import InputError
from medunet.stored import Stored

Layout = Literal["msd", "nnunet", "lits", "brats", "brats2023", "pairs", "csv", "png", "bids", "dicom"]
Severity = Literal["error", "warning", "note"]
Split = Literal["train", "test", "unlabelled"]


class Channel(Stored):
    """One image channel: what scanner made it, and how its files are named in multi-file layouts."""

    modality: Literal["CT", "MR", "PET", "other"]
    endings: tuple[str, ...] = ()


class FilePatterns(Stored):
    """Regular expressions over POSIX paths below the data root, each with a group `id`.

    Where the image's has a group `channel`, that is one of the channels' file endings; where a group `test` takes
    part in a match, the case is one of the test split.
    """

    image: str
    label: str


class Description(Stored):
    """What a dataset is: channels in the network's order, label values, regions, layout."""

    schema_: Literal["medunet.dataset/1"] = Field("medunet.dataset/1", alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    title: str = ""
    source: str = ""
    licence: str = ""
    layout: Layout
    files: FilePatterns | None = None  # for layouts "pairs", "png" and "bids" with other names than usual
    table: str = ""  # CSV of cases below the data root: layouts "csv" and, of pictures, "png"
    channels: dict[str, Channel] = Field(min_length=1)
    labels: dict[str, int]
    regions: dict[str, tuple[str, ...]] = {}
    region_order: tuple[str, ...] = ()
    instances: bool = False  # label files number the objects: every value above 0 is the one foreground label
    sided: bool = False
    patient: str = ""  # regular expression whose first group is the patient's part of a case id
    site: str = ""  # regular expression whose first group is the hospital's or scanner's part of a case id
    folds: int = Field(5, ge=1)

    @model_serializer(mode="wrap")
    def _given_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier versions did not know, where it is not used: hashes of their runs stay valid."""
        return {key: value for key, value in handler(self).items() if value or key not in ("table", "site")}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        values = list(self.labels.values())
        if self.labels.get("background") != 0:
            faults.append("labels: 'background: 0' is missing")
        if len(set(values)) < len(values):
            faults.append(f"labels: two names share a value in {self.labels}")
        if any(not 0 <= value <= 255 for value in values):
            faults.append("labels: values must lie in 0..255")
        if not self.foreground:
            faults.append("labels: no foreground label is declared")
        for region, parts in self.regions.items():
            unknown = [part for part in parts if part not in self.foreground]
            if unknown or not parts:
                faults.append(f"regions.{region}: {unknown or 'no labels'}; choose from {self.foreground}")
        if self.regions:
            covered = {part for parts in self.regions.values() for part in parts}
            if sorted(self.region_order) != sorted(self.regions):
                faults.append(f"region_order: must name each of {list(self.regions)} once")
            elif missing := [name for name in self.foreground if name not in covered]:
                faults.append(f"regions: labels {missing} belong to no region and could never be predicted")
            else:
                for region, own in self._own_labels().items():
                    if len(own) != 1:
                        faults.append(
                            f"region_order: '{region}' must have exactly one label that no later region "
                            f"holds, so that it can be written as a label map; it has {own}"
                        )
        elif self.region_order:
            faults.append("region_order: is set but regions are not")
        if self.instances and (len(self.foreground) != 1 or self.regions):
            faults.append("instances: needs exactly one foreground label and no regions")
        if self.instances and self.ignore_value is not None:
            faults.append("instances: every value above 0 is an object's number, so there can be no 'ignore'")
        if self.layout == "png" and len(self.channels) not in (1, 3):
            faults.append(
                f"channels: a picture has 1 (grey) or 3 (red, green, blue), not {len(self.channels)}"
            )
        if self.layout == "csv" and not self.table:
            faults.append("table: layout csv needs the name of the CSV below the data root")
        if self.table and self.layout not in ("csv", "png"):
            faults.append(f"table: is read by layouts csv and png, not by {self.layout}")
        for key, text in (("patient", self.patient), ("site", self.site)):
            try:
                if text and re.compile(text).groups != 1:
                    faults.append(f"{key}: the expression needs exactly one group")
            except re.error as error:
                faults.append(f"{key}: not a regular expression ({error})")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _own_labels(self) -> dict[str, list[str]]:
        later: set[str] = set()
        own = {}
        for region in reversed(self.region_order):
            own[region] = [part for part in self.regions[region] if part not in later]
            later.update(self.regions[region])
        return {region: own[region] for region in self.region_order}

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the labels other than background and ignore."""
        return tuple(name for name in self.labels if name not in ("background", "ignore"))

    @property
    def ignore_value(self) -> int | None:
        """Value of the label `ignore`, whose voxels are neither learnt nor scored; None where there is none."""
        return self.labels.get("ignore")

    @property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """What is predicted and scored, by name, each with the label values that it unites.

        Regions, in the order in which they are written, where declared; else the foreground labels.
        """
        if not self.regions:
            return {name: (self.labels[name],) for name in self.foreground}
        return {name: tuple(self.labels[part] for part in self.regions[name]) for name in self.region_order}

    @property
    def written_values(self) -> dict[str, int]:
        """Label value that stands for each target in a written mask; later targets overwrite earlier ones."""
        if not self.regions:
            return {name: self.labels[name] for name in self.foreground}
        return {region: self.labels[own[0]] for region, own in self._own_labels().items()}

    @property
    def instances_as(self) -> int | None:
        """Label value that every value above 0 of a label file stands for; None where values are labels."""
        return self.labels[self.foreground[0]] if self.instances else None

    @property
    def unit(self) -> Literal["mm", "px"]:
        """Unit of lengths: pictures have no spacing and are measured in pixels, under columns named mm."""
        return "px" if self.layout == "png" else "mm"

    def patient_of(self, case_id: str) -> str:
        """Return the patient's part of a case id; the id itself where the description gives no pattern."""
        match = re.search(self.patient, case_id) if self.patient else None
        return match.group(1) if match else case_id

    def site_of(self, case_id: str) -> str | None:
        """Return the site's part of a case id; None where the description gives no pattern that fits."""
        match = re.search(self.site, case_id) if self.site else None
        return match.group(1) if match else None


class Case(Stored):
    """One scan: its images by channel and its label, as POSIX paths relative to the data root.

    A path that several channels share is one 4D file whose frames are those channels, in their order.
    """

    id: str = Field(min_length=1)
    patient: str
    site: str | None = None
    images: dict[str, str]
    label: str | None = None
    fold: int | None = Field(None, ge=0)
    split: Split = "train"
    # Images on another grid than the first are brought to its when they are read: P004 or P005 are accepted.
    resample: bool = Field(False, exclude_if=lambda allowed: not allowed)

    @field_validator("id")
    @classmethod
    def _names_a_file(cls, value: str) -> str:
        if value.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f-\x9f]", value):
            raise ValueError(
                f"{value!r} cannot name a file: rename the case without '/', '\\' and control characters, "
                "and with no '.' in front"
            )
        return value


class Unmatched(Stored):
    """A file that belongs to no case, and why."""

    path: str
    reason: str


class Excluded(Stored):
    """A case that the user leaves out, and why."""

    id: str
    reason: str


class Accepted(Stored):
    """A fault that the user accepts for one case, and why."""

    code: str
    case: str
    reason: str


class Manifest(Stored):
    """A dataset's description with its cases and folds."""

    schema_: Literal["medunet.manifest/1"] = Field("medunet.manifest/1", alias="schema")
    description: Description
    cases: tuple[Case, ...]
    unmatched: tuple[Unmatched, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    accepted: tuple[Accepted, ...] = ()

    @model_validator(mode="after")
    def _cases_fit(self) -> Self:
        faults = []
        channels = list(self.description.channels)
        counts = Counter(case.id for case in self.cases)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            faults.append(f"cases: ids stand twice: {', '.join(twice)}")
        for case in self.cases:
            if sorted(case.images) != sorted(channels):
                faults.append(f"case {case.id}: has channels {list(case.images)}, expected {channels}")
            if case.fold is not None and case.split != "train":
                faults.append(f"case {case.id}: has fold {case.fold} although its split is {case.split}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def used(self) -> tuple[Case, ...]:
        """The cases that are not excluded."""
        left_out = {entry.id for entry in self.excluded}
        return tuple(case for case in self.cases if case.id not in left_out)

    @property
    def num_folds(self) -> int:
        """Number of folds that the training cases are divided into."""
        return 1 + max((case.fold for case in self.used if case.fold is not None), default=-1)

    def split_fold(self, fold: int | str) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Return the training and the validation cases of a fold.

        Fold "all" trains on every training case. With "all", or where there is but one fold, the training
        cases also serve for validation, and the run says so (`train_is_validation`).

        Raises:
            InputError: there is no such fold.
        """
        train = tuple(case for case in self.used if case.split == "train")
        if not train:
            raise InputError("there are no training cases", where="manifest.json")
        if fold == "all" or self.num_folds == 1:
            return train, train
        validation = tuple(case for case in train if case.fold == fold)
        if not validation:
            raise InputError(
                f"fold {fold} has no cases",
                where="manifest.json",
                mend=f"Choose one of 0..{self.num_folds - 1} or 'all'.",
            )
        return tuple(case for case in train if case.fold != fold), validation


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the data: coded, located, measured, and how to mend it."""

    code: str
    severity: Severity
    case: str  # case id; "" for the dataset as a whole
    subject: str  # channel name, "label", or a file below the data root
    measured: str
    expected: str
    mend: str
    accepted: str = ""  # the user's reason to live with it


def load_description(name: str, folder: Path) -> Description:
    """Read a shipped description by name from `folder`, or any description by its path."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json"):
        return Description.read(path)
    if not (folder / f"{name}.yaml").exists():
        known = ", ".join(sorted(entry.stem for entry in folder.glob("*.yaml")))
        raise InputError(
            f"no dataset description '{name}'", mend=f"Give a folder, a .yaml file or one of: {known}."
        )
    return Description.read(folder / f"{name}.yaml")
