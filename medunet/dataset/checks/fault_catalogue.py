"""The catalogue of faults: what each code means, how it is measured, what is expected instead, and how to fix it.

Codes are stable: N… of a volume file, D… of a DICOM series, L… of a label, P… of two files of one case, S… of the
set and its split. docs/faults.md is made of it.
"""

from medunet.dataset.checks.catalogue.dicom_faults import DICOM_FAULTS
from medunet.dataset.checks.catalogue.fault_kind import FaultKind
from medunet.dataset.checks.catalogue.label_faults import LABEL_FAULTS
from medunet.dataset.checks.catalogue.pair_faults import PAIR_FAULTS
from medunet.dataset.checks.catalogue.set_faults import SET_FAULTS
from medunet.dataset.checks.catalogue.volume_faults import VOLUME_FAULTS

FAULT_KINDS: dict[str, FaultKind] = VOLUME_FAULTS | DICOM_FAULTS | LABEL_FAULTS | PAIR_FAULTS | SET_FAULTS
