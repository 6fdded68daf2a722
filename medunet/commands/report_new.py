"""The pages of new scans, which `medunet predict --report` writes beside their masks, or `medunet report` later."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.base.files import read_json_object
from medunet.base.words import list_some
from medunet.commands.terminal import console, print_report
from medunet.records.config import Config, load_config
from medunet.records.data_root import resolve_data_root
from medunet.records.description import Description
from medunet.records.manifest import Manifest
from medunet.records.run_folder import RunFolder
from medunet.runs.members import find_members

if TYPE_CHECKING:
    from medunet.inference.scan import Scan

_MOST_NAMES = 20
_NOT_GIVEN = "the scan is not among those given"
_ANOTHER = "the scan is not the one that was predicted: its file has changed since"


def report_scans(
    scans: Sequence["Scan"],
    description: Description,
    out: Path,
    failed: Mapping[str, str],
    model: Path | None,
) -> Path:
    """Write the pages of scans predicted into a folder, and return the path of their list.

    Thresholds and lesions are those of the run that `model` names; the model of no run has the defaults.

    Raises:
        InputError: the run's configuration cannot be read.
    """
    from medunet.reporting.new_scans import NewScan, report_new_scans

    config = RunFolder(model).config if model is not None else None
    own: Config | None = load_config(config) if config is not None and config.exists() else None
    index = report_new_scans(
        [
            NewScan(scan.case, scan.images, out / scan.mask_name if scan.images else out, scan.resample)
            for scan in scans
        ],
        description,
        out,
        failed=failed,
        settings=own.report if own else None,
        lesion_rules=own.scoring.lesions if own else None,
    )
    print_report(index)
    return index


def is_mask_folder(folder: Path) -> bool:
    """Return whether `medunet predict --out` wrote a folder; a run has its masks in a folder below its own."""
    return (folder / "index.json").exists() and not RunFolder(folder).config.exists()


def report_mask_folder(
    masks: Path, model: Path | None, images: Sequence[Path], data_root: Path | None = None
) -> Path:
    """Write the pages of scans that were predicted into a folder before, as `predict --report` does; return the list.

    A predicted scan that is not given, or is not the one that was predicted, has a page that says so. Scans that were
    not predicted are named on the console.

    Args:
        masks: the folder, with its index.json.
        model: run or model that predicted them; its description says what the channels and targets are.
        images: the scans, as they were given to `medunet predict`.
        data_root: folder that the paths of a manifest are relative to.

    Raises:
        InputError: model or scans are not given, the masks are of another model, or none of their scans is given.
    """
    if model is None or not images:
        raise InputError(
            "a folder of masks does not tell what predicted them, nor where their scans are",
            where=str(masks),
            hint="Add --model RUN and --images SCANS, as they were given to `medunet predict`.",
        )
    from medunet.commands.predict import print_left_out, require_same_channels, scans_of
    from medunet.imaging.volumes import share_grid
    from medunet.inference.given_scans import find_scans
    from medunet.inference.mask_index import hash_images
    from medunet.inference.model_folder import read_card
    from medunet.inference.scan import Scan

    index = read_json_object(masks / "index.json")
    card = read_card(find_members(model, None)[0])
    if index.get("targets") != {name: list(values) for name, values in card.description.targets.items()}:
        raise InputError(
            f"holds masks of {list(index.get('targets', {}))}, but this model segments "
            f"{list(card.description.targets)}",
            where=str(masks),
            hint="Give the model that predicted them with --model.",
        )
    if len(images) == 1 and images[0].suffix == ".json":
        listed = Manifest.read(images[0])
        require_same_channels(card.description, listed.description)
        given = scans_of(listed.used, listed, resolve_data_root(data_root))
    else:
        found = find_scans(images, card)
        given = found.scans
        print_left_out(found.left_out, found.notes)
    by_case = {scan.case: scan for scan in given}
    failed = dict(index.get("failed", {}))
    predicted = index.get("cases", {})
    cases = sorted({*predicted, *failed})
    if not any(case in by_case for case in cases):
        raise InputError(
            f"none of the predicted cases ({list_some(cases or ['none'], _MOST_NAMES)}) is among the scans "
            f"({list_some(list(by_case), _MOST_NAMES)})",
            where="--images",
            hint="Give the scans that were predicted into this folder.",
        )
    scans = []
    for case in cases:
        scan = by_case.pop(case, None) or Scan(case, [], trouble=_NOT_GIVEN)
        if case not in failed:
            if not scan.trouble and hash_images(scan.images) != predicted[case]["image_sha256"]:
                scan = Scan(case, scan.images, trouble=_ANOTHER)
            if scan.trouble:
                failed[case] = scan.trouble
            elif not share_grid(scan.images):
                scan = Scan(case, scan.images, resample=True)  # it could not have been predicted otherwise
        scans.append(scan)
    if by_case:
        text = f"{list_some(list(by_case), _MOST_NAMES)}: not predicted into this folder"
        console.print(f"  [yellow]left out[/] {escape(text)}", highlight=False, soft_wrap=True)
    return report_scans(scans, card.description, masks, failed, model)
