"""`medunet manifest`: list the cases of a dataset, given by a description or by a folder or CSV to be recognised."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.markup import escape

from medunet.base.errors import InputError
from medunet.base.files import write_text
from medunet.base.words import list_some
from medunet.commands.alone import alone
from medunet.commands.terminal import console, print_stage
from medunet.dataset.checks.acceptance import with_accepted
from medunet.dataset.checks.duplicates import part_of
from medunet.dataset.layouts.datalists import has_cases
from medunet.dataset.layouts.detection import recognise
from medunet.dataset.layouts.nnunet import find_splits
from medunet.dataset.likely_patients import find_likely_patients
from medunet.dataset.manifest import make_manifest
from medunet.dataset.structure_masks import MERGE_FIRST, describe_structures
from medunet.records.description import Description, descriptions_folder, load_description
from medunet.records.manifest import Manifest
from medunet.runs.computing import require_one_process
from medunet.runs.run import Run

_MAX_NAMES = 8


@alone("manifest")
def run_manifest(run: Run) -> Manifest:
    """List the cases below the data root with folds and write the manifest; accepted faults stay accepted.

    Nothing is written before all has succeeded.
    """
    require_one_process()
    config = run.config
    manifest = make_manifest(
        run.read_description(),
        run.data_root,
        seed=config.seed,
        folds=run.read_folds(),
        holdout=config.holdout,
        test_share=config.test_share,
        test_names=run.read_test_names(),
        stratify=config.stratify,
        exclude=config.exclude,
    )
    if run.folder.manifest.exists():
        manifest = with_accepted(manifest, Manifest.read(run.folder.manifest).accepted)
    run.save(manifest)
    num_tests = sum(case.split == "test" for case in manifest.used)
    tests = f", {num_tests} in the test set" if num_tests else ""
    print_stage(
        "Manifest", f"{len(manifest.used)} cases in {manifest.num_folds} folds{tests}", run.folder.manifest
    )
    for item in manifest.unmatched:
        console.print(f"  [yellow]unmatched[/] {escape(item.path)}: {escape(item.reason)}", highlight=False)
    for line in _list_doubts(manifest):
        console.print(f"  [yellow]look[/] {escape(line)}", highlight=False, soft_wrap=True)
    return manifest


def _list_doubts(manifest: Manifest) -> Iterator[str]:
    """Yield what a user should know of the cases: unlabelled ones, and names that speak for other patients."""
    cases, description = manifest.used, manifest.description
    unlabelled = [case.id for case in cases if case.split == "unlabelled"]
    if len(unlabelled) < len(cases) and unlabelled:
        yield f"{len(unlabelled)} cases without a label are not trained on: {list_some(unlabelled, _MAX_NAMES)}"
    if len(unlabelled) == len(cases):
        files = [item.path for item in manifest.unmatched]
        files += [path for case in manifest.cases for path in case.images.values()]
        if structures := describe_structures(files):
            yield f"the folder {structures}. {MERGE_FIRST}"
    own = [case.id for case in cases if case.patient == case.id and description.patient]
    fitting = {name for name in own if (match := re.search(description.patient, name)) and match[1]}
    unknown = [name for name in own if name not in fitting]
    if unknown:
        yield (
            f"the pattern of patients, {description.patient!r}, does not fit {len(unknown)} case ids, whose patients "
            f"are named as the case: {list_some(unknown, _MAX_NAMES)}"
        )
    lone = [case.id for case in cases if case.patient == case.id]
    if not description.patient and 0 < len(lone) < len(cases):
        yield (
            f"{len(lone)} cases have no patient in the list, or one of their name, and are patients of their own: "
            f"{list_some(lone, _MAX_NAMES)}"
        )
    if likely := find_likely_patients(cases, description):
        spread = sum(len({part_of(case) for case in group}) > 1 for group in likely.groups)
        folds = f"{spread} of these are in several folds" if spread else "none of these is in several folds"
        yield (
            f"{len(likely.groups)} patients seem to have several cases, such as "
            f"{list_some([case.id for case in likely.groups[0]])}; {folds}. If they are the same patients, add "
            f"{shlex.quote(f'--patient={likely.pattern}')} or write {likely.text} in the description (YAML); if each "
            "case is a patient of its own, '(.+)'."
        )


def run_recognise(place: Path, data_root: Path) -> Description:
    """Recognise the layout of a folder or of a CSV of cases, print it with the evidence, and return its description.

    Raises:
        InputError: The layout is not recognised or ambiguous.
    """
    folder = descriptions_folder()
    shipped = [load_description(path.stem) for path in sorted(folder.glob("*.yaml"))]
    found = recognise(place, data_root, shipped)
    channels = ", ".join(
        f"{name} ({channel.modality})" for name, channel in found.description.channels.items()
    )
    named = [f"{name} {value}" for name, value in found.description.labels.items() if value]
    labels = list_some(named, 12)
    if found.description.regions:
        labels += "; regions " + ", ".join(
            f"{name} ({' + '.join(parts)})" for name, parts in found.description.regions.items()
        )
    console.print(f"[bold]Recognised[/]: {escape(found.what)}", highlight=False)
    for head, text in (
        ("because", found.evidence),
        ("channels", channels),
        ("labels", labels),
        ("left out", "; ".join(found.left_out) or "nothing"),
        *(("note", note) for note in found.notes),
    ):
        console.print(f"  [dim]{head}[/] {escape(text)}", highlight=False, soft_wrap=True)
    return found.description


def with_patients(description: Description, pattern: str) -> Description:
    """Return a description with another pattern of patients, a regular expression whose only group is the patient.

    Raises:
        InputError: It is no regular expression, or does not have one group.
    """
    return Description.parse({**description.to_dict(), "patient": pattern}, where="--patient")


def find_dataset_path(dataset: str) -> Path | None:
    """Return the path of a dataset given as a folder or list of cases; None for the name or file of a description.

    Raises:
        InputError: It does not exist, or it is another kind of file.
    """
    names = sorted(path.stem for path in descriptions_folder().glob("*.yaml"))
    if dataset in names:
        return None
    place, ending = Path(dataset), Path(dataset).suffix.lower()
    if not place.exists():
        raise InputError(
            f"'{dataset}' is neither a dataset description nor an existing folder or file",
            hint=f"Give an existing folder, CSV or YAML file, or one of: {', '.join(names)}.",
        )
    if place.is_file() and ending not in (".csv", ".tsv", ".yaml", ".yml", ".json"):
        raise InputError(
            "is not a folder, CSV or description",
            where=place.name,
            hint="Give the folder of the dataset, or a CSV or datalist (JSON) of its cases.",
        )
    listed = ending in (".csv", ".tsv") or (ending == ".json" and has_cases(place))
    return place if place.is_dir() or listed else None


def find_folds(place: Path) -> Path | None:
    """Return the file of fixed folds that nnU-Net made for a raw dataset, and print it; None if there is none."""
    splits = find_splits(place) if place.is_dir() else None
    if splits is not None:
        text = f"{splits.parent.name}/{splits.name}; choose others with --folds-file or --set holdout=0.2"
        console.print(f"  [dim]folds[/] {escape(text)}", highlight=False, soft_wrap=True)
    return splits


def require_new_yaml(path: Path) -> None:
    """Check that a description can be written to a file.

    Raises:
        InputError: The file exists, or does not end in .yaml or .yml.
    """
    if path.exists() or path.suffix not in (".yaml", ".yml"):
        what = "already exists" if path.exists() else "does not end in .yaml or .yml"
        raise InputError(what, where=f"--describe {path}", hint="Give a new FILE.yaml.")


def write_description(description: Description, path: Path) -> None:
    """Write a description to a YAML file that the user can edit."""
    plain = description.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    write_text(path, yaml.safe_dump({"schema": description.schema_, **plain}, sort_keys=False))
    print_stage("Description", "edit the names in this file", path)
