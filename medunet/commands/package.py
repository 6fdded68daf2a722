"""`medunet package`: write one or more trained models as one ZIP for others, with licences, a card and an example."""

import csv
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape

from medunet import __version__
from medunet.base.errors import DataError, InputError
from medunet.base.files import hash_file, write_json, write_text
from medunet.base.zips import write_zip
from medunet.commands.terminal import console, print_stage
from medunet.records.config import load_config
from medunet.records.model_card import ModelCard
from medunet.records.package import CARD_FILE, PACKAGE_FILE, PACKAGE_NAME, Member, Package
from medunet.records.run_folder import RunFolder
from medunet.runs.computing import require_one_process
from medunet.runs.packages import describe_difference, read_package
from medunet.runs.run import first_trained_fold

if TYPE_CHECKING:
    from medunet.inference.half_weights import Stored
    from medunet.reporting.model_card import RunScores

_NUM_EXAMPLES = 3  # that labels in half precision are compared on


@dataclass(frozen=True)
class _Source:
    """A model folder that is packaged, and the run that it is of, if it lies in one."""

    folder: Path
    card: ModelCard
    run: RunFolder | None

    @classmethod
    def of(cls, folder: Path) -> "_Source":
        """Read a model folder.

        Raises:
            InputError: it holds no model card that can be read.
        """
        card = ModelCard.read(folder / "model.json")
        parents = folder.resolve().parents
        is_in_run = len(parents) > 2 and parents[1].name == "folds" and (parents[2] / "config.yaml").is_file()
        return cls(folder, card, RunFolder(parents[2]) if is_in_run else None)

    @property
    def used_sha256(self) -> str:
        """SHA-256 of the weights in use."""
        return self.card.sha256_of(self.card.inference.weights or "best")

    @property
    def seed(self) -> int | None:
        return load_config(self.run.config).seed if self.run else None

    def read_length(self) -> dict[str, int]:
        """Return for how many epochs and steps the fold was trained, by its table; empty if there is none."""
        path = self.run.fold(self.card.fold) / "training.csv" if self.run else None
        if path is None or not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as stream:
            last = list(csv.DictReader(stream))[-1:]
        return {"epochs": int(row["epoch"]) + 1, "steps": int(row["step"])} if (row := dict(*last)) else {}


def run_package(
    sources: Sequence[Path],
    out: Path,
    *,
    fold: str | None = None,
    weights_licence: str = "",
    data_licence: str = "",
    attribution: str = "",
    example: Sequence[Path] = (),
) -> Package:
    """Write a package of the models of runs, or of model folders; each is a member.

    Of a run, `fold` is a fold, or "each" for all that are trained; None: the first trained one. The example is a
    synthetic scan, unless files are given: one with all channels, or one for each channel in the model's order.

    Raises:
        InputError: licences are not stated, the name or the place cannot be used, or models are missing or do not
            belong together; the message lists all of it.
        DataError: the model refuses the example.
    """
    require_one_process()
    members, faults = _read_sources(sources, fold)
    faults += _faults_of_options(out, weights_licence, data_licence, members)
    if faults:
        raise InputError(
            "; ".join(faults),
            where="medunet package",
            hint="Licences are such as --weights-licence CC-BY-4.0 --data-licence 'CC-BY-SA-4.0, MSD Task04'.",
        )
    from medunet.inference.half_weights import store_model
    from medunet.reporting.model_card import write_model_card

    with tempfile.TemporaryDirectory() as temporary:
        work, packed = Path(temporary) / "work", Path(temporary) / "package"
        packed.mkdir()
        examples, what = (
            _given_example(example, members[0], work) if example else _make_examples(members[0], work)
        )
        kept = packed / f"example{'.png' if examples[0].suffix == '.png' else '.nii.gz'}"
        kept.write_bytes(examples[0].read_bytes())
        listed = []
        for number, source in enumerate(members):
            folder = f"members/{number}"
            stored = store_model(source.folder, packed / folder, [[path] for path in examples])
            _print_stored(folder, source, stored, len(examples))
            listed.append(_describe(source, folder, stored))
        description = members[0].card.description
        hashes = {
            path.relative_to(packed).as_posix(): hash_file(path)
            for path in packed.rglob("*")
            if path.is_file()
        }
        package = Package(
            name=out.stem,
            title=description.title,
            medunet_version=__version__,
            weights_licence=weights_licence,
            data_licence=data_licence,
            attribution=attribution,
            channels={name: channel.modality for name, channel in description.channels.items()},
            targets=tuple(description.targets),
            members=tuple(listed),
            example=kept.name,
            files={**hashes, CARD_FILE: "0" * 64},
        )
        cards = {each.folder: ModelCard.read(packed / each.folder / "model.json") for each in listed}
        write_text(packed / CARD_FILE, write_model_card(package, cards, _read_scores(members), what))
        hashes[CARD_FILE] = hash_file(packed / CARD_FILE)
        package = package.model_copy(update={"files": dict(sorted(hashes.items()))})
        write_json(packed / PACKAGE_FILE, package.to_dict())
        write_zip(out, packed)
    count = len(listed)
    text = f"{package.name}, {count} member{'s' * (count != 1)}, {out.stat().st_size / 1e6:.1f} MB"
    print_stage("Package", text, out)
    return package


