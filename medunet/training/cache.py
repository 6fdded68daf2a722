"""Preprocessed cases, prepared once: compressed in chunks on disk, and held in memory as far as the limit allows.

The file format is Blosc2's n-dimensional array: a patch reads and unpacks the blocks that it touches and no others,
so that a dataset need not fit in memory.
"""

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console

from medunet import __version__
from medunet.dataset.manifest import case_paths
from medunet.errors import DataError
from medunet.files import hash_value, whole_file
from medunet.plans import Plan
from medunet.progress import track
from medunet.records import Case, Description
from medunet.transforms.chain import preprocess_chain, run_chain
from medunet.transforms.patches import PreparedCase, find_locations

_BLOCK, _CHUNK = 32, 128  # voxels along an axis: what is unpacked at once, and what is stored together
_DECISIVE = (  # what of a plan a preprocessed case depends on
    "dimensions", "orientation", "spacing_mm", "slice_axis", "crop_nonzero", "intensities", "resize_to", "grid",
)  # fmt: skip
_SHARE_OF_FREE = 0.5  # of the free memory, where no limit is given


def prepare_cases(
    cases: Sequence[Case], description: Description, plan: Plan, data_root: Path, cache: Path, *, seed: int
) -> list[PreparedCase]:
    """Preprocess labelled cases into `cache`, in the given order; once for a plan, a file's size and time, a version.

    The arrays of the returned cases lie on disk: `hold_in_memory` loads them.

    Raises:
        DataError: a case cannot be preprocessed; names it.
    """
    _allow_open_files()
    chain = preprocess_chain(plan, with_label=True, instances_as=description.instances_as)
    decided = plan.model_dump(mode="json", include={*_DECISIVE})
    prepared = []
    for case in track(cases, "Preprocess"):
        images, label = case_paths(case, description, data_root)
        assert label is not None, f"{case.id} has no label to train on"
        states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (*images, label)]
        key = hash_value([__version__, decided, description.plain(), case.plain(), states, seed])[:32]
        files = {name: cache / f"{key}_{name}.b2nd" for name in ("image", "label")}
        locations_file = cache / f"{key}_locations.npz"
        if not all(path.exists() for path in (*files.values(), locations_file)):
            try:
                result = run_chain(chain, images, label, resample=case.resample)
            except DataError as error:
                raise DataError(
                    error.what, where=f"case {case.id}: {error.where}", mend=error.mend
                ) from error
            labels = result["label"].as_tensor()[0].numpy().astype(np.uint8)
            found = find_locations(labels, description.targets, (seed, *case.id.encode()))
            _save(files["image"], result["image"].as_tensor().numpy())
            _save(files["label"], labels)
            with whole_file(locations_file, suffix=".npz") as temporary:
                np.savez(temporary, allow_pickle=False, **found)
        with np.load(locations_file) as stored:
            locations = {name: stored[name] for name in stored.files}
        arrays = {name: blosc2.open(str(path), mode="r") for name, path in files.items()}
        prepared.append(PreparedCase(case.id, arrays["image"], arrays["label"], locations))
    return prepared


def hold_in_memory(
    cases: list[PreparedCase], ram_gb: float | None, *, num_processes: int, speaks: bool = True
) -> list[PreparedCase]:
    """Load the cases' arrays if all fit the limit, and say which it was; else leave them on disk.

    `ram_gb` is for all processes on this machine together; None: half of the memory that is free now.
    """
    limit_gb = ram_gb or _SHARE_OF_FREE * psutil.virtual_memory().available / 1e9
    needed_gb = num_processes * ram_needed_gb(cases)
    fits = needed_gb <= limit_gb
    text = f"{len(cases)} preprocessed cases take {needed_gb:.2f} GB of memory"
    if not fits:
        text += f", over the limit of {limit_gb:.2f} GB: patches are read from chunked files on disk"
    Console(stderr=True, quiet=not speaks).print(f"{text}.", highlight=False, soft_wrap=True)
    if not fits:
        return cases
    return [PreparedCase(case.id, case.image[:], case.label[:], case.locations) for case in cases]


def ram_needed_gb(cases: Sequence[PreparedCase]) -> float:
    """Return the memory that the cases' arrays take when loaded, in GB."""
    return (
        sum(
            float(np.prod(array.shape)) * array.dtype.itemsize
            for case in cases
            for array in (case.image, case.label)
        )
        / 1e9
    )


def _allow_open_files() -> None:
    """Raise this process's limit of open files to what the system allows: each case keeps some open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _save(path: Path, array: NDArray[Any]) -> None:
    chunks, blocks = (
        (*array.shape[:-3], *(min(side, n) for n in array.shape[-3:])) for side in (_CHUNK, _BLOCK)
    )
    with whole_file(path, suffix=".b2nd") as temporary:
        temporary.unlink(missing_ok=True)
        blosc2.asarray(
            np.ascontiguousarray(array), chunks=chunks, blocks=blocks, urlpath=str(temporary), mode="w",
            cparams={"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE]},
        )  # fmt: skip
