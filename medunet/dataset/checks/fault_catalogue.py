"""The catalogue of faults: the meaning, measurement, expected value and fix of each code.

Codes are stable: N… for volume files, D… for DICOM series, L… for labels, P… for two files of one case, S… for the
dataset and its split. docs/faults.md is generated from it.
"""

from medunet.dataset.checks.catalogue.dicom_faults import DICOM_FAULTS
from medunet.dataset.checks.catalogue.fault_kind import FaultKind
from medunet.dataset.checks.catalogue.label_faults import LABEL_FAULTS
from medunet.dataset.checks.catalogue.pair_faults import PAIR_FAULTS
from medunet.dataset.checks.catalogue.set_faults import SET_FAULTS
from medunet.dataset.checks.catalogue.volume_faults import VOLUME_FAULTS

FAULT_KINDS: dict[str, FaultKind] = VOLUME_FAULTS | DICOM_FAULTS | LABEL_FAULTS | PAIR_FAULTS | SET_FAULTS
