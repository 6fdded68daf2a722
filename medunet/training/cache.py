"""Preprocessed cases, prepared once: compressed in chunks on disk, and held in memory as far as the limit allows.

Entries that were damaged are made again, and named. Much work is shared by processes; a case that fails in one, or
takes its process with it, is named and stops no other.
"""

import logging
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from medunet import __version__
from medunet.base.errors import DataError, MedunetError
from medunet.base.files import hash_value
from medunet.base.pool import choose_workers, run_parallel
from medunet.base.progress import track
from medunet.compute.device_memory import free_memory_gb
from medunet.imaging.volumes import read_header
from medunet.records.data_root import case_paths
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.records.plan import Plan
from medunet.training.cached_arrays import CachedArray, find_damage, open_entry, write_entry
from medunet.transforms.chain import preprocess_chain, run_chain
from medunet.transforms.patches import PreparedCase, find_locations

_log = logging.getLogger(__name__)
_DECISIVE = (  # what of a plan a preprocessed case depends on
    "dimensions", "orientation", "spacing_mm", "slice_axis", "crop_nonzero", "intensities", "resize_to", "grid",
)  # fmt: skip
_SHARE_OF_FREE = 0.5  # of the free memory, where no limit is given
_SHARE_OF_DISK = 0.8  # of what is left there, for unpacked arrays
_LITTLE_WORK = 300_000_000  # voxels of images and labels: done sooner than two processes start and do it
_BYTES_PER_VOXEL = 24  # at most at once, for each voxel of a case's images and label
_BYTES_PER_PROCESS = 700_000_000  # torch and MONAI
_ABANDONED_S = 3600  # an unfinished file of this age was left by a process that was killed


@dataclass(frozen=True)
class _Job:
    """A case to prepare, its files, and the key of its entry in the cache."""

    case: Case
    images: list[Path]
    label: Path
    key: str


def prepare_cases(
    cases: Sequence[Case], description: Description, plan: Plan, data_root: Path, cache: Path, *, seed: int
) -> list[PreparedCase]:
    """Preprocess labelled cases into `cache`, in the given order; once for a plan, a file's size and time, a version.

    Entries of an earlier call are read through and made again where they are damaged, which a line says. The arrays
    of the returned cases lie on disk: `hold_in_memory` loads them.

    Raises:
        DataError: cases cannot be preprocessed; names each with its reason, after the others are done.
        InputError: the cache cannot be written.
    """
    _remove_abandoned(cache)
    decided = plan.model_dump(mode="json", include={*_DECISIVE})
    jobs = []
    for case in cases:
        images, label = case_paths(case, description, data_root)
        assert label is not None, f"{case.id} has no label to train on"
        states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (*images, label)]
        key = hash_value([__version__, decided, description.to_dict(), case.to_dict(), states, seed])[:32]
        jobs.append(_Job(case, images, label, key))
    missing = []
    for job in track(jobs, "Verify"):
        if not (cache / f"{job.key}.json").exists():
            missing.append(job)
        elif damage := find_damage(cache, job.key):
            _log.info(f"Case {job.case.id} is preprocessed again: {damage}.")
            missing.append(job)
    _make_all(missing, description, plan, cache, seed)
    return [open_entry(cache, job.key, job.case.id) for job in jobs]


