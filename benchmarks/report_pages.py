"""Time, memory and size of report pages: those of a large CT, and the report of a cohort.

python benchmarks/report_pages.py --only ct [--work pages]
python benchmarks/report_pages.py --only cohort --run RUN --data-root DATA [--cases 1000] [--workers 2] [--work pages]

- `ct`: the page of a CT of 512×512×400 voxels, stored as int16, with a liver of 1.4 litres, lungs, spleen and two
  tumours; one tumour is missed, another invented 300 mm away. `whole body` has a target that fills the body besides,
  and 2,000 invented tumours of 27 voxels all over it. Each page is made in a fresh process with one thread: with
  volumes, with stills only, and without a reference. "volumes MB" is what image and label maps take as stored.
- `cohort`: the scored cases of RUN, again and again under further ids until there are enough. The report is made by
  `medunet report`, with volumes on the 100 worst cases, then once more with all pages there.

Only Linux: peak memory is read from /proc, and is the sum over all processes for the cohort."""

import argparse
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray

SHAPE, SPACING_MM = (512, 512, 400), (0.8, 0.8, 1.0)
LIVER, TUMOUR, SPLEEN, LUNG, REST = 1, 2, 3, 4, 5
KINDS = ("organs", "whole body")
HU = {0: -1000, LIVER: 90, TUMOUR: 60, SPLEEN: 110, LUNG: -850, REST: 30}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PAGES = ("with volumes", "stills only", "no reference")
DESCRIPTION = f"""schema: medunet.dataset/1
name: phantom_ct
title: Phantom CT
source: generated
licence: none
layout: nnunet
channels:
  CT: {{modality: CT}}
labels: {{background: 0, liver: {LIVER}, tumour: {TUMOUR}, spleen: {SPLEEN}, lungs: {LUNG}, rest: {REST}}}
regions: {{liver: [liver, tumour], tumour: [tumour], spleen: [spleen], lungs: [lungs],
  rest: [rest]}}
region_order: [liver, tumour, spleen, lungs, rest]
sided: false
folds: 5
"""


