"""Find cases that are likely of one patient by their names: alike up to a last visit, scan, date or side token."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from medunet.records.description import Description
from medunet.records.manifest import Case

_SEPARATORS = "_. -"
_SEPARATOR = f"[{_SEPARATORS}]"
_VISITS = "visit|session|ses|timepoint|time|tp|follow[_-]?up|fu|baseline|day|week|month|year|wk|mo|yr"
_SCANS = "scan|study|exam|series|acq|run|rep|repeat|img|image|frame|phase|echo|s|m|y|d|w|r|n"
_MOMENTS = (
    "left|right|lh|rh|(?:pre|post)(?:[_-]?(?:op|surgery|treatment|therapy|rt|contrast))?|baseline|base|bl|follow[_-]?up|fu|before"
    "|after|initial|prior|current|first|second|third|test|retest|repeat|rescan"
)
_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", "(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_MOST_CASES = 30  # of one patient


@dataclass(frozen=True)
class _Token:
    """A kind of token at the end of a case id, and when names alike but for it are likely those of one patient."""

    expression: str  # with the separator before it
    numbered_stems: bool = True  # whether the rest of the name must hold a digit, as the id of a patient does
    fewest_stems: int = 2
    usual_cases: float = _MOST_CASES  # largest median number of cases of one stem
    share: float = 0.0  # smallest share of the cases that have a stem in common
    accepts: Callable[[Sequence[str]], bool] = lambda tokens: True  # those of one stem


def _both_sides(tokens: Sequence[str]) -> bool:
    return len({token.lstrip(_SEPARATORS)[:1].casefold() for token in tokens} - {""}) == 2


def _from_a_on(tokens: Sequence[str]) -> bool:
    """Return whether letters are a, b, c, ..., where the first may be left out."""
    letters = sorted(token.lstrip(_SEPARATORS).casefold() for token in tokens)
    return letters in (list("abcd"[: len(letters)]), ["", *"bcd"[: len(letters) - 1]])


_TOKENS = (
    _Token(
        rf"(?:(?:{_SEPARATOR}|(?<=\d))(?i:{_VISITS}){_SEPARATOR}?\d{{1,4}}|{_SEPARATOR}(?i:{_MOMENTS}|[vt]\d{{1,3}}))+",
        numbered_stems=False,
    ),
    _Token(rf"(?:{_SEPARATOR}(?i:lt|rt|l|r)|(?<=\d)[LR])", numbered_stems=False, accepts=_both_sides),
    _Token(rf"{_SEPARATOR}(?i:{_MOMENTS}|[dwmy]\d{{1,3}})"),
    _Token(r"(?<=\d)[VvTt]\d{1,3}", share=0.5),
    _Token(rf"{_SEPARATOR}{_YEAR}[-_.]?{_MONTH}[-_.]?{_DAY}(?:[T_-]?\d{{4,6}})?"),
    _Token(rf"{_SEPARATOR}{_DAY}[-_.]?{_MONTH}[-_.]?{_YEAR}"),
    _Token(
        rf"{_SEPARATOR}(?:{_YEAR}[-_.]?{_MONTH}[-_.]?{_DAY}|{_DAY}[-_.]?{_MONTH}[-_.]?{_YEAR})",
        numbered_stems=False,
        usual_cases=6,  # of names such as anna_20190301; more are of a hospital
    ),
    _Token(rf"{_SEPARATOR}(?i:{_SCANS})[_-]?\d{{1,4}}", usual_cases=6, share=0.1),
    _Token(rf"(?:{_SEPARATOR}|(?<=\d))[A-Da-d]", usual_cases=4, share=0.1, accepts=_from_a_on),
    _Token(rf"{_SEPARATOR}\d{{1,3}}", fewest_stems=3, usual_cases=4, share=0.1),
)


@dataclass(frozen=True)
class LikelyPatients:
    """Groups of cases, each likely of one patient, and a pattern for the description's `patient` that joins them."""

    pattern: str
    groups: tuple[tuple[Case, ...], ...]

    @property
    def text(self) -> str:
        """The pattern as a line of a description in YAML."""
        return f"patient: '{self.pattern}'"


def find_likely_patients(cases: Iterable[Case], description: Description) -> LikelyPatients | None:
    """Return the cases that are likely of one patient by their ids; None if there are none.

    Names are compared only where nothing says who the patients are: if the description has no pattern and every
    patient is named as the case. Ids such as liver_0, case_001 and BraTS2021_00000 are numbered cases of as many
    patients.
    """
    known = [case for case in cases if case.split != "unlabelled"]
    if description.patient or any(case.patient != case.id for case in known):
        return None
    ids = sorted(case.id for case in known)
    ending = _common_ending(ids)
    names, shapes = {each.removesuffix(ending) for each in ids}, []
    left = list(_TOKENS)
    while found := next(((each, groups) for each in left if (groups := _shared(each, names))), None):
        token, groups = found
        left.remove(token)
        shapes += [_shape_of(each) for tokens in groups.values() for each in tokens if each]
        names = {_split(token, each)[0] for each in names}
    if not shapes:
        return None
    pattern = f"^(.+?)(?:{'|'.join(dict.fromkeys(shapes))})*{_escape(ending)}$"
    cases_of: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(known, key=lambda case: case.id):
        if match := re.search(pattern, case.id):
            cases_of[match[1]].append(case)
    return LikelyPatients(pattern, tuple(tuple(each) for each in cases_of.values() if len(each) > 1))


def _shared(token: _Token, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the tokens of each stem that several names share; none unless they are likely those of one patient."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem, ending = _split(token, name)
        groups[stem].append(ending)
    shared = {stem: sorted(endings) for stem, endings in sorted(groups.items()) if len(endings) > 1}
    sizes = [len(endings) for endings in shared.values()]
    numbered = all(re.search(r"\d", stem) for stem in shared)
    fits = (
        bool(shared)
        and (numbered or not token.numbered_stems)
        and len(groups) >= (1 if numbered and not token.numbered_stems else token.fewest_stems)
        and max(sizes) <= _MOST_CASES
        and median(sizes) <= token.usual_cases
        and sum(sizes) >= token.share * sum(map(len, groups.values()))
        and any(token.accepts(endings) for endings in shared.values())
    )
    return shared if fits else {}


def _split(token: _Token, name: str) -> tuple[str, str]:
    """Return a name's part before the token at its end, and the token; "" if it has none."""
    match = re.search(rf"(?<=.){token.expression}$", name)
    return (name[: match.start()], match[0]) if match else (name, "")


def _shape_of(token: str) -> str:
    r"""Return the expression of tokens such as this one, with other numbers: _visit\d+ for _visit1."""
    numbers = re.sub(
        r"\d+", lambda match: rf"\d{{{len(match[0])}}}" if len(match[0]) > 4 else r"\d+", _escape(token)
    )
    return numbers if re.match(_SEPARATOR, token) else rf"(?<=\d){numbers}"


def _common_ending(names: Sequence[str]) -> str:
    """Return the last part that all names have in common, such as _CT; "" if they have none."""
    endings = {
        match[0] if (match := re.search(r"(?<=.)[_-][A-Za-z][A-Za-z0-9]*$", name)) else "" for name in names
    }
    return endings.pop() if len(endings) == 1 else ""


def _escape(text: str) -> str:
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)
