"""The manifest of a dataset (manifest.json): cases with folds, unmatched files, excluded cases, accepted faults."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from medunet.base.errors import InputError
from medunet.base.record import Record
from medunet.records.description import Description

Split = Literal["train", "test", "unlabelled"]
_given: dict[frozenset[str], set[str]] = {}  # shared sets of the fields that cases were made with


class Case(Record):
    """One case: images by channel and label, as POSIX paths relative to the data root.

    Channels that share a path are the frames of one 4D file, in their order.
    """

    id: str = Field(min_length=1)
    patient: str
    site: str | None = None
    images: dict[str, str]
    label: str | None = None
    fold: int | None = Field(None, ge=0)
    split: Split = "train"
    # Whether images on another grid are resampled to the first image's when read: P004 or P005 are accepted.
    resample: bool = Field(False, exclude_if=lambda allowed: not allowed)

    def model_post_init(self, context: object) -> None:
        """Share the set of given fields with cases that have the same: it takes more memory than their values."""
        given = self.model_fields_set
        object.__setattr__(self, "__pydantic_fields_set__", _given.setdefault(frozenset(given), given))

    @field_validator("id")
    @classmethod
    def _names_a_file(cls, value: str) -> str:
        if value.startswith(".") or re.search(r"[/\\\x00-\x1f\x7f-\x9f]", value):
            raise ValueError(
                f"{value!r} cannot be a file name: rename the case without '/', '\\' and control characters, "
                "and without a leading '.'"
            )
        return value


def make_case(
    description: Description,
    case_id: str,
    images: Mapping[str, str],
    *,
    label: str | None,
    split: Split,
    fold: int | None = None,
    patient: str = "",
    site: str = "",
) -> Case:
    """Return a case of a dataset; patient and site default to those that the description finds in the id.

    Raises:
        InputError: The case is not valid; the message names the case and the reason.
    """
    plain = {
        "id": case_id,
        "patient": patient or description.patient_of(case_id),
        "site": site or description.site_of(case_id),
        "images": dict(images),
        "label": label,
        "fold": fold,
        "split": split,
    }
    return Case.parse(plain, where=f"case {case_id!r}")


class Unmatched(Record):
    """A file that belongs to no case, with the reason."""

    path: str
    reason: str


class Excluded(Record):
    """A case that the user excluded, with the reason."""

    id: str
    reason: str


class Accepted(Record):
    """A fault of one case that the user accepted, with the reason."""

    code: str
    case: str
    reason: str


class Manifest(Record):
    """A dataset: its description, its cases with folds, and the user's exclusions and accepted faults."""

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
            faults.append(f"cases: duplicate ids: {', '.join(twice)}")
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
        """Number of folds of the training cases."""
        return 1 + max((case.fold for case in self.used if case.fold is not None), default=-1)

    def split_fold(self, fold: int | str) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Return the training and the validation cases of a fold.

        Fold "all" trains on every training case. With "all", or if there is only one fold, the training cases are
        also the validation cases; the model card then has `train_is_validation` set.

        Raises:
            InputError: There is no such fold, or there are no training cases.
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
                hint=f"Choose one of 0..{self.num_folds - 1} or 'all'.",
            )
        return tuple(case for case in train if case.fold != fold), validation