def ball(centre_mm: tuple[float, float, float], radii_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Return an ellipsoid on the grid, in Fortran order as a file is read."""
    axes = [
        ((np.arange(size) * step - middle) / radius).astype(np.float32) ** 2
        for size, step, middle, radius in zip(SHAPE, SPACING_MM, centre_mm, radii_mm, strict=True)
    ]
    k, j, i = np.ix_(*axes[::-1])
    return (k + j + i <= 1).T


def make_case(folder: Path, kind: str) -> None:
    """Write scan, reference and prediction of the CT, unless they are there."""
    from medunet.imaging.nifti import read_header, write_mask, write_volume

    if (folder / "masks" / "case.nii.gz").exists():
        return
    labels = np.zeros(SHAPE, np.uint8, order="F")
    labels[ball((130, 200, 290), (55, 75, 100)) | ball((280, 200, 290), (55, 75, 100))] = LUNG
    liver = (130, 190, 140), (90, 72, 52)
    labels[ball(*liver)] = LIVER
    labels[ball((320, 240, 150), (30, 40, 45))] = SPLEEN
    found = labels.copy(order="F")
    found[found == LIVER] = 0
    found[ball((132, 191, 140), (88, 73, 54)) & (labels != LUNG)] = LIVER
    for place, radius, masks in (
        ((110, 190, 140), 18, (labels, found)),
        ((160, 170, 150), 7, (labels,)),
        ((300, 330, 330), 8, (found,)),
    ):
        for mask in masks:
            mask[ball(place, (radius,) * 3)] = TUMOUR
    body = ball((205, 205, 200), (185, 150, 400))
    noise = np.random.default_rng(0)
    if kind == "whole body":
        labels[body & (labels == 0)] = REST
        found[ball((206, 205, 200), (184, 150, 400)) & (found == 0)] = REST
        inside = np.argwhere(body[2:-2, 2:-2, 2:-2])
        for i, j, k in inside[noise.choice(len(inside), 2000, replace=False)]:
            found[i : i + 3, j : j + 3, k : k + 3] = TUMOUR
    image = np.full(SHAPE, HU[0], np.int16, order="F")
    for k in range(SHAPE[2]):
        tissue = np.where(body[..., k], np.int16(30), np.int16(HU[0]))
        for value, hu in HU.items():
            if value:
                tissue[labels[..., k] == value] = hu
        image[..., k] = tissue + noise.normal(0, 12, tissue.shape)
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])  # stored LPS, as from DICOM
    scan = folder / "scans" / "case_0000.nii.gz"
    write_volume(scan, image, affine)
    header = read_header(scan)
    write_mask(folder / "labels" / "case.nii.gz", labels, header)
    write_mask(folder / "masks" / "case.nii.gz", found, header)


def make_jobs(folder: Path) -> None:
    """Score the CT and store what each page is made from, for the measured processes."""
    from medunet.records.config import ReportConfig
    from medunet.records.description import load_description
    from medunet.records.manifest import Case
    from medunet.reporting.case_parts import CaseParts
    from medunet.reporting.page_job import PageJob, PageOptions
    from medunet.scoring.tables import read_lesions, read_scores

    (folder / "phantom_ct.yaml").write_text(DESCRIPTION)
    scores = folder / "scores"
    if not (scores / "scores.csv").exists():
        command = ["score", str(folder / "labels"), str(folder / "masks"), "--out", str(scores)]
        options = ["--dataset", str(folder / "phantom_ct.yaml"), "--set", "scoring.lesions={tumour: lits}"]
        subprocess.run([sys.executable, "-m", "medunet.cli", *command, *options], stdout=subprocess.DEVNULL)
    description = load_description(str(folder / "phantom_ct.yaml"))
    rows, lesions = read_scores(scores / "scores.csv"), read_lesions(scores / "lesions.csv")
    for name in PAGES:
        has_reference = name != "no reference"
        label = "labels/case.nii.gz" if has_reference else None
        case = Case(id="case", patient="", images={"CT": "scans/case_0000.nii.gz"}, label=label)
        parts = CaseParts(
            case_id="case",
            page=f"{name.replace(' ', '_')}.html",
            description=description,
            rows=rows if has_reference else rows.iloc[:0],
            lesions=lesions if has_reference else None,
        )
        job = PageJob(parts, case, folder / "masks" / "case.nii.gz", name != "stills only", True)
        options_ = PageOptions(folder / "report", folder, None, ReportConfig())
        (folder / f"{name}.pickle").write_bytes(pickle.dumps((job, options_)))


def measure_page(path: Path) -> None:
    """Make one page in this process, and print JSON with seconds, peak memory and size."""
    from medunet.reporting.page_job import make_page

    job, options = pickle.loads(path.read_bytes())
    (options.report / "cases" / job.parts.page).unlink(missing_ok=True)
    before_mb, start, start_cpu = peak_mb(), time.perf_counter(), time.process_time()
    result = make_page(job, options)
    assert result.is_new
    assert not result.summary.trouble, result.summary.trouble
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    size = (options.report / "cases" / job.parts.page).stat().st_size
    found = {
        "seconds": seconds,
        "cpu": cpu,
        "before_mb": before_mb,
        "peak_mb": peak_mb(),
        "page_mb": size / 1e6,
    }
    print(json.dumps(found))


def peak_mb() -> float:
    """Return the peak resident memory of this process; that of getrusage has its parent's before exec."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6


def measure_ct(work: Path) -> None:
    """Print a row for each kind of page of each CT."""
    num_voxels = np.prod(SHAPE)
    print("\n| page of a CT | s | CPU s | volumes MB | process before MB | peak MB | page MB |")
    print("|---|---|---|---|---|---|---|")
    for kind, name in itertools.product(KINDS, PAGES):
        folder = work / kind.replace(" ", "_")
        make_case(folder, kind)
        make_jobs(folder)
        command = [sys.executable, __file__, "--measure", str(folder / f"{name}.pickle")]
        env = {**os.environ, **ONE_THREAD}
        ended = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(ended.stdout.splitlines()[-1])
        volumes = num_voxels * (2 + (2 if name != "no reference" else 1)) / 1e6
        print(
            f"| {kind}, {name} | {found['seconds']:.1f} | {found['cpu']:.1f} | {volumes:.0f} | "
            f"{found['before_mb']:.0f} | {found['peak_mb']:.0f} | {found['page_mb']:.1f} |",
            flush=True,
        )


def repeat_run(run: Path, copy: Path, num_cases: int) -> None:
    """Write a run with the scored cases of another one, each under as many ids as needed; scans are not copied."""
    shutil.rmtree(copy, ignore_errors=True)
    (copy / "predictions").mkdir(parents=True)
    scores = pd.read_csv(run / "scores.csv", dtype={"case": str})
    known = scores["case"].drop_duplicates().tolist()
    ids = [(known[number % len(known)], f"{number:05d}") for number in range(num_cases)]
    manifest = json.loads((run / "manifest.json").read_text())
    index = json.loads((run / "predictions" / "index.json").read_text())
    cases, entries = {case["id"]: case for case in manifest["cases"]}, {}
    tables: dict[str, list[pd.DataFrame]] = {"scores.csv": []}
    if (run / "lesions.csv").exists():
        tables["lesions.csv"] = []
    manifest["cases"], sources = [], {name: pd.read_csv(run / name, dtype={"case": str}) for name in tables}
    for old, number in ids:
        new = f"{old}_{number}"
        manifest["cases"].append({**cases[old], "id": new})
        if old in index["cases"]:
            entries[new] = index["cases"][old]
        for mask in (run / "predictions").glob(f"{old}.*"):
            shutil.copyfile(mask, copy / "predictions" / mask.name.replace(old, new))
        for name, table in sources.items():
            tables[name].append(table[table["case"] == old].assign(case=new))
    for name, parts in tables.items():
        pd.concat(parts).to_csv(copy / name, index=False)
    write = {"manifest.json": manifest, "predictions/index.json": {**index, "cases": entries}}
    for name, value in write.items():
        (copy / name).write_text(json.dumps(value))
    for name in ("config.yaml", "provenance.json"):
        shutil.copyfile(run / name, copy / name)


def call_report(run: Path, data_root: Path, workers: int) -> tuple[float, float]:
    """Make the report of a run; return the seconds and the peak MB of all its processes, seen every 0.2 s."""
    command = [sys.executable, "-m", "medunet.cli", "report", str(run), "--data-root", str(data_root)]
    start, peak = time.perf_counter(), 0
    process = psutil.Popen([*command, "--workers", str(workers)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, resident(process))
        time.sleep(0.2)
    assert process.returncode == 0, f"medunet report ended with {process.returncode}"
    return time.perf_counter() - start, peak / 1e6


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and its children, 0 for one that has just ended."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def measure_cohort(given: argparse.Namespace) -> None:
    """Print a row for a report of so many cases, and one for the same call again."""
    copy = given.work / "cohort"
    repeat_run(given.run, copy, given.cases)
    print(
        "\n| report | cases | workers | s | s a case and worker | MB, all processes | index MB | all pages MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in ("new", "again"):
        seconds, peak = call_report(copy, given.data_root, given.workers)
        report = copy / "report"
        pages = list((report / "cases").glob("*.html"))
        assert len(pages) == given.cases, f"{len(pages)} pages"
        total = sum(page.stat().st_size for page in pages) / 1e6
        print(
            f"| {name} | {given.cases} | {given.workers} | {seconds:.0f} | "
            f"{seconds * given.workers / given.cases:.2f} | {peak:.0f} | "
            f"{(report / 'index.html').stat().st_size / 1e6:.1f} | {total:.0f} |",
            flush=True,
        )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("ct", "cohort"))
    parser.add_argument("--work", type=Path, default=Path("report_pages"), help="folder for what is made")
    parser.add_argument("--run", type=Path, help="a run with predictions and scores, for `cohort`")
    parser.add_argument("--data-root", type=Path, help="its data")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure_page(given.measure)
        return
    given.work = given.work.absolute()
    if given.only != "ct" and not (given.run and given.data_root):
        parser.error("a cohort needs --run and --data-root")
    if given.only != "cohort":
        measure_ct(given.work)
    if given.only != "ct":
        measure_cohort(given)


if __name__ == "__main__":
    main()
