"""The page of a case: its order, worst error first, every channel, folded targets, and scans without a reference."""

import html as html_module
import math
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scored_case import INVENTED, MISSED, NO_ROWS, SHAPE, draw_masks, make_case, make_many, page_of
from tiny_run import DESCRIPTION, affine_of

from medunet.base.errors import DataError
from medunet.drawing.scene import StillView
from medunet.imaging.nifti import read_header, write_mask, write_volume
from medunet.records.config import ReportConfig
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.reporting import case_page, errors_shown
from medunet.reporting.borders import find_cut
from medunet.reporting.case_parts import CaseSummary
from medunet.reporting.classes import measure_agreement
from medunet.reporting.errors_shown import Stills
from medunet.reporting.scans import load_scan


def text_of(page: str) -> str:
    body = re.sub(r"<script.*?</script>|<[^>]+>", " ", page[page.index("<body>") :], flags=re.DOTALL)
    return re.sub(r"\s+", " ", html_module.unescape(body))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, CaseSummary]:
    scan, rows, lesions = make_case(tmp_path_factory.mktemp("case"), *draw_masks())
    return page_of(scan, rows, lesions)


def test_the_page_has_its_parts_in_order(made: tuple[str, CaseSummary]) -> None:
    page, _ = made
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    wanted = ["Worst error", "Errors", "Lesions of tumour", "Targets", "Volumes", "Provenance"]
    assert [heading for heading in headings if heading != "Viewer"] == wanted
    assert page.index("verdict review") < page.index("<h2>Worst error")


def test_the_worst_error_comes_first_with_its_picture(made: tuple[str, CaseSummary]) -> None:
    page, summary = made
    text = text_of(page)
    missed = "tumour: missed lesion 1, 1.35 ml"  # 90 voxels of 15 mm³: a whole target, before all others
    assert summary.worst_text.startswith(missed)
    assert summary.worst_picture
    first = re.search(r'<figure class="still" id="error-1">.*?<img src="([^"]+)" alt="([^"]+)"', page)
    assert first
    assert first[1] == summary.worst_picture
    assert first[2] == summary.worst_text
    assert text.index("tumour: missed lesion 1") < text.index("tumour: false positive lesion 2")
    assert summary.reasons[:2] == (
        "Dice 0, the masks do not overlap: tumour (1.35 ml)",
        "lesions of tumour: 1 of 1 missed (1.35 ml)",
    )
    assert summary.severity == "review"
    links = re.findall(r'href="#error-(\d+)" data-finding="(\d+)"', page)
    assert links
    assert all(int(number) == int(index) + 1 for number, index in links)
    stills = set(re.findall(r'id="error-(\d+)"', page))
    assert {number for number, _ in links} == stills


@pytest.mark.parametrize(("codes", "tilt"), [("RAS", 0), ("LPS", 0), ("LPI", 0), ("SAL", 0), ("RAI", 12)])
def test_slices_of_lesions_are_named_as_the_pictures_name_them(
    tmp_path: Path, codes: str, tilt: float
) -> None:
    axis = next(place for place, code in enumerate(codes) if code in "SI")
    turned = np.moveaxis(np.zeros(SHAPE, np.uint8), 2, axis)
    reference, prediction = (np.moveaxis(mask, 2, axis).copy() for mask in draw_masks())
    assert turned.shape == reference.shape
    scan, rows, lesions = make_case(tmp_path, reference, prediction, codes, tilt)
    page, _ = page_of(scan, rows, lesions)
    affine = affine_of(codes, (2, 2.5, 3), tilt)
    for lesion, mask in zip(lesions.to_dict("records"), (reference, prediction), strict=True):
        inside = np.argwhere(mask == 2)
        inside = inside[inside[:, axis] == lesion["slice"]]
        z_mm = apply_affine(affine, inside.mean(axis=0))[2]
        name = f"{'S' if round(z_mm, 1) >= 0 else 'I'} {abs(round(z_mm, 1)):.1f} mm (slice {lesion['slice']})"
        assert f'data-heading="Axial slice">{name}</td>' in page


def test_faces_of_the_scan_that_cut_a_mask_are_named(tmp_path: Path) -> None:
    reference, prediction = draw_masks()
    reference[:, 10, 5] = 1  # to both ends of the first axis
    prediction[10, 10, :6] = 2
    scan, *_ = make_case(tmp_path, reference, prediction, "LPS")
    assert find_cut(scan, DESCRIPTION.targets) == {
        "liver": "reference: left, right; prediction: inferior",
        "tumour": "prediction: inferior",
    }


