"""Records of the scores of one case and of its lesions."""

import math
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "both_empty", "missed", "false_positive", "missing", "failed"]
Surface = Literal["area", "voxel"]
HD95Mode = Literal["max", "pooled"]
LesionPreset = Literal[
    "brats2023", "brats2023_meningioma", "brats2023_metastases", "lits", "lits_half", "panoptic"
]
LesionStatus = Literal["matched", "missed", "false_positive"]
NoteKind = Literal["border", "swapped", "resampled", "names", "other"]  # other: from an edited file

UNSCORED: tuple[Status, ...] = ("missing", "failed")  # cases without scores, which count as failures


@dataclass(frozen=True)
class Note:
    """A caveat about the scores of one target of one case, made by `medunet.scoring.notes`."""

    kind: NoteKind
    text: str


@dataclass(frozen=True)
class Lesion:
    """Scores of one lesion of the reference, or of one false positive lesion of the prediction.

    Axes and slice are measured on the lesion of the reference, or on the prediction for a false positive.
    """

    number: int  # 1, 2, ... within the case and target: the reference's, then the false positives
    status: LesionStatus
    dice: float  # with the union of its matched predicted lesions (LiTS: of its group); 0 without a match
    hd95_mm: float  # to that union; infinite without a match
    reference_ml: float
    predicted_ml: float
    long_axis_mm: float  # longest diameter within one axial slice
    short_axis_mm: float  # longest one perpendicular to it in that slice
    slice_index: int  # of that slice, from 0
    counted: bool = True  # False if the rules ignore lesions this small


@dataclass(frozen=True)
class CaseLesions:
    """Lesion-wise scores of one target of one case by one set of rules. NaN means undefined."""

    rules: str  # the preset's name
    lesions: tuple[Lesion, ...]
    num_matched: int  # of the counted reference lesions
    num_missed: int
    num_false_positive: int
    sensitivity: float
    precision: float
    f1: float
    dice: float  # mean by the rules: BraTS over all lesions with misses as 0; LiTS and panoptic over matched lesions
    hd95_mm: float  # mean over lesions by the rules, with their penalty
    rq: float  # recognition quality, for one-to-one matches at IoU > 0.5 or by the rules
    sq: float  # segmentation quality: mean IoU of the matched lesions
    pq: float  # panoptic quality: rq * sq


@dataclass(frozen=True)
class CaseScore:
    """All scores of one target (label or region) of one case, on the scan's own grid.

    NaN means undefined; infinity is a distance to an empty mask. The keys of `nsd` are tolerances in mm. See
    `medunet.scoring.masks.MaskScore` for the meaning of the fields.
    """

    case: str
    label: str
    status: Status
    surface: Surface
    dice: float = math.nan
    iou: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    f1: float = math.nan
    specificity: float = math.nan
    accuracy: float = math.nan
    hd_mm: float = math.nan
    hd95_mm: float = math.nan
    assd_mm: float = math.nan
    masd_mm: float = math.nan
    nsd: dict[float, float] = field(default_factory=dict)
    reference_ml: float = math.nan
    predicted_ml: float = math.nan
    difference_ml: float = math.nan
    relative_difference: float = math.nan
    f2: float = math.nan
    balanced_accuracy: float = math.nan
    mcc: float = math.nan
    kappa: float = math.nan
    cldice: float = math.nan  # of tubular targets
    reason: str = ""  # why a case is missing or failed
    notes: tuple[Note, ...] = ()  # caveats about a scored case
    hd95: HD95Mode = "max"
    percentile: float = 95.0  # used for hd95_mm
    penalty_mm: float = math.nan  # diagonal of the field of view: distance assigned to a failure if penalised
    tp: int | None = None  # voxels in both masks; None if the case was not scored
    fp: int | None = None
    fn: int | None = None
    tn: int | None = None
    lesions: CaseLesions | None = None  # if configured in scoring.lesions
    patient: str = ""  # the case itself if blank; never free text of a header or a table
    site: str = ""
    strata: dict[str, str] = field(default_factory=dict)  # other columns of text, by name
    reference_sha256: str = ""  # of the files that were scored, 16 digits
    prediction_sha256: str = ""

    @property
    def unit(self) -> str:
        """What is independent of other units: the patient, or the case if the patient is unknown."""
        return self.patient or self.case


def json_number(value: float) -> float | None:
    """Return a number for JSON: NaN and infinity become None."""
    return value if math.isfinite(value) else None
