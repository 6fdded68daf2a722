"""The time that cases took, from an index of masks or by predicting a few now, and the sizes and memory of others."""

import logging
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from medunet.base.errors import DataError, InputError
from medunet.imaging.volume import Header
from medunet.imaging.volumes import read_header
from medunet.inference.cost_file import read_cost
from medunet.inference.extrapolate import CaseSize, MeasuredCase
from medunet.inference.mask_index import describe_making
from medunet.inference.memory import Other, network_grid
from medunet.inference.predict import predict_scans
from medunet.inference.predictor import Predictor
from medunet.inference.scan import Scan
from medunet.inference.windows import lay_windows
from medunet.records.config import InferenceConfig
from medunet.records.mask_journal import read_mask_index

_log = logging.getLogger(__name__)
_SAME = ("plan_sha256", "options_sha256", "backend", "precision", "device")  # of masks that take as long
_LARGEST = 5  # cases of which the memory is estimated


def sizes_of(
    model: Predictor, scans: Iterable[Scan], config: InferenceConfig
) -> tuple[dict[str, CaseSize], dict[str, str]]:
    """Return the sizes of scans by case, by their headers, and why others have none."""
    sizes: dict[str, CaseSize] = {}
    unreadable: dict[str, str] = {}
    for scan in scans:
        try:
            if scan.trouble:
                raise DataError(scan.trouble)
            headers = _headers_of(scan)
            windows = sum(_count_windows(headers[0], each, options) for each, options in model.models(config))
        except (DataError, OSError) as error:
            unreadable[scan.case] = error.what if isinstance(error, DataError) else str(error.strerror)
            continue
        sizes[scan.case] = CaseSize(windows, sum(math.prod(header.shape) for header in headers))
    return sizes, unreadable


def _headers_of(scan: Scan) -> list[Header]:
    return [read_header(path) for path in dict.fromkeys(scan.images)]


def _count_windows(header: Header, model: Any, options: InferenceConfig) -> int:
    """Return the windows of a scan for all networks of a model, as if nothing were cropped."""
    plan = model.card.plan
    grid = lay_windows(network_grid(header, plan), (0, 0, 0), plan, options.overlap)
    averaged = options.shifts * 2 ** len(set(options.mirror))
    return math.prod(map(len, grid)) * averaged * len(model.members)


def read_measured(
    model: Predictor,
    scans: Sequence[Scan],
    sizes: Mapping[str, CaseSize],
    config: InferenceConfig,
    folder: Path,
    processor: str,
) -> tuple[dict[str, MeasuredCase], str]:
    """Return what cases took whose masks a folder holds, and what is assumed of them or why there are none.

    Taken are masks of the same plan, options, backend, precision, kind of device and number of networks, unless
    cost.json says that all of the folder were predicted on another processor.
    """
    entries = read_mask_index(folder).get("cases", {})
    known = {command.processor for command in read_cost(folder).commands}
    if known and processor not in known:
        return {}, f"masks in {folder.name} were predicted on another processor ({', '.join(sorted(known))})"
    making = describe_making(model, config, resample=False)
    num_members = len(making.get("members", [None]))
    found = {}
    for scan in scans:
        entry, mask = entries.get(scan.case, {}), folder / scan.mask_name
        is_same = all(entry.get(key) == making[key] for key in _SAME) and "roi" not in entry
        is_same &= len(entry.get("members", [None])) == num_members
        if is_same and "seconds_by_part" in entry and scan.case in sizes and mask.exists():
            found[scan.case] = _measured(sizes[scan.case], entry, mask)
    if not found:
        return {}, ""
    assumed = "" if known else f"that masks in {folder.name} were predicted on this processor"
    return found, assumed


def _measured(size: CaseSize, entry: Mapping[str, Any], mask: Path) -> MeasuredCase:
    seconds = entry["seconds_by_part"]
    front, back = (sum(seconds[name] for name in names) for names in (("read", "prepare"), ("tidy", "write")))
    return MeasuredCase(size, seconds["compute"], front, back, mask.stat().st_size)


def measure_cases(
    model: Predictor,
    scans: Sequence[Scan],
    sizes: Mapping[str, CaseSize],
    config: InferenceConfig,
    out: Path,
) -> tuple[dict[str, MeasuredCase], dict[str, str]]:
    """Predict scans into a folder, and return what they took and why others failed.

    One of them is predicted before, which is not counted: the first call of a network takes longer.
    """
    first = min(scans, key=lambda scan: sizes[scan.case].windows)
    with tempfile.TemporaryDirectory() as scratch:
        predict_scans(model, [first], Path(scratch), config)
    failed = predict_scans(model, scans, out, config)
    entries = read_mask_index(out)["cases"]
    return {
        scan.case: _measured(sizes[scan.case], entries[scan.case], out / scan.mask_name)
        for scan in scans
        if scan.case not in failed
    }, failed


def memory_of(
    model: Predictor, scans: Sequence[Scan], sizes: Mapping[str, CaseSize], config: InferenceConfig
) -> tuple[int, int]:
    """Return the memory that this process, with its loaded model, takes for the largest scans, and a card's."""
    (first, options), *rest = model.models(config)
    readable = sorted(
        (scan for scan in scans if scan.case in sizes), key=lambda scan: -sizes[scan.case].voxels
    )
    estimates = []
    for scan in readable[:_LARGEST]:
        headers = _headers_of(scan)
        others: list[Other] = [
            (other.memory, network_grid(headers[0], other.card.plan), own) for other, own in rest
        ]
        estimates.append(first.memory.estimate(headers, options, first.memory.ways[0], others))
    if not estimates:
        raise InputError("no scan can be read", hint="Check the scans with `medunet check`.")
    loaded = psutil.Process().memory_info().rss
    return loaded + max(each.main_bytes for each in estimates), max(each.card_bytes for each in estimates)