def test_text_from_data_is_escaped(tmp_path: Path) -> None:
    scan, rows, lesions = make_case(tmp_path, *draw_masks())
    odd = '</script><b>$x$ "\u05d0\u05d1'
    page, _ = page_of(
        scan, rows.assign(case=odd), lesions, case_id=odd, stale=(odd,), entry={odd: odd}, use=odd, page=odd
    )
    assert odd not in page
    assert "</script><b>" not in page
    assert text_of(page).count(odd) >= 4


def describe_glioma() -> Description:
    channels = {name: {"modality": "MR"} for name in ("FLAIR", "T1gd")}
    return Description(
        name="glioma",
        layout="brats",
        channels=channels,
        labels={"background": 0, "oedema": 1, "enhancing": 2},
        regions={"whole": ("oedema", "enhancing"), "enhancing_tumour": ("enhancing",)},
        region_order=("whole", "enhancing_tumour"),
        shown_in={"enhancing_tumour": "T1gd"},
    )


def test_every_channel_is_read_and_targets_are_shown_in_their_own(tmp_path: Path) -> None:
    for value, name in enumerate(("FLAIR", "T1gd")):
        write_volume(tmp_path / f"{name}.nii.gz", np.full((5, 6, 7), value, np.float32), np.eye(4))
    write_volume(tmp_path / "other.nii.gz", np.zeros((5, 6, 8), np.float32), np.eye(4))
    description = describe_glioma()
    case = Case(id="one", patient="one", images={name: f"{name}.nii.gz" for name in description.channels})
    scan = load_scan(case, description, tmp_path, None)
    assert list(scan.channels) == ["FLAIR", "T1gd"]
    assert np.all(scan.channels["T1gd"] == 1)
    assert list(load_scan(case, description, tmp_path, None, channel="T1gd").channels) == ["T1gd"]
    stills = Stills(scan, description, description.targets)
    assert (stills.channel_of("whole"), stills.channel_of("enhancing_tumour")) == ("FLAIR", "T1gd")
    moved = case.model_copy(update={"images": {"FLAIR": "FLAIR.nii.gz", "T1gd": "other.nii.gz"}})
    scan = load_scan(moved, description, tmp_path, None)
    assert list(scan.channels) == ["FLAIR"]
    assert scan.warnings == ("The channel T1gd is not shown: shape (5, 6, 8) differs from (5, 6, 7).",)
    assert Stills(scan, description, description.targets).channel_of("enhancing_tumour") == "FLAIR"


def test_a_channel_that_does_not_exist_cannot_show_a_target() -> None:
    plain = describe_glioma().to_dict()
    with pytest.raises(ValueError, match=r"shown_in: there are no channels \['T1w'\]"):
        Description.parse({**plain, "shown_in": {"whole": "T1w"}}, "x")
    with pytest.raises(ValueError, match=r"shown_in: \['oedema'\] are no targets"):
        Description.parse({**plain, "shown_in": {"oedema": "FLAIR"}}, "x")


def test_of_many_targets_absent_and_near_perfect_ones_are_folded_and_the_worst_pictured(
    tmp_path: Path,
) -> None:
    scan, rows, description = make_many(tmp_path)
    page, summary = page_of(scan, rows, description=description)
    assert summary.worst_text.startswith("part_77: largest false negative region")
    assert len(page) < 8e6
    folded = re.findall(
        r'<details class="folded scores[^"]*"><summary>(.*?)</summary>(.*?)</details>', page, re.DOTALL
    )
    assert [heading for heading, _ in folded] == [
        "Dice of 0.95 or more: 99 targets",
        "In neither mask: 17 targets",
    ]
    assert all("part_77" not in content for _, content in folded)
    assert page.count('data-target="part_77"') == 2  # its scores and its volumes
    assert '<input id="search"' in page
    assert page.count("<li class=") < 5  # notices are grouped
    assert "100 targets reach" not in page
    short, _ = page_of(scan, rows.iloc[70:80], description=description)
    assert 'id="search"' not in short
    assert "<script" not in short.replace('<script type="application/json"', "") or "viewer" in short


def test_a_new_scan_has_volumes_diameters_and_no_score(tmp_path: Path) -> None:
    _, prediction = draw_masks()
    scan, *_ = make_case(tmp_path, prediction, prediction)
    scan = load_scan(
        Case(id="one", patient="one", images={"CT": "image.nii.gz"}),
        DESCRIPTION,
        tmp_path,
        tmp_path / "predicted.nii.gz",
    )
    page, summary = page_of(scan, NO_ROWS, lesion_rules={"tumour": "lits"})
    text = text_of(page)
    assert "There is no reference, and so no score." in text
    assert summary.severity == "none"
    assert summary.verdict == "Found: liver 145.80 ml, tumour 0.54 ml"
    assert not re.search(r"\bDice\b|HD95|reference (solid|ml)|Worst error|missed lesion|false positive", text)
    assert 'data-heading="Predicted ml">145.80<' in page  # 27 × 24 × 15 voxels of 15 mm³: liver is a region
    assert 'data-heading="Predicted ml">0.54<' in page
    assert "<h2>Parts of tumour</h2>" in page
    assert "<h2>Parts of liver</h2>" not in page
    # 4 × 3 pixels of 2 × 2.5 mm: between the middles of edges of opposite corner pixels.
    assert f">{math.hypot(3 * 2, 3 * 2.5):.1f} × " in page
    assert re.search(r'<a class="jump" href="#error-1" data-finding="0">1</a>', page)
    assert "networks" not in text.replace("networks that agree", "")


