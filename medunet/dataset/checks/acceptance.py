"""Accept faults by code and case with a reason; accepted faults are recorded in the manifest and still reported."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from medunet.base.errors import InputError
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.fault_codes import make_fault
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted, Manifest

GRID_CODES = ("P004", "P005")  # modalities on different grids
EVERY_CASE = "*"  # stands for the case of an entry that names none
_RESAMPLED = "resampled to the grid of the first modality on reading"
_FOR_ALL = "accepted for all cases"


def parse_accepted(
    entries: Iterable[str], cases: Iterable[str], *, new_scans: bool = False
) -> list[Accepted]:
    """Return the faults accepted by the texts 'CODE:CASE=REASON', 'CODE=REASON' or 'CODE', in order.

    The last two have the case `EVERY_CASE`. CASE is empty for a fault of the whole dataset.

    Args:
        cases: the ids of the cases; an id may hold "=" itself.
        new_scans: whether scans are to be predicted: an entry with a case then needs no reason, and the fault of a
            file that cannot be used is not accepted.

    Raises:
        InputError: entries have no reason, an unknown code or case, or a code that cannot be accepted; the message
            lists all of them.
    """
    known, accepted, troubles = {*cases, ""}, [], []
    for entry in entries:
        head, _, why = entry.partition("=")
        code, colon, rest = entry.partition(":") if ":" in head else (head, "", "")
        case = EVERY_CASE
        if colon:
            named = [each for each in known if rest == each or rest.startswith(f"{each}=")]
            case = max(named, key=len) if named else rest.partition("=")[0]
            why = rest[len(case) + 1 :]
            if not new_scans and not why.strip():
                troubles.append(f"'{entry}' is not CODE:CASE=REASON")
                continue
            if case not in known:
                troubles.append(f"'{entry}': there is no case '{case}'")
        if code not in FAULT_KINDS:
            troubles.append(f"'{entry}': there is no code {code}")
        elif new_scans and not FAULT_KINDS[code].usable:
            troubles.append(f"'{entry}': a file with {code} ({FAULT_KINDS[code].title}) cannot be used")
        accepted.append(Accepted(code=code, case=case, reason=why.strip() or _FOR_ALL))
    if troubles:
        raise InputError(
            "; ".join(troubles),
            where="--accept",
            hint="Write code and case as checks.csv has them, such as L003:liver_47='no tumour in this scan', or the "
            "code alone for all cases.",
        )
    return accepted


def accept_faults(manifest: Manifest, entries: Iterable[str], faults: Sequence[Fault] = ()) -> Manifest:
    """Return the manifest with additional accepted faults, given as described at `parse_accepted`.

    An entry without a case accepts the code in every case in which `faults` have it. Faults accepted before remain
    accepted; a new reason for the same code and case replaces the old one. If different grids of a case's modalities
    are accepted, they are resampled.

    Raises:
        InputError: as `parse_accepted`.
    """
    accepted = {(entry.code, entry.case): entry for entry in manifest.accepted}
    for entry in parse_accepted(entries, (case.id for case in manifest.cases)):
        cases = [entry.case]
        if entry.case == EVERY_CASE:
            cases = list(dict.fromkeys(fault.case for fault in faults if fault.code == entry.code))
        for case in cases:
            accepted[entry.code, case] = entry.model_copy(update={"case": case})
    return with_accepted(manifest, accepted.values())


def with_accepted(manifest: Manifest, accepted: Iterable[Accepted]) -> Manifest:
    """Return the manifest with exactly these faults accepted; modalities on different grids will be resampled."""
    accepted = tuple(accepted)
    resampled = {entry.case for entry in accepted if entry.code in GRID_CODES}
    cases = tuple(case.model_copy(update={"resample": case.id in resampled}) for case in manifest.cases)
    return manifest.model_copy(update={"accepted": accepted, "cases": cases})


def allow_resampling(manifest: Manifest, faults: Sequence[Fault]) -> Manifest:
    """Return the manifest with every difference between the grids of a case's modalities accepted."""
    known = {(entry.code, entry.case) for entry in manifest.accepted}
    different = dict.fromkeys((fault.code, fault.case) for fault in faults if fault.code in GRID_CODES)
    more = [
        Accepted(code=code, case=case, reason=_RESAMPLED)
        for code, case in different
        if (code, case) not in known
    ]
    return with_accepted(manifest, (*manifest.accepted, *more))


def mark_accepted(faults: Sequence[Fault], accepted: Sequence[Accepted]) -> list[Fault]:
    """Return the faults with the reasons of accepted ones; an accepted fault that was not found gives fault S011."""
    reasons = {(entry.code, entry.case): entry.reason for entry in accepted}
    found = {(fault.code, fault.case) for fault in faults}
    marked = [
        replace(fault, accepted=reasons.get((fault.code, fault.case), ""))
        for fault in faults
        if fault.code != "S011"  # from an earlier call
    ]
    stale = [
        make_fault("S011", case, "accepted", f"{code} is accepted but was not found")
        for code, case in reasons
        if (code, case) not in found
    ]
    return marked + stale