def _read_sources(sources: Sequence[Path], fold: str | None) -> tuple[list[_Source], list[str]]:
    """Return the members, and what is wrong with the sources."""
    members: list[_Source] = []
    faults = []
    for source in sources:
        try:
            members += [_Source.of(folder) for folder in _folders_of(source, fold)]
        except InputError as error:
            faults.append(f"{error.where}: {error.what}" if error.where else error.what)
    different = describe_difference({str(each.folder): each.card for each in members}) if members else ""
    return members, faults + ([different] if different else [])


def _folders_of(source: Path, fold: str | None) -> list[Path]:
    if (source / "model.json").is_file():
        if fold is not None:
            raise InputError("is a model folder, which has no folds: leave --fold out", where=str(source))
        return [source]
    run = RunFolder(source)
    names = [path.parts[-3] for path in source.glob("folds/*/model/model.json")]
    if not names:
        raise InputError("holds no model.json, and no trained fold", where=str(source))
    if fold == "each":
        numbered = sorted((name for name in names if name.isdigit()), key=int)
        return [run.model(name) for name in numbered or names]
    chosen = fold or first_trained_fold(run)
    if chosen not in names:
        raise InputError(f"fold {chosen} is not trained", where=str(source))
    if fold is None and len(names) > 1:
        console.print(f"Fold {chosen} of {len(names)} is packaged: --fold each takes all.", highlight=False)
    return [run.model(chosen)]


def _faults_of_options(
    out: Path, weights_licence: str, data_licence: str, members: Sequence[_Source]
) -> list[str]:
    faults = []
    if not weights_licence.strip():
        faults.append("the licence of the weights is not stated (--weights-licence)")
    if not data_licence.strip():
        known = members[0].card.description.licence if members else ""
        told = f"; the dataset's description says {known}" if known else ""
        faults.append(f"the licence of the data is not stated (--data-licence{told})")
    if out.suffix != ".zip" or not re.fullmatch(PACKAGE_NAME, out.stem):
        faults.append(f"--out {out.name} is not NAME.zip, with a name of letters, digits, -, _ and .")
    if out.exists():
        try:
            read_package(out)
        except (DataError, OSError):
            faults.append(f"--out {out.name} exists and is no packaged model")
    return faults


def _given_example(files: Sequence[Path], source: _Source, work: Path) -> tuple[list[Path], str]:
    """Write the given scan without its file's name and header texts."""
    from medunet.imaging.volumes import read_channels

    channels = source.card.description.channels
    if len(files) not in (1, len(channels)):
        raise InputError(
            f"{len(files)} files for the model's channels {', '.join(channels)}",
            where="--example",
            hint="Give one file with all channels, or one for each in this order.",
        )
    paths = [*files] * len(channels) if len(files) == 1 else [*files]
    volume = read_channels(paths)
    image = np.moveaxis(volume.array, 0, -1)
    is_whole = bool((image == np.rint(image)).all() and image.min() >= -32768 and image.max() <= 32767)
    if is_whole:
        image = image.astype(np.uint8 if volume.header.is_picture and image.max() <= 255 else np.int16)
    path = _write_scan(work / "given", image, volume.affine, is_picture=volume.header.is_picture)
    return [path], "a real scan"