def test_without_lesion_rules_the_parts_of_a_few_targets_are_listed(tmp_path: Path) -> None:
    _, prediction = draw_masks()
    scan, *_ = make_case(tmp_path, prediction, prediction)
    page, _ = page_of(scan, NO_ROWS)
    assert re.findall(r"<h2>Parts of (.*?)</h2>", page) == ["liver", "tumour"]
    assert "1 connected part (26-connected)" in page


def test_agreement_of_the_networks_is_shown_by_target(tmp_path: Path) -> None:
    _, prediction = draw_masks()
    _, *_ = make_case(tmp_path, prediction, prediction)
    agreement = np.full(SHAPE, 3, np.uint8)
    agreement[INVENTED] = 2
    agreement[24] = 3  # one of four layers of the tumour
    (tmp_path / "agreement").mkdir()
    write_mask(tmp_path / "agreement/predicted.nii.gz", agreement, read_header(tmp_path / "image.nii.gz"))
    case = Case(id="one", patient="one", images={"CT": "image.nii.gz"})
    scan = load_scan(case, DESCRIPTION, tmp_path, tmp_path / "predicted.nii.gz")
    num_liver = 27 * 24 * 15
    wanted = {"liver": (num_liver - 27) / num_liver, "tumour": 0.25}
    assert measure_agreement(scan, DESCRIPTION.targets, 3) == pytest.approx(wanted)
    page, summary = page_of(scan, NO_ROWS, entry={"members": [{"fold": 0}, {"fold": 1}, {"fold": 2}]})
    assert "All 3 networks agree" in page
    assert 'data-heading="All agree">25%<' in page
    assert summary.reasons == ("the networks agree on less than 70% of the voxels of tumour 25%",)
    assert measure_agreement(scan, DESCRIPTION.targets, 1) == {}
    voxel_ml = 2 * 2.5 * 3 / 1000
    depth = page[page.index("<h2>Agreement of the networks</h2>") :]
    assert (
        page.index("</section>")
        < page.index("<h2>Agreement of the networks</h2>")
        < page.index("<h2>Overview")
    )
    assert f"The 3 networks disagree on {27 * voxel_ml:.2f} ml (27 voxels), before postprocessing. " in depth
    where = f"S {scan.affine[2, 3] + 3 * 13:.1f} mm"
    assert f"{9 * voxel_ml:.2f} ml in the axial slice {where}</figcaption>" in depth
    alone, _ = page_of(scan, NO_ROWS, entry={"members": [{"fold": 0}]})
    assert "Agreement of the networks" not in alone
    alike = replace(scan, agreement=np.full(SHAPE, 3, np.uint8))
    page, _ = page_of(alike, NO_ROWS, entry={"members": [{"fold": 0}, {"fold": 1}, {"fold": 2}]})
    assert "All 3 networks agree on every voxel." in page


def test_a_case_without_volumes_still_has_its_verdict(tmp_path: Path) -> None:
    _, rows, lesions = make_case(tmp_path, *draw_masks())
    page, summary = page_of("the scan has a hole", rows, lesions)
    assert "No pictures: the scan has a hole" in page
    assert summary.severity == "review"
    assert (summary.trouble, summary.thumbnail, summary.worst_picture) == ("the scan has a hole", None, None)
    page, summary = page_of("the scan has a hole", NO_ROWS)
    assert (summary.severity, summary.verdict) == ("failed", "Failed: the scan has a hole")


def test_the_thresholds_of_the_run_are_printed_and_used(tmp_path: Path) -> None:
    reference, prediction = draw_masks()
    prediction[MISSED], prediction[INVENTED] = 2, 1
    scan, rows, lesions = make_case(tmp_path, reference, prediction)
    page, summary = page_of(scan, rows, lesions, settings=ReportConfig(min_dice=0.25))
    assert summary.severity == "good"
    assert "Dice below 0.25;" in page


