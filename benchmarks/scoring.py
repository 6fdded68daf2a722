"""Time and memory of all scores of a pair of masks, compared with other libraries; then of scoring a cohort.

python benchmarks/scoring.py [--data ../shared/data] [--peers surface-distance monai medpy] [--rounds 5] \
    [--peer-python PEER/bin/python]

PEER is an environment with the libraries that medunet's environment may lack: `pip install numpy scipy
surface-distance medpy` (MedPy is GPL). surface-distance 0.1 does not work with NumPy 2; missing names are added.

Every tool runs in a separate process with one thread, on masks in Fortran order as nibabel returns them. medunet
makes one call for all of its scores; the other libraries make the calls for HD, HD95, ASSD, NSD at 1 and 2 mm and
Dice, as far as available. Converting the masks, for example to float tensors, is not counted.

- "ms": the best of the rounds; rounds continue for at least 2 s, and none starts after 20 s.
- "times": time relative to medunet with its default, the area convention.
- "ASSD" is the mean over all elements of both surfaces, "MASD" the mean of the two directed means, which is what
  surface-distance computes. MONAI and MedPy have the first alone.
- "MB": increase of the peak resident memory in the first round, above all inputs.

The cases: with --data, the whole tumours of the five readers of brats/TCGA-FG-6692 against the consensus. Always, in
a 512×512×400 CT, a liver of 1.4 litres against a slightly different one, the same shifted by 12 mm, and with an
island 300 mm away. """

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Spacing = tuple[float, ...]
Values = dict[str, float]

FOREIGN = ("surface-distance", "medpy")  # run by --peer-python
ENOUGH_S, LEAST_S = 20.0, 2.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CT_SHAPE, CT_SPACING_MM, LITRES = (512, 512, 400), (0.8, 0.8, 1.0), 1.4


@dataclass(frozen=True)
class Case:
    """Two masks on one grid."""

    name: str
    reference: Mask
    prediction: Mask
    spacing_mm: Spacing

    def save(self, folder: Path) -> None:
        """Write the masks and the spacing for the measuring processes."""
        np.save(folder / "reference.npy", self.reference)
        np.save(folder / "prediction.npy", self.prediction)
        (folder / "spacing.json").write_text(json.dumps(self.spacing_mm))


@dataclass(frozen=True)
class Tool:
    """A library: a function that converts a mask to its input, and one that computes all scores."""

    prepare: Callable[[Mask], Any]
    call: Callable[[Any, Any, Spacing], Values]


def make_cases(data: Path | None) -> Iterator[Case]:
    """Yield the cases one at a time, to save memory."""
    import nibabel as nib

    if data is not None:
        folder = data / "brats" / "TCGA-FG-6692"
        consensus = nib.load(folder / "TCGA-FG-6692_seg.nii.gz")
        spacing_mm = tuple(float(step) for step in consensus.header.get_zooms())
        for path in sorted((folder / "raters").glob("*.nii.gz")):
            masks = [np.asarray(image.dataobj) > 0 for image in (consensus, nib.load(path))]
            yield Case(f"reader {path.name.removesuffix('.nii.gz')}", masks[0], masks[1], spacing_mm)
    reference, prediction = make_livers()
    yield Case("CT, liver", reference, prediction, CT_SPACING_MM)
    shifted = np.roll(prediction, round(12 / CT_SPACING_MM[0]), axis=0)
    yield Case("CT, liver 12 mm off", reference, shifted, CT_SPACING_MM)
    add_island(prediction)
    yield Case("CT, liver and island", reference, prediction, CT_SPACING_MM)


def make_livers() -> tuple[Mask, Mask]:
    """Return two similar smooth shapes of 1.4 litres on a CT grid, in Fortran order."""
    box = (slice(30, 370), slice(80, 340), slice(70, 210))
    spans = [
        (np.arange(side.start, side.stop) - (side.start + side.stop) / 2) * step
        for side, step in zip(box, CT_SPACING_MM, strict=True)
    ]
    x, y, z = np.meshgrid(*[span.astype(np.float32) for span in spans], indexing="ij", sparse=True)
    lobes = np.sqrt((x / 105) ** 2 + (y / 75) ** 2 + (z / 50) ** 2)
    lobes = lobes + 0.08 * (np.sin(x / 23 + 1) + np.sin(y / 19) * np.cos(z / 17))
    num_voxels = round(LITRES * 1e6 / float(np.prod(CT_SPACING_MM)))
    masks = []
    for field in (lobes, lobes + 0.015 * (np.sin(x / 9) * np.cos(y / 11) + np.cos(z / 8))):
        inside = field <= np.partition(field, num_voxels - 1, axis=None)[num_voxels - 1]
        faces = [inside.take((0, -1), axis=axis).any() for axis in range(3)]
        assert not any(faces), "the shape is cut off"
        masks.append(np.zeros(CT_SHAPE, dtype=bool, order="F"))
        masks[-1][box] = inside
    return masks[0], masks[1]


