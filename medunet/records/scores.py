"""What scoring finds of one case, as later stages take it: records without behaviour."""

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
NoteKind = Literal["border", "swapped", "resampled", "other"]  # other: in a file that a person edited

UNSCORED: tuple[Status, ...] = ("missing", "failed")  # cases without scores, which count as failures


@dataclass(frozen=True)
class Note:
    """What to beware of in the scores of one target of one case; `medunet.scoring.notes` makes them."""

    kind: NoteKind
    text: str


@dataclass(frozen=True)
class Lesion:
    """One lesion of the reference with what was found of it, or one of the prediction that is none.

    Its axes and slice are those of the reference's lesion; of a false positive those of the prediction's.
    """

    number: int  # 1, 2, ... within the case and target: the reference's, then the false positives
    status: LesionStatus
    dice: float  # with the union of the predicted lesions matched to it (LiTS: of its group); 0 where there is none
    hd95_mm: float  # to that union; infinite where there is none
    reference_ml: float
    predicted_ml: float
    long_axis_mm: float  # longest diameter within one axial slice
    short_axis_mm: float  # longest one perpendicular to it in that slice
    slice_index: int  # of that slice, from 0
    counted: bool = True  # False where the rules leave a lesion so small out


@dataclass(frozen=True)
class CaseLesions:
    """The lesions of one target of one case under one set of rules. NaN is undefined."""

    rules: str  # the preset's name
    lesions: tuple[Lesion, ...]
    num_matched: int  # of the reference's lesions that count
    num_missed: int
    num_false_positive: int
    sensitivity: float
    precision: float
    f1: float
    dice: float  # mean as the rules have it: BraTS over all lesions, misses as 0; LiTS and panoptic over the matched
    hd95_mm: float  # mean over lesions as the rules have it, with their penalty
    rq: float  # recognition quality, matched one to one at IoU > 0.5 or as the rules say
    sq: float  # mean IoU of the matched
    pq: float


@dataclass(frozen=True)
class CaseScore:
    """All scores of one target (label or region) of one case, on the scan's own grid.

    NaN is undefined, infinity a distance to an empty mask; `nsd` is by tolerance in mm. The fields are those of
    `medunet.scoring.masks.MaskScore`, which says what they mean.
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
    cldice: float = math.nan  # of targets that are tubes
    reason: str = ""  # why a case is missing or failed
    notes: tuple[Note, ...] = ()  # of one that is neither
    hd95: HD95Mode = "max"
    percentile: float = 95.0  # that hd95_mm is taken at
    penalty_mm: float = math.nan  # the field of view's diagonal: what a failure costs where it is penalised
    tp: int | None = None  # voxels in both masks; None where the case was not scored
    fp: int | None = None
    fn: int | None = None
    tn: int | None = None
    lesions: CaseLesions | None = None  # where the configuration asks for them


def json_number(value: float) -> float | None:
    """Return a number as JSON can hold it: undefined and infinite become null."""
    return value if math.isfinite(value) else None