def _make_all(jobs: Sequence[_Job], description: Description, plan: Plan, cache: Path, seed: int) -> None:
    """Write the entries of all jobs, in processes where that is quicker.

    Raises:
        DataError: names every case that cannot be preprocessed, after the others are done.
        InputError: the cache cannot be written.
    """
    sizes = [_count_voxels(job, plan) for job in jobs]
    much, largest = sum(sizes) > _LITTLE_WORK, max(sizes, default=0)
    num_workers = 1
    if much:
        num_workers = choose_workers(
            math.ceil(sum(sizes) / largest), largest,
            bytes_per_voxel=_BYTES_PER_VOXEL, bytes_per_process=_BYTES_PER_PROCESS,
        )  # fmt: skip
    num_threads = max(1, torch.get_num_threads() // num_workers) if much else None
    make = partial(_make, description=description, plan=plan, cache=cache, seed=seed, num_threads=num_threads)
    faults: dict[int, DataError] = {}
    with closing(run_parallel(make, jobs, num_workers, isolated=much)) as results:
        for _, (index, result) in zip(track(jobs, "Preprocess"), results, strict=True):
            if isinstance(result, DataError):
                faults[index] = result
            elif isinstance(result, MedunetError):
                raise result
            elif result is None:
                faults[index] = DataError(
                    "its process was ended from outside, most likely for want of memory",
                    where=f"case {jobs[index].case.id}",
                    hint=f"It takes about {_BYTES_PER_VOXEL * sizes[index] / 1e9:.1f} GB: free memory and run the "
                    "command again, which keeps what is done.",
                )
    if faults:
        _raise_all([faults[index] for index in sorted(faults)], len(jobs))


def _make(
    job: _Job, *, description: Description, plan: Plan, cache: Path, seed: int, num_threads: int | None
) -> MedunetError | str:
    """Write one case's entry and return its key, or what is wrong; `num_threads` where processes share the cores."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    case = job.case
    try:
        chain = preprocess_chain(plan, with_label=True, instances_as=description.instances_as)
        result = run_chain(chain, job.images, job.label, resample=case.resample)
        labels = result["label"].as_tensor()[0].numpy().astype(np.uint8)
        found = find_locations(labels, description.targets, (seed, *case.id.encode()))
        write_entry(cache, job.key, result["image"].as_tensor().numpy(), labels, found)
        return job.key
    except DataError as error:
        return DataError(error.what, where=f"case {case.id}: {error.where}", hint=error.hint)
    except MedunetError as error:  # not of this case alone
        return error
    except MemoryError:
        return DataError(
            "memory ran out", where=f"case {case.id}", hint="Free memory and run the command again."
        )
    except Exception as error:  # the other cases go on
        return DataError(f"cannot be preprocessed ({type(error).__name__}: {error})", where=f"case {case.id}")


def _raise_all(faults: Sequence[DataError], num_cases: int) -> NoReturn:
    if len(faults) == 1:
        raise faults[0]
    rows = "\n".join(f"  {fault}" for fault in faults)
    raise DataError(
        f"{len(faults)} of {num_cases} cases cannot be preprocessed; the others are done and kept:\n{rows}"
    )


def _count_voxels(job: _Job, plan: Plan) -> int:
    """Return the voxels of a case's images and label, on the scan's grid or the plan's, whichever is larger."""
    try:
        header = read_header(job.images[0])
    except Exception:  # the case itself says why
        return 0
    shape = np.array((*header.shape, 1, 1)[:3])
    grown = 1.0
    if plan.resize_to is None:  # the product of spacings is the same in any orientation
        grown = float(np.prod(header.spacing_mm[:3])) / float(np.prod(plan.spacing_mm))
    return int(np.prod(shape) * max(1.0, grown)) * (len(job.images) + 1)


def hold_in_memory(cases: list[PreparedCase], ram_gb: float | None, *, shared: bool) -> list[PreparedCase]:
    """Hold the cases' arrays in memory if all fit the limit, and say which it was; else leave them on disk.

    `ram_gb` is for all processes on this machine together; None: half of the memory that is free now. Where the
    cases are `shared` by loading workers or by processes that train together, the arrays are unpacked into files
    beside the compressed ones, and memory holds them once, whatever the number of processes.

    Raises:
        InputError: the cache cannot be written.
    """
    limit_gb = ram_gb or _SHARE_OF_FREE * free_memory_gb(torch.device("cpu"))
    needed_gb = ram_needed_gb(cases)
    text = f"{len(cases)} preprocessed cases take {needed_gb:.2f} GB of memory"
    on_disk = "patches are read from chunked files on disk"
    if needed_gb > limit_gb:
        _log.info(f"{text}, over the limit of {limit_gb:.2f} GB: {on_disk}.")
        return cases
    arrays: list[Any] = [array for case in cases for array in (case.image, case.label)]
    if not shared:
        _log.info(f"{text}.")
        return [PreparedCase(case.id, case.image[:], case.label[:], case.locations) for case in cases]
    absent = [array for array in arrays if not array.unpacked.path.exists()]
    free_gb = shutil.disk_usage(arrays[0].path.parent).free / 1e9
    absent_gb = sum(array.num_bytes for array in absent) / 1e9
    if absent_gb > _SHARE_OF_DISK * free_gb:  # checkpoints and logs need their place, too
        _log.info(
            f"{text} and {absent_gb:.2f} GB of the cache's disk, which has {free_gb:.2f} GB left: {on_disk}."
        )
        return cases
    _log.info(f"{text}, held once for all processes.")
    for array in track(arrays, "Load"):
        _unpack(array, is_new=array in absent)
    return [
        PreparedCase(case.id, image.unpacked, label.unpacked, case.locations)
        for case, image, label in zip(cases, arrays[::2], arrays[1::2], strict=True)
    ]


def _unpack(array: CachedArray, *, is_new: bool) -> None:
    if not is_new and array.unpacked.is_whole():
        return
    if not is_new:
        _log.info(f"{array.unpacked.path.name} of the cache is damaged: it is unpacked again.")
    array.unpack()


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


def _remove_abandoned(cache: Path) -> None:
    """Remove unfinished files that a killed process has left; a younger one may be another process's work."""
    for path in cache.glob(".*"):
        with suppress(FileNotFoundError):  # it has been finished meanwhile
            if path.stat().st_mtime < time.time() - _ABANDONED_S:
                path.unlink()