def add_island(mask: Mask) -> None:
    """Add a ball of 16 mm diameter to a liver mask, 300 mm from the liver's centre."""
    centre = (412, 422, 320)  # 170, 170 and 180 mm from voxel (200, 210, 140)
    box = tuple(slice(index - 12, index + 13) for index in centre)
    offsets = [np.arange(-12, 13) * step for step in CT_SPACING_MM]
    x, y, z = np.meshgrid(*offsets, indexing="ij", sparse=True)
    mask[box] |= x**2 + y**2 + z**2 <= 8**2


def load_medunet(surface: str) -> Tool:
    """Return medunet as a tool: all scores in one call."""
    from medunet.scoring.masks import score_masks

    def call(reference: Mask, prediction: Mask, spacing_mm: Spacing) -> Values:
        score = score_masks(reference, prediction, spacing_mm, surface=surface)  # type: ignore[arg-type]
        nsd = {f"nsd{tolerance:.0f}": value for tolerance, value in score.nsd.items()}
        means = {"assd": score.assd_mm, "masd": score.masd_mm}
        return {"hd": score.hd_mm, "hd95": score.hd95_mm, **means, **nsd, "dice": score.dice}

    return Tool(lambda mask: mask, call)


def load_surface_distance() -> Tool:
    """Return surface-distance as a tool: distances are computed once for all of its scores, as intended."""
    from scipy import ndimage

    vars(np).setdefault("Inf", np.inf)
    vars(ndimage).update(filters=ndimage, morphology=ndimage)
    import surface_distance as sd

    def call(reference: Mask, prediction: Mask, spacing_mm: Spacing) -> Values:
        distances = sd.compute_surface_distances(reference, prediction, spacing_mm)
        return {
            "hd": sd.compute_robust_hausdorff(distances, 100),
            "hd95": sd.compute_robust_hausdorff(distances, 95),
            "masd": float(np.mean(sd.compute_average_surface_distance(distances))),
            "nsd1": sd.compute_surface_dice_at_tolerance(distances, 1),
            "nsd2": sd.compute_surface_dice_at_tolerance(distances, 2),
            "dice": sd.compute_dice_coefficient(reference, prediction),
        }

    return Tool(lambda mask: mask, call)


def load_monai() -> Tool:
    """Return MONAI as a tool: functions take tensors `(B, C, I, J, K)`, and each extracts the surfaces again."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    torch.set_num_threads(1)

    def call(reference: torch.Tensor, prediction: torch.Tensor, spacing_mm: Spacing) -> Values:
        pair, options = (prediction, reference), {"include_background": True}
        surfaces = {**options, "spacing": spacing_mm}
        found = {
            "hd": compute_hausdorff_distance(*pair, **surfaces),
            "hd95": compute_hausdorff_distance(*pair, percentile=95, **surfaces),
            "assd": compute_average_surface_distance(*pair, symmetric=True, **surfaces),
            "nsd1": compute_surface_dice(*pair, class_thresholds=[1.0], **surfaces),
            "nsd2": compute_surface_dice(*pair, class_thresholds=[2.0], **surfaces),
            "dice": compute_dice(*pair, **options),
        }
        return {name: value.item() for name, value in found.items()}

    return Tool(lambda mask: torch.from_numpy(mask[None, None]).float(), call)


def load_medpy() -> Tool:
    """Return MedPy as a tool, which has no NSD."""
    from medpy.metric import binary

    def call(reference: Mask, prediction: Mask, spacing_mm: Spacing) -> Values:
        surfaces = {name: getattr(binary, name) for name in ("hd", "hd95", "assd")}
        found = {name: metric(prediction, reference, spacing_mm) for name, metric in surfaces.items()}
        return {**found, "dice": binary.dc(prediction, reference)}

    return Tool(lambda mask: mask, call)


OURS: dict[str, Callable[[], Tool]] = {
    "medunet": lambda: load_medunet("area"),
    "medunet, voxel": lambda: load_medunet("voxel"),
}
PEERS: dict[str, Callable[[], Tool]] = {
    "surface-distance": load_surface_distance,
    "monai": load_monai,
    "medpy": load_medpy,
}


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB (only on Linux, which reports KiB).

    `getrusage` is not used because its value includes the memory of the parent process before exec.
    """
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6


def measure(name: str, folder: Path, rounds: int) -> None:
    """Measure one tool on one saved case in this process; print JSON with times in s, memory in MB, and scores."""
    try:
        tool = {**OURS, **PEERS}[name]()
    except ModuleNotFoundError as error:
        print(json.dumps({"absent": error.name}))
        return
    masks = [np.load(folder / f"{side}.npy") for side in ("reference", "prediction")]
    spacing_mm = tuple(json.loads((folder / "spacing.json").read_text()))
    inputs = [tool.prepare(mask) for mask in masks]
    before, rise, seconds = peak_mb(), 0.0, []
    values: Values = {}
    while sum(seconds) < (ENOUGH_S if len(seconds) < rounds else LEAST_S):
        start = time.perf_counter()
        values = tool.call(inputs[0], inputs[1], spacing_mm)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            rise = peak_mb() - before
    plain = {key: float(value) for key, value in values.items()}
    print(json.dumps({"seconds": seconds, "rise_mb": rise, "values": plain}))