def test_what_headers_files_and_folders_say_is_on_no_page(tmp_path: Path) -> None:
    folder = tmp_path / "MUELLER_ANNA"
    folder.mkdir()
    _, rows, lesions = make_case(folder, *draw_masks())
    names = {}
    for role in ("image", "label", "predicted"):
        image = nib.load(folder / f"{role}.nii.gz")
        image.header["descrip"], image.header["db_name"] = b"MUELLER ANNA 1970", b"PAT-4711"
        names[role] = f"ANNA_{role}_19700101.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), folder / names[role])
    case = Case(id="one", patient="PAT-4711", images={"CT": names["image"]}, label=names["label"])
    scan = load_scan(case, DESCRIPTION, folder, folder / names["predicted"])
    pages = [page_of(scan, rows, lesions)[0], page_of(scan, NO_ROWS)[0]]
    (folder / names["predicted"]).write_bytes(b"not a mask")
    with pytest.raises(DataError) as raised:
        load_scan(case, DESCRIPTION, folder, folder / names["predicted"])
    pages.append(page_of(str(raised.value), rows, lesions)[0])
    assert "not a readable NIfTI file" in pages[-1]
    for page in pages:
        text = re.sub(r"base64,[^\"]+|<script.*?</script>", "", page, flags=re.DOTALL)
        for canary in ("MUELLER", "ANNA", "4711", "1970", tmp_path.name):
            assert canary not in text


@pytest.mark.parametrize(
    ("organ", "has_reference", "windows"),
    [
        ("liver", True, {"liver"}),
        ("lung", True, {"lung"}),
        ("spleen", True, {"soft tissue"}),
        ("liver", False, {"liver"}),
    ],
)
def test_the_viewer_begins_in_the_window_of_the_stills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, organ: str, has_reference: bool, windows: set[str]
) -> None:
    scan, rows, lesions = make_case(tmp_path, *draw_masks())
    regions = {organ: ("liver", "tumour"), "tumour": ("tumour",)}
    description = DESCRIPTION.model_copy(update={"regions": regions, "region_order": (organ, "tumour")})
    rows = rows.replace({"label": {"liver": organ}}) if has_reference else NO_ROWS
    of_stills, of_viewer = [], []

    def still(view: StillView, *_: object, **__: object) -> bytes:
        of_stills.append(view.preset.name)
        return b""

    def viewer(
        _scan: object, _targets: object, _colours: object, presets: dict, *_: object, **__: object
    ) -> None:
        of_viewer.append(presets["CT"][0].name)

    monkeypatch.setattr(errors_shown, "draw_still", still)
    monkeypatch.setattr(case_page, "make_viewer", viewer)
    page_of(scan, rows, lesions if has_reference else None, description=description)
    assert set(of_stills) == set(of_viewer) == windows


@pytest.mark.parametrize(("codes", "tilt"), [("RAS", 0), ("LPI", 0), ("SAL", 0), ("RAI", 12)])
def test_lesions_without_a_reference_are_named_where_they_are(
    tmp_path: Path, codes: str, tilt: float
) -> None:
    axis = next(place for place, code in enumerate(codes) if code in "SI")
    _, prediction = (np.moveaxis(mask, 2, axis).copy() for mask in draw_masks())
    scan, _, _ = make_case(tmp_path, prediction, prediction, codes, tilt)
    page, _ = page_of(replace(scan, reference=None), NO_ROWS, lesion_rules={"tumour": "lits"})
    named = re.search(r">([SI]) ([\d.]+) mm<", page[page.index("connected part") :])
    assert named
    height = float(named[2]) * (1 if named[1] == "S" else -1)
    heights = apply_affine(affine_of(codes, (2, 2.5, 3), tilt), np.argwhere(prediction == 2))[:, 2]
    assert heights.min() - 0.1 <= height <= heights.max() + 0.1


def test_a_scan_of_integers_gives_the_page_of_its_floats(tmp_path: Path) -> None:
    reference, prediction = draw_masks()
    values = np.random.default_rng(0).normal(50, 20, SHAPE).astype(np.int16)
    case = Case(id="one", patient="one", images={"CT": "image.nii.gz"}, label="label.nii.gz")
    write_volume(tmp_path / "image.nii.gz", values, affine_of("LPS", (2, 2.5, 3)))
    header = read_header(tmp_path / "image.nii.gz")
    write_mask(tmp_path / "label.nii.gz", reference, header)
    write_mask(tmp_path / "predicted.nii.gz", prediction, header)
    for modality in ("CT", "MR"):
        description = DESCRIPTION.model_copy(
            update={"channels": {"CT": DESCRIPTION.channels["CT"].model_copy(update={"modality": modality})}}
        )
        scans = [
            load_scan(case, description, tmp_path, tmp_path / "predicted.nii.gz", keep_integers=keep)
            for keep in (False, True)
        ]
        assert [scan.image.dtype for scan in scans] == [np.float32, np.int16]
        floats, integers = (
            page_of(replace(scan, reference=None), NO_ROWS, description=description)[0] for scan in scans
        )
        assert integers == floats
