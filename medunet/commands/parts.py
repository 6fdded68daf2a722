"""Which cases one `medunet predict` takes: a part of all, for jobs that share them, or those that none has done."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.commands.terminal import console
from medunet.records.mask_journal import read_mask_index
from medunet.records.model_card import ModelCard

if TYPE_CHECKING:
    from medunet.inference.scan import Scan

_PART = re.compile(r"(all|[0-9]+)/([0-9]+)")


def part_of(case: str, num_parts: int) -> int:
    """Return the part of a case, from 1 to `num_parts`.

    It is one more than a remainder: of the first eight bytes of the SHA-256 of the case's id in UTF-8, most
    significant first, divided by `num_parts`. So it depends on no other case, nor on the computer.
    """
    digest = hashlib.sha256(case.encode()).digest()
    return int.from_bytes(digest[:8], "big") % num_parts + 1


@dataclass(frozen=True)
class CaseChoice:
    """Which cases are predicted: of one part of them, or of those that are missing, or both; by default all."""

    part: int | None = None  # from 1 to num_parts; None: all parts
    num_parts: int | None = None
    missing: bool = False  # those alone without a mask, by the index beside the masks; they are named
    dry_run: bool = False  # predict none of them

    @classmethod
    def parse(cls, part: str | None, *, missing: bool = False, dry_run: bool = False) -> "CaseChoice":
        """Read the options of the command line.

        Args:
            part: such as 2/8; or all/8, which only names the parts of missing cases.
            missing: see above.
            dry_run: see above.

        Raises:
            InputError: it is no part, or an option is given that would be ignored.
        """
        if dry_run and not missing:
            raise InputError("only names what is missing", where="--dry-run", hint="Add --missing.")
        if part is None:
            return cls(missing=missing, dry_run=dry_run)
        match = _PART.fullmatch(part)
        num_parts = int(match[2]) if match else 0
        number = None if match is None or match[1] == "all" else int(match[1])
        if match is None or num_parts < 1 or (number is not None and not 1 <= number <= num_parts):
            raise InputError(
                f"'{part}' is no part",
                where="--part",
                hint="Write I/N with I from 1 to N, such as 2/8. The tasks of a Slurm array have I as "
                "SLURM_ARRAY_TASK_ID, if the array begins with 1.",
            )
        if number is None and not missing:
            raise InputError(
                f"'{part}' only says which parts missing cases belong to",
                where="--part",
                hint="Add --missing, or leave --part out to predict all cases.",
            )
        return cls(number, num_parts, missing, dry_run)

    @property
    def is_all(self) -> bool:
        """Whether all cases are predicted."""
        return not (self.part or self.missing)

    def choose(
        self,
        scans: Sequence["Scan"],
        folder: Path,
        models: Iterable[Path],
        maps: Collection[str] = (),
        *,
        fold: int | str | None = None,
    ) -> tuple[list["Scan"], dict[str, str]]:
        """Return the scans that are chosen and, of `missing`, why each is; print how many they are.

        What is missing is told from the index, the masks' names and the model cards, so that no scan is read: other
        weights are noticed, changed scans and other options are not.

        Args:
            scans: all scans.
            folder: of the masks.
            models: folders of the models that predict.
            maps: that are asked for beside the masks.
            fold: whose cases they are, for the lines that are printed.
        """
        chosen, of_fold = list(scans), "" if fold is None else f" of fold {fold}"
        if self.part:
            assert self.num_parts is not None
            chosen = [scan for scan in scans if part_of(scan.case, self.num_parts) == self.part]
            _print(f"part {self.part} of {self.num_parts}", f"{len(chosen)} of {len(scans)} cases{of_fold}")
        if not self.missing:
            return chosen, {}
        why = _why_missing(chosen, folder, [ModelCard.read(model / "model.json") for model in models], maps)
        for case, reason in why.items():
            part = f" (part {part_of(case, self.num_parts)})" if self.num_parts else ""
            _print("missing", f"{case}{part}: {reason}")
        _print("missing", f"{len(why)} of {len(chosen)} cases{of_fold}")
        return [scan for scan in chosen if scan.case in why], why

    def print_parts(self, missing: Collection[str]) -> None:
        """Print which parts missing cases belong to, as `sbatch --array` takes them, if they are numbered."""
        if self.missing and self.num_parts and missing:
            numbers = sorted({part_of(case, self.num_parts) for case in missing})
            text = f"{','.join(map(str, numbers))} of {self.num_parts} have missing cases"
            _print("part" if len(numbers) == 1 else "parts", text)


ALL_CASES = CaseChoice()


def _why_missing(
    scans: Sequence["Scan"], folder: Path, cards: Sequence[ModelCard], maps: Collection[str]
) -> dict[str, str]:
    """Return the reason of every case without a finished mask of these networks."""
    index = read_mask_index(folder)
    entries, failed = index.get("cases", {}), index.get("failed", {})
    reasons = {}
    for scan in scans:
        entry = entries.get(scan.case, {})
        if "image_sha256" in entry:
            has_mask = (folder / scan.mask_name).exists()
            reason = _why_again(entry, cards, maps) if has_mask else "its mask was removed"
        elif scan.case in failed:
            reason = f"failed: {failed[scan.case]}"
        else:
            reason = "begun, but not finished" if entry else "not done"
        if reason:
            reasons[scan.case] = reason
    return reasons


def _why_again(entry: Mapping[str, Any], cards: Sequence[ModelCard], maps: Collection[str]) -> str:
    """Return why a mask is none of these networks with these maps; "" if it is."""
    used = {each.get("model_sha256") for each in (entry, *entry.get("members", ()))} - {None}
    networks = [{card.weights_sha256, card.final_weights_sha256} - {""} for card in cards]
    if not used <= set().union(*networks) or not all(each & used for each in networks):
        return "its mask is of other weights"
    absent = sorted({*maps} - {*entry.get("maps", ())})
    return f"no map of {', '.join(absent)}" if absent else ""


def _print(word: str, text: str) -> None:
    console.print(f"  [yellow]{word}[/] {escape(text)}", highlight=False, soft_wrap=True)