def mean_text(values: Values, name: str) -> str:
    """Return a mean distance as text, or a dash if the library does not have it."""
    return f"{values[name]:.4f}" if name in values else "–"


def compare(case: Case, given: argparse.Namespace) -> None:
    """Measure every tool on a case in separate processes, and print a row for each."""
    with TemporaryDirectory() as name:
        case.save(Path(name))
        ours_ms = 0.0
        for tool in (*OURS, *given.peers):
            python = given.peer_python if tool in FOREIGN else sys.executable
            command = [python, __file__, "--measure", tool, "--case", name, "--rounds", str(given.rounds)]
            ended = subprocess.run(
                command, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, text=True
            )
            if ended.returncode:
                print(f"| {case.name} | {tool} | ended with {ended.returncode} | | | | | |", flush=True)
                continue
            found = json.loads(ended.stdout.splitlines()[-1])
            if absent := found.get("absent"):
                print(f"| {case.name} | {tool} | {absent} is not installed | | | | | |", flush=True)
                continue
            milliseconds, values = 1e3 * min(found["seconds"]), found["values"]
            ours_ms = ours_ms or milliseconds
            print(
                f"| {case.name} | {tool} | {milliseconds:.1f} | {milliseconds / ours_ms:.1f} | "
                f"{found['rise_mb']:.0f} | {values['hd95']:.3f} | {mean_text(values, 'assd')} | "
                f"{mean_text(values, 'masd')} |",
                flush=True,
            )


def time_cohort(
    name: str, files: Sequence[tuple[Path, Path]], targets: dict[str, tuple[int, ...]], num_cases: int
) -> None:
    """Time reading and scoring of a cohort separately, and both with one and two workers; print a row."""
    from medunet.scoring.evaluate import score_pairs
    from medunet.scoring.labels import score_labels
    from medunet.scoring.pairs import Pair
    from medunet.scoring.reading import read_pair

    chosen = itertools.islice(itertools.cycle(files), num_cases)
    pairs = [Pair(f"case_{number:02}", *paths) for number, paths in enumerate(chosen)]
    reading_s = scoring_s = 0.0
    for pair in pairs:
        assert pair.prediction is not None
        start = time.perf_counter()
        labels = read_pair(pair.reference, pair.prediction)
        middle = time.perf_counter()
        score_labels(
            labels.reference.array,
            labels.prediction,
            labels.reference.spacing_mm,
            targets,
            targets,
            pair.case,
        )
        reading_s, scoring_s = reading_s + middle - start, scoring_s + time.perf_counter() - middle
    whole_s = []
    for workers in (1, 2):
        start = time.perf_counter()
        scores = score_pairs(pairs, targets, targets, workers=workers)
        whole_s.append(time.perf_counter() - start)
        assert all(score.status == "ok" for score in scores)
    print(
        f"| {name} | {num_cases} | {1e3 * reading_s / num_cases:.0f} | {1e3 * scoring_s / num_cases:.0f} | "
        f"{reading_s / (reading_s + scoring_s):.0%} | {whole_s[0]:.1f} | {whole_s[1]:.1f} | "
        f"{whole_s[0] / whole_s[1]:.2f} |",
        flush=True,
    )


def time_cohorts(data: Path | None) -> None:
    """Time the parts of `medunet score` on compressed files, for the readers and the CT."""
    import nibabel as nib

    print("\n| cohort | cases | read ms | score ms | reading | 1 worker s | 2 workers s | times |")
    print("|---|---|---|---|---|---|---|---|")
    if data is not None:
        folder = data / "brats" / "TCGA-FG-6692"
        consensus = folder / "TCGA-FG-6692_seg.nii.gz"
        raters = sorted((folder / "raters").glob("*.nii.gz"))
        regions = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
        time_cohort("readers of a glioma, 3 regions", [(consensus, path) for path in raters], regions, 640)
    with TemporaryDirectory() as name:
        paths = Path(name) / "reference.nii.gz", Path(name) / "prediction.nii.gz"
        for mask, path in zip(make_livers(), paths, strict=True):
            nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.diag([*CT_SPACING_MM, 1.0])), path)
        time_cohort("CT, liver", [paths], {"liver": (1,)}, 96)


def main() -> None:
    """Measure everything and print tables; or, in a process started by `compare`, measure one tool on one case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), default=tuple(PEERS))
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        measure(given.measure, given.case, given.rounds)
        return
    from medunet.base.processor import read_processor

    print(f"{read_processor().describe()}\n", flush=True)
    print(
        "| case | tool | ms | times | MB | HD95 mm | ASSD mm | MASD mm |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for case in make_cases(given.data):
        compare(case, given)
    time_cohorts(given.data)


if __name__ == "__main__":
    main()
