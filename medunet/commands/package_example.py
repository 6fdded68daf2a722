"""The example of a package: a given scan without its file's texts, or a synthetic one that the model takes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.markup import escape

from medunet.base.errors import DataError, InputError
from medunet.commands.terminal import console
from medunet.dataset.checks.scan_checks import CheckedScan
from medunet.imaging.nifti import write_volume
from medunet.imaging.volumes import read_channels
from medunet.phantoms.example import example_kinds
from medunet.records.model_card import ModelCard

_NUM_EXAMPLES = 3  # that labels in half precision are compared on


def given_example(files: Sequence[Path], card: ModelCard, work: Path) -> tuple[list[Path], str]:
    """Write a given scan below `work`, without its file's name and header texts; return it, and what it is.

    `files` are one with all channels, or one for each channel in the model's order.

    Raises:
        InputError: it is another number of files.
        DataError: they cannot be read, or are on different grids.
    """
    channels = card.description.channels
    if len(files) not in (1, len(channels)):
        raise InputError(
            f"{len(files)} files for the model's channels {', '.join(channels)}",
            where="--example",
            hint="Give one file with all channels, or one for each in this order.",
        )
    paths = [*files] * len(channels) if len(files) == 1 else [*files]
    volume = read_channels(paths)
    image = np.moveaxis(volume.array, 0, -1)
    if volume.header.is_picture and not (image == image.astype(np.uint8)).all():
        raise InputError("a picture needs 8 bits", where="--example", hint="Save it as an 8-bit PNG.")
    is_whole = bool((image == np.rint(image)).all() and image.min() >= -32768 and image.max() <= 32767)
    if is_whole:
        image = image.astype(np.int16)
    path = _write_scan(work / "given", image, volume.affine, is_picture=volume.header.is_picture)
    return [path], "a real scan"


def make_examples(card: ModelCard, work: Path) -> tuple[list[Path], str]:
    """Write synthetic scans of the first kind that a model does not refuse; return them, and what they are.

    Raises:
        InputError: it refuses every kind.
    """
    description, plan = card.description, card.plan
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
        path = stem.with_name(f"{stem.name}.png")
        Image.fromarray(np.ascontiguousarray(image[:, :, 0].swapaxes(0, 1), np.uint8)).save(path)
        return path
    path = stem.with_name(f"{stem.name}.nii.gz")
    write_volume(path, image, affine)
    return path
