"""`medunet package`: write one or more trained models as one ZIP for others, with licences, a card and an example."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from medunet import __version__
from medunet.base.errors import DataError, InputError
from medunet.base.files import hash_file, write_json, write_text
from medunet.base.zips import write_zip
from medunet.commands.package_scores import read_own_scores, read_recipe_scores
from medunet.commands.terminal import console, print_stage
from medunet.records.model_card import ModelCard
from medunet.records.package import CARD_FILE, PACKAGE_FILE, PACKAGE_NAME, Member, Package
from medunet.runs.computing import require_one_process
from medunet.runs.model_source import ModelSource, read_sources
from medunet.runs.packages import read_package

if TYPE_CHECKING:
    from medunet.inference.half_weights import Stored


def run_package(
    sources: Sequence[Path],
    out: Path,
    *,
    fold: str | None = None,
    weights_licence: str = "",
    data_licence: str = "",
    attribution: str = "",
    example: Sequence[Path] = (),
    scores_of: Path | None = None,
) -> Package:
    """Write a package of the models of runs, or of model folders; each is a member.

    Of a run, `fold` is a fold, or "each" for all that are trained; None: the first trained one. The example is a
    synthetic scan, unless files are given: one with all channels, or one for each channel in the model's order.
    `scores_of` is a run of the same recipe whose scores the card tells; None: the members' own runs.

    Raises:
        InputError: licences are not stated, the name or the place cannot be used, or models are missing or do not
            belong together; the message lists all of it.
        DataError: the model refuses the example.
    """
    require_one_process()
    members, faults = read_sources(sources, fold)
    faults += _faults_of_options(out, weights_licence, data_licence, members)
    if faults:
        raise InputError(
            "; ".join(faults),
            where="medunet package",
            hint="Licences are such as --weights-licence CC-BY-4.0 --data-licence 'CC-BY-SA-4.0, MSD Task04'.",
        )
    scores = read_own_scores(members) if scores_of is None else [read_recipe_scores(scores_of, members)]
    from medunet.commands.package_example import given_example, make_examples
    from medunet.inference.half_weights import store_model
    from medunet.reporting.model_card import write_model_card

    with tempfile.TemporaryDirectory() as temporary:
        work, packed = Path(temporary) / "work", Path(temporary) / "package"
        packed.mkdir()
        examples, what = (
            given_example(example, members[0].card, work) if example else make_examples(members[0].card, work)
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
        write_text(packed / CARD_FILE, write_model_card(package, cards, scores, what))
        hashes[CARD_FILE] = hash_file(packed / CARD_FILE)
        package = package.model_copy(update={"files": dict(sorted(hashes.items()))})
        write_json(packed / PACKAGE_FILE, package.to_dict())
        write_zip(out, packed)
    count = len(listed)
    text = f"{package.name}, {count} member{'s' * (count != 1)}, {out.stat().st_size / 1e6:.1f} MB"
    print_stage("Package", text, out)
    return package


def _faults_of_options(
    out: Path, weights_licence: str, data_licence: str, members: Sequence[ModelSource]
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


def _describe(source: ModelSource, folder: str, stored: "Stored") -> Member:
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


def _print_stored(folder: str, source: ModelSource, stored: "Stored", num_examples: int) -> None:
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