def _make_examples(source: _Source, work: Path) -> tuple[list[Path], str]:
    """Write synthetic scans of the first kind that the model does not refuse; return them, and what they are."""
    from medunet.dataset.checks.scan_checks import CheckedScan
    from medunet.phantoms.example import example_kinds

    description, plan = source.card.description, source.card.plan
    for number, (what, make) in enumerate(example_kinds(description, plan).items()):
        paths = []
        for seed in range(_NUM_EXAMPLES):
            image, affine = make(seed)
            stem = work / f"{number}_{seed}"
            paths.append(_write_scan(stem, image, affine, is_picture=description.layout == "png"))
            images = [paths[-1]] * len(description.channels)
            try:
                CheckedScan("example", images, description, plan.fingerprint).read()
            except DataError as error:
                console.print(
                    f"  {what} is no example: {escape(str(error))}", highlight=False, soft_wrap=True
                )
                break
        else:
            return paths, what
    raise InputError(
        "the model refuses every synthetic scan", where="example", hint="Give a real one: --example FILE."
    )


def _write_scan(stem: Path, image: np.ndarray, affine: np.ndarray, *, is_picture: bool) -> Path:
    """Write a scan `(I, J, K)` or `(I, J, K, C)`."""
    stem.parent.mkdir(exist_ok=True)
    image = image[..., 0] if image.ndim == 4 and image.shape[3] == 1 else image
    if is_picture:
        from PIL import Image

        path = stem.with_name(f"{stem.name}.png")
        Image.fromarray(np.ascontiguousarray(image[:, :, 0].swapaxes(0, 1), np.uint8)).save(path)
        return path
    from medunet.imaging.nifti import write_volume

    path = stem.with_name(f"{stem.name}.nii.gz")
    write_volume(path, image, affine)
    return path


def _describe(source: _Source, folder: str, stored: "Stored") -> Member:
    return Member(
        folder=folder,
        fold=source.card.fold,
        seed=source.seed,
        num_training_cases=len(source.card.training_cases) or None,
        **source.read_length(),
        weights=stored.weights,
        precision=stored.precision,
        medunet_version=source.card.medunet_version,
    )


def _print_stored(folder: str, source: _Source, stored: "Stored", num_examples: int) -> None:
    decided = stored.num_voxels - stored.num_close
    if stored.precision == "fp16":
        text = f"in half precision: the same label in all of {decided:,} voxels of {num_examples} example scan(s)"
    elif stored.num_voxels:
        text = f"in fp32: in half precision {stored.num_different:,} of {decided:,} voxels have another label"
    else:
        text = "in fp32: weights are beyond half precision"
    console.print(
        f"  {folder}: fold {escape(str(source.card.fold))}, {stored.weights} weights, {text}",
        highlight=False,
        soft_wrap=True,
    )


def _read_scores(members: Sequence[_Source]) -> "list[RunScores]":
    """Read the scores of the members' runs, each run once; scores of other weights are left out, with a line."""
    from medunet.reporting.model_card import RunScores
    from medunet.scoring.predicted import read_index_cases
    from medunet.scoring.scores_json import read_scores_json

    found = []
    for root in dict.fromkeys(source.run.root for source in members if source.run):
        run, ours = RunFolder(root), [each for each in members if each.run and each.run.root == root]
        path = root / "scores.json"
        if not path.is_file():
            continue
        scores = read_scores_json(path)
        used = {str(each.card.fold): each.used_sha256 for each in ours}
        rows = read_index_cases(run.predictions).values()
        predicted = [row for row in rows if str(row.get("fold")) in used and "model_sha256" in row]
        trouble = ""
        if not scores.summaries or math.isnan(scores.mean_dice):
            trouble = "hold no summary"
        elif not predicted or any(row["model_sha256"] != used[str(row["fold"])] for row in predicted):
            trouble = "are not known to be of these weights"
        if trouble:
            text = f"the scores of {root.name} {trouble}, and are left out: score the run again"
            console.print(f"  [yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)
            continue
        found.append(RunScores(scores, ours[0].seed))
    return found
