"""Cache of preprocessed cases: compressed in chunks on disk, and loaded into memory if the limit allows.

Damaged cache entries are detected, reported and written again. Cases are preprocessed in parallel processes; a case
that fails, or crashes its process, is reported and does not stop the others.
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
from medunet.base.lock import wait_for
from medunet.base.pool import Lost, Workers, choose_workers, current_engine, run_parallel
from medunet.base.progress import track
from medunet.compute.device_memory import free_memory_gb
from medunet.imaging.formats import files_of
from medunet.imaging.volumes import read_header
from medunet.records.data_root import case_paths
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.records.plan import Plan
from medunet.training.cached_arrays import CachedArray, find_damage, open_entry, write_entry
from medunet.transforms.chain import preprocess_chain, run_chain
from medunet.transforms.patches import PreparedCase, find_locations

_log = logging.getLogger(__name__)
_PLAN_KEYS = (  # of a plan, that a preprocessed case depends on
    "dimensions", "orientation", "spacing_mm", "slice_axis", "crop_nonzero", "intensities", "resize_to", "grid",
)  # fmt: skip
_SHARE_OF_FREE = 0.5  # of the free memory, the default limit
_SHARE_OF_DISK = 0.8  # of the free disk space, for unpacked arrays
_LITTLE_WORK = 300_000_000  # voxels of images and labels; fewer are not worth starting processes for
_BYTES_PER_VOXEL = 24  # peak memory per voxel of a case's images and label
_BYTES_PER_PROCESS = 700_000_000  # torch and MONAI
_ABANDONED_S = 3600  # age from which an unfinished file is taken for a leftover of a killed process


@dataclass(frozen=True)
class _Job:
    """A case to preprocess, its files, and the key of its cache entry."""

    case: Case
    images: list[Path]
    label: Path
    key: str


def prepare_cases(
    cases: Sequence[Case], description: Description, plan: Plan, data_root: Path, cache: Path, *, seed: int
) -> list[PreparedCase]:
    """Return labelled cases preprocessed into `cache`, in the given order; unchanged cases are not processed again.

    An entry is valid for a plan, the size and modification time of the case's files, and the version of medunet.
    Existing entries are verified and written again if they are damaged. Processes that train other folds with the
    same cache wait until it is done, so that no case is preprocessed twice. The arrays of the returned cases are on
    disk; `load_into_memory` loads them.

    Raises:
        DataError: cases cannot be preprocessed; lists each with its reason, after the others are done.
        InputError: the cache cannot be written.
    """
    with wait_for(cache, "cache"):
        return _prepare(cases, description, plan, data_root, cache, seed)


def _prepare(
    cases: Sequence[Case], description: Description, plan: Plan, data_root: Path, cache: Path, seed: int
) -> list[PreparedCase]:
    _remove_abandoned(cache)
    plan_values = plan.model_dump(mode="json", include={*_PLAN_KEYS})
    jobs = []
    for case in cases:
        images, label = case_paths(case, description, data_root)
        assert label is not None, f"{case.id} has no label to train on"
        files = [file for path in (*images, label) for file in files_of(path)]
        states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        key = hash_value([__version__, plan_values, description.to_dict(), case.to_dict(), states, seed])[:32]
        jobs.append(_Job(case, images, label, key))
    missing = []
    for job in track(jobs, "Verify"):
        if not (cache / f"{job.key}.json").exists():
            missing.append(job)
        elif damage := find_damage(cache, job.key):
            _log.info(f"Case {job.case.id} is preprocessed again: {damage}.")
            missing.append(job)
    _write_entries(missing, description, plan, cache, seed)
    return [open_entry(cache, job.key, job.case.id) for job in jobs]


def _write_entries(
    jobs: Sequence[_Job], description: Description, plan: Plan, cache: Path, seed: int
) -> None:
    """Write the cache entries of all jobs, in parallel processes if that is faster.

    Raises:
        DataError: lists every case that cannot be preprocessed, after the others are done.
        InputError: the cache cannot be written.
    """
    sizes = [_count_voxels(job, plan) for job in jobs]
    is_parallel, largest = sum(sizes) > _LITTLE_WORK, max(sizes, default=0)
    workers = Workers(1)
    if is_parallel:
        workers = choose_workers(
            math.ceil(sum(sizes) / largest), largest,
            bytes_per_voxel=_BYTES_PER_VOXEL, bytes_per_process=_BYTES_PER_PROCESS,
        )  # fmt: skip
    num_threads = None
    if is_parallel:
        here = torch.get_num_threads() // workers.count
        num_threads = max(1, here if current_engine().name == "local" else int(workers.cpus))
    write = partial(
        _write_case, description=description, plan=plan, cache=cache, seed=seed, num_threads=num_threads
    )
    faults: dict[int, DataError] = {}
    with closing(run_parallel(write, jobs, workers, isolated=is_parallel)) as results:
        for _, (index, result) in zip(track(jobs, "Preprocess"), results, strict=True):
            if isinstance(result, DataError):
                faults[index] = result
            elif isinstance(result, MedunetError):
                raise result
            elif isinstance(result, Lost):
                faults[index] = DataError(
                    result.why,
                    where=f"case {jobs[index].case.id}",
                    hint=f"It takes about {_BYTES_PER_VOXEL * sizes[index] / 1e9:.1f} GB: free memory and run the "
                    "command again; finished cases are kept.",
                )
    if faults:
        _raise_all([faults[index] for index in sorted(faults)], len(jobs))


def _write_case(
    job: _Job, *, description: Description, plan: Plan, cache: Path, seed: int, num_threads: int | None
) -> MedunetError | str:
    """Write one case's cache entry; return its key or the error. `num_threads` is set in parallel processes."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    case = job.case
    try:
        chain = preprocess_chain(plan, with_label=True, rules=description.label_rules)
        result = run_chain(chain, job.images, job.label, resample=case.resample)
        labels = result["label"].as_tensor()[0].numpy().astype(np.uint8)
        locations = find_locations(labels, description.targets, (seed, *case.id.encode()))
        write_entry(cache, job.key, result["image"].as_tensor().numpy(), labels, locations)
        return job.key
    except DataError as error:
        return DataError(error.what, where=f"case {case.id}: {error.where}", hint=error.hint)
    except MedunetError as error:  # not specific to this case
        return error
    except MemoryError:
        return DataError(
            "memory ran out", where=f"case {case.id}", hint="Free memory and run the command again."
        )
    except Exception as error:  # continue with the other cases
        return DataError(f"cannot be preprocessed ({type(error).__name__}: {error})", where=f"case {case.id}")


