"""Check that each fold trains on every class and validates on something (S…): absent classes, nothing judged."""

from collections.abc import Iterator, Sequence

from medunet.base.words import list_some
from medunet.dataset.checks.case_facts import CaseFacts
from medunet.dataset.checks.fault_codes import make_fault
from medunet.records.description import Description
from medunet.records.fault import Fault

TRAINED_WITHOUT_CLASS = "S015"
_MAX_NAMES = 5


def check_absent_classes(description: Description, facts: Sequence[CaseFacts]) -> Iterator[Fault]:
    """Yield faults for classes that a fold cannot learn, and for cases and folds without a voxel to judge.

    Classes are the description's targets: labels or, if declared, regions. A fold is skipped if the values of one of
    the labels that it trains on are unknown, which is a fault of that label.
    """
    train = [each for each in facts if each.case.split == "train"]
    for each in facts:
        if _values(each) and not _is_judged(each, description):
            yield make_fault("S017", each.case.id, "label", "every voxel is `ignore`")
    if train and all(_values(each) and not _has_foreground(each, description) for each in train):
        yield make_fault("S016", "", "label", f"no foreground in any of {len(train)} training labels")
        return
    elsewhere = [each for each in facts if each.case.split == "test"]
    if absent := _absent(train, elsewhere, description):
        yield _fault("training cases", train, elsewhere, absent, description)
    folds = sorted({each.case.fold for each in train if each.case.fold is not None})
    for fold in folds if len(folds) > 1 else []:
        trained = [each for each in train if each.case.fold != fold]
        held_out = [each for each in train if each.case.fold == fold]
        if absent := _absent(trained, held_out, description):
            yield _fault(fold_subject(fold), trained, held_out, absent, description)
        if not any(_is_judged(each, description) or not _values(each) for each in held_out):
            measured = f"every voxel of its {len(held_out)} held-out case(s) is `ignore`"
            yield make_fault("S018", "", fold_subject(fold), measured)


def fold_subject(fold: int | str) -> str:
    """Return the subject of a fold's faults."""
    return f"fold {fold}"


def _fault(
    subject: str,
    trained: Sequence[CaseFacts],
    elsewhere: Sequence[CaseFacts],
    absent: Sequence[str],
    description: Description,
) -> Fault:
    texts = [f"{name} (only in {_holders(name, elsewhere, description)})" for name in absent]
    measured = f"in none of its {len(trained)} training cases: {', '.join(texts)}"
    # A fold that trains on fewer cases than it holds out is the reverse of a split, and rarely meant to be trained.
    return make_fault(
        TRAINED_WITHOUT_CLASS,
        "",
        subject,
        measured,
        severity="warning" if subject.startswith("fold") and len(trained) < len(elsewhere) else None,
    )


def _absent(
    trained: Sequence[CaseFacts], elsewhere: Sequence[CaseFacts], description: Description
) -> list[str]:
    """Return the classes that other cases have and none of the training cases; empty if their labels are unknown."""
    if not trained or not all(_values(each) for each in trained):
        return []
    known, others = _present(trained, description), _present(elsewhere, description)
    return [name for name in description.targets if name in others - known]


def _present(facts: Sequence[CaseFacts], description: Description) -> set[str]:
    values = frozenset().union(*(_values(each) for each in facts))
    return {name for name, own in description.targets.items() if values & set(own)}


def _is_judged(facts: CaseFacts, description: Description) -> bool:
    return bool(_values(facts) - {description.ignore_value})


def _has_foreground(facts: CaseFacts, description: Description) -> bool:
    """Return whether a label has any value, declared or not, beside background and `ignore`."""
    return bool(_values(facts) - {0, description.ignore_value})


def _values(facts: CaseFacts) -> frozenset[int]:
    """Return the values of a case's label; empty if there is none or it cannot be used."""
    return facts.label.values if facts.label else frozenset()


def _holders(name: str, facts: Sequence[CaseFacts], description: Description) -> str:
    ids = [each.case.id for each in facts if name in _present([each], description)]
    return list_some(ids, _MAX_NAMES)
