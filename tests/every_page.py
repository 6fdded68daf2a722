"""Every kind of page, made with one name as case, target, site and reason, as the data may hold it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from cohort_scores import make_index, write_cohort
from scored_case import draw_masks, make_case, page_of
from tiny_run import DESCRIPTION, make_run

from medunet.base.files import write_json
from medunet.commands.compare import compare_scores
from medunet.dataset.checks.fault_codes import make_fault
from medunet.imaging.nifti import write_mask
from medunet.imaging.volumes import read_label
from medunet.records.description import Description
from medunet.records.manifest import Case, Excluded, Manifest
from medunet.records.selection import Configuration, MeanScores, Round, Selection, Trial
from medunet.reporting.case_parts import Links
from medunet.reporting.check_page import check_html, draw_cases
from medunet.reporting.new_scans import NewScan, report_new_scans
from medunet.reporting.report import report_run
from medunet.reporting.selection_page import selection_html
from medunet.reporting.viewer import copy_assets
from medunet.scoring.tables import read_scores


def write_every_page(folder: Path, name: str) -> dict[str, Path]:
    """Write a page of each kind below a folder, and return them by kind."""
    data = folder / "data"
    data.mkdir(parents=True)
    scan, rows, lesions = make_case(data, *draw_masks())
    regions = {"liver": ("liver", "tumour"), name: ("tumour",)}
    description = DESCRIPTION.model_copy(
        update={"title": name, "regions": regions, "region_order": ("liver", name)}
    )

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.replace({"label": {"tumour": name}, "case": {"one": name}})

    case, _ = page_of(
        scan,
        renamed(rows).assign(reason=name),
        renamed(lesions),
        case_id=name,
        description=description,
        links=Links(worse="a.html", better="b.html"),
        provenance={name: {"key": name}},
        use=name,
    )
    unreadable, _ = page_of(name, renamed(rows), case_id=name, description=description)
    pages = {
        "case": (folder / "report/cases/case.html", case),
        "unreadable case": (folder / "report/cases/unreadable.html", unreadable),
        "check": (folder / "run/checks.html", _check_page(data, name)),
        "selection": (folder / "run/selection.html", selection_html(_selection(name), name)),
    }
    for path, html in pages.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    copy_assets(folder / "report")
    written = {kind: path for kind, (path, _) in pages.items()}
    written["cohort"] = make_index(
        write_cohort(folder / "cohort", num_cases=25, site=name, first_case=name), verdict=name
    )
    return written | _comparison(folder, name) | _new_scans(folder, data, name, description)


def write_run_pages(folder: Path) -> dict[str, Path]:
    """Write the pages of a run below a folder, those of a comparison and of new scans with pictures, by kind."""
    run, data_root = make_run(folder / "small")
    index = report_run(run, data_root, scores=read_scores(run.scores))
    for name in ("one", "two"):
        shutil.copytree(run.predictions, folder / name)
        (folder / name / "index.json").unlink()
    other = read_label(folder / "two/ras_good.nii.gz")
    write_mask(folder / "two/ras_good.nii.gz", other.array * (other.array != 2), other.header)
    compared = folder / "pictured"
    compare_scores([folder / "one", folder / "two"], compared, run.manifest, data_root=data_root)
    scan = data_root / "images/ras_good.nii.gz"
    out = folder / "ensemble"
    write_mask(out / "ras_good.nii.gz", other.array, other.header)
    agreement = np.where(np.arange(other.array.shape[0])[:, None, None] % 5, 3, 1) + 0 * other.array
    write_mask(out / "agreement/ras_good.nii.gz", agreement.astype(np.uint8), other.header)
    write_json(
        out / "index.json", {"cases": {"ras_good": {"members": [{"fold": fold} for fold in range(3)]}}}
    )
    listed = report_new_scans(
        [NewScan("ras_good", [scan], out / "ras_good.nii.gz")], DESCRIPTION, out, failed={}
    )
    return {
        "run": index,
        "case of a run": index.parent / "cases/ras_good.html",
        "pictured case": compared / "cases/ras_good.html",
        "scan of an ensemble": listed.parent / "cases/ras_good.html",
    }


def _check_page(data: Path, name: str) -> str:
    case_id = name.replace("/", "|")  # a case's id is a file name
    case = Case(id=case_id, patient=name, images={"CT": "image.nii.gz"}, label="label.nii.gz", site=name)
    manifest = Manifest(description=DESCRIPTION, cases=(case,), excluded=(Excluded(id=case_id, reason=name),))
    faults = [
        make_fault("L004", case_id, "label", name, expected=name),
        make_fault("S004", "", name, name),
    ]
    pictures = draw_cases({case_id: faults[:1]}, manifest, data, workers=1)
    return check_html(name, manifest, faults, pictures)


def _selection(name: str) -> Selection:
    numbers = {"mean": 0.81, "gain": 0.01, "low": 0.005, "high": 0.015, "bound": 0.004, "p": 0.01}
    trial = Trial(
        tried=name,
        target=name,
        against=name,
        mean_before=0.8,
        p_holm=0.02,
        num_patients=9,
        num_better=8,
        num_worse=1,
        is_chosen=True,
        **numbers,
    )
    means = MeanScores(
        num_cases=9, num_patients=9, first=0.8, chosen=0.81, gain=0.01, low=None, high=None, no_interval=name
    )
    return Selection(
        medunet_version="0",
        inputs_sha256="0",
        targets=(name,),
        configurations=(
            Configuration(name=name, members=(), masks="predictions", masks_sha256="0", mean_dice=0.8),
        ),
        chosen=name,
        rounds=(
            Round(about="configuration", level=0.05, trials=(trial,), why=name),
            Round(about="postprocessing", level=0.05, trials=(trial,), why=name),
        ),
        folds=means,
        test=means,
    )


def _comparison(folder: Path, name: str) -> dict[str, Path]:
    methods = [
        write_cohort(folder / "methods" / method, num_cases=number, site=name, first_case=name)
        for method, number in (("one", 12), ("two", 9))
    ]
    table = read_scores(methods[1] / "scores.csv")
    table["dice"] = np.where(table["status"] == "ok", table["dice"] * 0.9, table["dice"])
    table.to_csv(methods[1] / "scores.csv", index=False)
    compare_scores(methods, folder / "compared")
    first = next(path for path in (folder / "compared/cases").iterdir() if not path.name.startswith("case_"))
    return {"comparison": folder / "compared/comparison.html", "compared case": first}


def _new_scans(folder: Path, data: Path, name: str, description: Description) -> dict[str, Path]:
    out = folder / "new"
    out.mkdir()
    (out / "index.json").write_text("{}")
    scans = [NewScan(case, [data / "image.nii.gz"], data / "predicted.nii.gz") for case in ("good", name)]
    list_page = report_new_scans(scans, description, out, failed={name: name})
    pages = {path.stem: path for path in (out / "report/cases").iterdir()}
    failed = next(path for stem, path in pages.items() if stem != "good")
    return {"new scans": list_page, "new scan": pages["good"], "failed scan": failed}