def _raise_all(faults: Sequence[DataError], num_cases: int) -> NoReturn:
    if len(faults) == 1:
        raise faults[0]
    rows = "\n".join(f"  {fault}" for fault in faults)
    raise DataError(
        f"{len(faults)} of {num_cases} cases cannot be preprocessed; the others are done:\n{rows}"
    )


def _count_voxels(job: _Job, plan: Plan) -> int:
    """Return the number of voxels of a case's images and label, on the larger of the scan's and the plan's grid."""
    try:
        header = read_header(job.images[0])
    except Exception:  # reported when the case is preprocessed
        return 0
    shape = np.array((*header.shape, 1, 1)[:3])
    factor = 1.0
    if plan.resize_to is None:  # the voxel volume does not depend on the orientation
        factor = float(np.prod(header.spacing_mm[:3])) / float(np.prod(plan.spacing_mm))
    return int(np.prod(shape) * max(1.0, factor)) * (len(job.images) + 1)


def load_into_memory(cases: list[PreparedCase], ram_gb: float | None, *, shared: bool) -> list[PreparedCase]:
    """Load the cases' arrays into memory if all of them fit the limit, otherwise leave them on disk; log which.

    `ram_gb` is the limit for all processes on this machine together; None: half of the free memory. If the cases are
    `shared` by data-loading workers or training processes, the arrays are unpacked into memory-mapped files next to
    the compressed ones, so that they are in memory only once.

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
    if absent_gb > _SHARE_OF_DISK * free_gb:  # leave space for checkpoints and logs
        _log.info(
            f"{text} and {absent_gb:.2f} GB of the cache's disk, which has {free_gb:.2f} GB free: {on_disk}."
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
    if not is_new and array.unpacked.is_intact():
        return
    if not is_new:
        _log.info(f"{array.unpacked.path.name} of the cache is damaged and is unpacked again.")
    array.unpack()


def ram_needed_gb(cases: Sequence[PreparedCase]) -> float:
    """Return the memory in GB that the cases' arrays need when loaded."""
    return (
        sum(
            float(np.prod(array.shape)) * array.dtype.itemsize
            for case in cases
            for array in (case.image, case.label)
        )
        / 1e9
    )


def _remove_abandoned(cache: Path) -> None:
    """Remove unfinished files of killed processes; recent ones may belong to a running process."""
    for path in cache.glob(".*"):
        with suppress(FileNotFoundError):  # it was finished in the meantime
            if path.suffix != ".lock" and path.stat().st_mtime < time.time() - _ABANDONED_S:
                path.unlink()
