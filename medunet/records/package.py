"""The content of a packaged model (package.json): its members, licences, and the SHA-256 of every other file."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from medunet.base.record import Record
from medunet.records.config import WeightsName
from medunet.records.description import Modality

PACKAGE_FILE, CARD_FILE = "package.json", "MODEL_CARD.md"
PACKAGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Folder = Annotated[str, StringConstraints(pattern=r"^members/[0-9]+$")]


class Member(Record):
    """A trained network of a package: a model folder, and how it was trained."""

    folder: _Folder
    fold: int | str
    seed: int | None = None  # None: not known
    num_training_cases: int | None = None
    epochs: int | None = None  # begun
    steps: int | None = None
    weights: WeightsName  # which of the training's weights these are
    precision: Literal["fp32", "fp16"]  # in which they are stored; they are computed with as any model's
    medunet_version: str  # of training


class Package(Record):
    """A packaged model; paths are those in the ZIP."""

    schema_: Literal["medunet.package/1"] = Field("medunet.package/1", alias="schema")
    name: str = Field(pattern=PACKAGE_NAME)
    title: str
    medunet_version: str  # that made the package
    weights_licence: _Text
    data_licence: _Text
    attribution: str = ""
    channels: dict[str, Modality] = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1)
    members: tuple[Member, ...] = Field(min_length=1)
    example: str  # a scan to try the model on, with all channels
    files: dict[str, _Sha256]  # of every file but package.json

    @model_validator(mode="after")
    def _complete(self) -> Self:
        expected = {CARD_FILE, self.example}
        for member in self.members:
            expected |= {f"{member.folder}/model.json", f"{member.folder}/weights.safetensors"}
        faults = []
        if len({member.folder for member in self.members}) < len(self.members):
            faults.append("members: two have the same folder")
        if set(self.files) != expected:
            differing = sorted(set(self.files) ^ expected)
            faults.append(f"files: {', '.join(differing)} should be added or left out")
        if faults:
            raise ValueError("; ".join(faults))
        return self
