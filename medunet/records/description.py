"""Description of a dataset: channels, label values, regions and file layout; and the descriptions medunet ships."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from medunet.base.errors import InputError
from medunet.base.package_data import package_data_path
from medunet.base.record import Record
from medunet.records.label_rules import LabelRules

Modality = Literal["CT", "MR", "PET", "other"]
# The plausible voxel sizes in mm: below them lie lengths in metres that are said to be in mm. Micro-CT has 5 µm or
# more, MR microscopy 10 µm, small-animal PET 0.1 mm; "other" includes microscopy and OCT.
SPACING_MM: dict[Modality, tuple[float, float]] = {
    "CT": (0.005, 12.0),
    "MR": (0.005, 12.0),
    "PET": (0.05, 12.0),
    "other": (0.0001, 12.0),
}

Layout = Literal["msd", "nnunet", "lits", "brats", "brats2023", "pairs", "csv", "png", "bids", "dicom"]


class Channel(Record):
    """One image channel: its modality, and the endings of its file names in layouts with a file per channel."""

    modality: Modality
    endings: tuple[str, ...] = ()


class FilePatterns(Record):
    """Regular expressions for POSIX paths relative to the data root, each with a group `id`.

    A group `channel` in the image's expression matches one of the channels' file endings. If a group `test`
    matches, the case belongs to the test split.
    """

    image: str
    label: str


class Description(Record):
    """Description of a dataset: channels in the network's order, label values, regions, file layout."""

    schema_: Literal["medunet.dataset/1"] = Field("medunet.dataset/1", alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    title: str = ""
    source: str = ""
    licence: str = ""
    layout: Layout
    files: FilePatterns | None = None  # for layouts "pairs", "png" and "bids" with other than the usual names
    table: str = ""  # CSV of cases, relative to the data root, for layouts "csv" and "png"
    channels: dict[str, Channel] = Field(min_length=1)
    labels: dict[str, int]
    stored_values: dict[
        str, int | tuple[int, ...]
    ] = {}  # of labels whose value in the label files is another
    regions: dict[str, tuple[str, ...]] = {}
    region_order: tuple[str, ...] = ()
    instances: bool = False  # label files number the objects: every value above 0 is the one foreground label
    shown_in: dict[str, str] = {}  # target -> channel that it is judged on; others: FLAIR, or the first
    sided: bool = False  # whether left and right structures have different labels
    patient: str = ""  # regular expression whose first group is the patient in a case id
    site: str = ""  # regular expression whose first group is the hospital or scanner in a case id
    folds: int = Field(5, ge=1)

    @model_serializer(mode="wrap")
    def _given_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out unused keys that earlier versions did not have, so that hashes of their runs stay valid."""
        later = ("table", "site", "stored_values", "shown_in")
        return {key: value for key, value in handler(self).items() if value or key not in later}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        values = list(self.labels.values())
        if self.labels.get("background") != 0:
            faults.append("labels: 'background: 0' is missing")
        if len(set(values)) < len(values):
            faults.append(f"labels: two names share a value in {self.labels}")
        if any(not 0 <= value <= 255 for value in values):
            faults.append(
                "labels: values must be in 0..255; for label files with other values, number the labels 1, 2, … and "
                "declare the files' values, such as `stored_values: {liver: 1000}`"
            )
        if not self.foreground:
            faults.append("labels: no foreground label is declared")
        faults += self._stored_faults()
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
                            f"contains, so that it can be written as a label map; it has {own}"
                        )
        elif self.region_order:
            faults.append("region_order: is set but regions are not")
        known = [*self.regions] or [*self.foreground]
        if unknown := [name for name in self.shown_in if name not in known]:
            faults.append(f"shown_in: {unknown} are no targets; choose from {known}")
        if unknown := [name for name in self.shown_in.values() if name not in self.channels]:
            faults.append(f"shown_in: there are no channels {unknown}; choose from {list(self.channels)}")
        if self.instances and (len(self.foreground) != 1 or self.regions):
            faults.append("instances: needs exactly one foreground label and no regions")
        if self.instances and self.ignore_value is not None:
            faults.append("instances: every value above 0 is an object's number, so there can be no 'ignore'")
        if self.layout == "png" and len(self.channels) not in (1, 3):
            faults.append(
                f"channels: a 2D image has 1 (grey) or 3 (red, green, blue), not {len(self.channels)}"
            )
        if self.layout == "csv" and not self.table:
            faults.append("table: layout csv needs the path of the CSV relative to the data root")
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

    def _stored_faults(self) -> list[str]:
        """Return what is wrong with `stored_values`."""
        faults = []
        if unknown := [name for name in self.stored_values if name not in self.labels]:
            faults.append(f"stored_values: {unknown} are no labels; choose from {list(self.labels)}")
        if any(parts == () for parts in self.stored_values.values()):
            faults.append("stored_values: a label without a value")
        stored = [value for name in self.labels for value in self.stored_as(name)]
        if twice := sorted({value for value in stored if stored.count(value) > 1}):
            faults.append(
                f"stored_values: {twice} would belong to two labels; a label that is not listed is stored as its own "
                "value, and 0 is background"
            )
        if self.stored_values and self.instances:
            faults.append("stored_values: every value above 0 is an object's number, so none can be listed")
        return faults

    def stored_as(self, name: str) -> tuple[int, ...]:
        """Return the values of a label in label files: as `stored_values` says, else its own; 0 is background."""
        listed = self.stored_values.get(name, self.labels[name])
        values = listed if isinstance(listed, tuple) else (listed,)
        return values if name != "background" or 0 in values else (0, *values)

    @property
    def renumber(self) -> dict[int, int] | None:
        """Label value of each value that label files hold; None if they hold the label values themselves."""
        if not self.stored_values:
            return None
        return {value: own for name, own in self.labels.items() for value in self.stored_as(name)}

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
        """Value of the label `ignore`, whose voxels are excluded from training and scoring; None without one."""
        return self.labels.get("ignore")

    @property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """The structures that are predicted and scored: name -> label values that it consists of.

        These are the regions, in `region_order`, if any are declared, otherwise the foreground labels.
        """
        if not self.regions:
            return {name: (self.labels[name],) for name in self.foreground}
        return {name: tuple(self.labels[part] for part in self.regions[name]) for name in self.region_order}

    @property
    def written_values(self) -> dict[str, int]:
        """Label value of each target in a written mask; later targets overwrite earlier ones."""
        if not self.regions:
            return {name: self.labels[name] for name in self.foreground}
        return {region: self.labels[own[0]] for region, own in self._own_labels().items()}

    @property
    def instances_as(self) -> int | None:
        """Label value that replaces the object numbers (values above 0) in label files; None without instances."""
        return self.labels[self.foreground[0]] if self.instances else None

    @property
    def label_rules(self) -> LabelRules:
        """The rules by which the dataset's label files are read."""
        return LabelRules(self.labels, self.instances_as, self.renumber)

    @property
    def unit(self) -> Literal["mm", "px"]:
        """Unit of lengths: px for 2D images, which have no spacing (their columns are still named mm)."""
        return "px" if self.layout == "png" else "mm"

    def spacing_range_mm(self, channels: Iterable[str] = ()) -> tuple[float, float]:
        """Return the smallest and the largest plausible voxel size of scans of these channels; () for all."""
        ranges = [SPACING_MM[self.channels[name].modality] for name in (tuple(channels) or self.channels)]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def patient_of(self, case_id: str) -> str:
        """Return the patient of a case id; the id itself if the pattern is missing or its group does not match."""
        match = re.search(self.patient, case_id) if self.patient else None
        return (match and match.group(1)) or case_id

    def site_of(self, case_id: str) -> str | None:
        """Return the site of a case id; None if the pattern is missing or does not match."""
        match = re.search(self.site, case_id) if self.site else None
        return match.group(1) if match else None


def load_description(name: str) -> Description:
    """Read a description that medunet ships by its name, or any description file by its path."""
    path, folder = Path(name), descriptions_folder()
    if path.suffix in (".yaml", ".yml", ".json"):
        return Description.read(path)
    if not (folder / f"{name}.yaml").exists():
        known = ", ".join(sorted(entry.stem for entry in folder.glob("*.yaml")))
        raise InputError(
            f"no dataset description '{name}'", hint=f"Give a folder, a .yaml file or one of: {known}."
        )
    return Description.read(folder / f"{name}.yaml")


def descriptions_folder() -> Path:
    """Return the folder of the dataset descriptions that medunet ships."""
    return package_data_path("data_manifests")
