"""The viewer in a real browser: it draws what is in the data, where it is, and its controls do what they say."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from PIL import Image
from viewer_page import box_finding, make_scan, write_page

from medunet.drawing.presets import Preset
from medunet.records.finding import Finding
from medunet.reporting import viewer as viewer_module
from medunet.reporting.viewer_volumes import Layout, encode_image

pytestmark = [pytest.mark.usefixtures("needs_viewer"), pytest.mark.slow]

SHAPE = (40, 32, 24)
SPACING = np.array([1.0, 1.5, 3.0])
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])  # an oblique scan
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = TURN * SPACING, (-20.0, 5.0, -30.0)
PRESETS = {"CT": [Preset("soft tissue", -160, 240), Preset("bone", -770, 1730)]}
TARGETS = {"organ": (1, 2), "lesion": (2,)}
ORGAN = (slice(24, 34), slice(18, 28), slice(14, 20))  # to the right, in front, near the head


def make_labels() -> tuple[NDArray, NDArray]:
    """Return reference and prediction: a shifted organ, a missed lesion of one voxel, an invented one."""
    reference = np.zeros(SHAPE, np.uint8)
    reference[ORGAN] = 1
    prediction = np.roll(reference, -2, axis=0)
    reference[30, 20, 15] = 2
    prediction[5:8, 4:7, 3:5] = 2
    return reference, prediction


def make_image() -> NDArray[np.float32]:
    image = np.random.default_rng(0).integers(-30, 30, SHAPE).astype(np.float32)
    image[ORGAN] += 200
    return image


def make_findings(reference: NDArray, prediction: NDArray) -> list[Finding]:
    invented = np.zeros(SHAPE, bool)
    invented[5:8, 4:7, 3:5] = True
    ends = (33, 22, 16), (31, 22, 16)
    return [
        box_finding("missed_lesion", "lesion", reference == 2, volume_ml=0.0045, length_mm=3.0, lesion=1),
        box_finding("false_positive_lesion", "lesion", invented, volume_ml=0.08, length_mm=7.0, lesion=1),
        Finding("surface_distance", "organ", *ends, 2.0, float("nan"), ((31, 34), (22, 23), (16, 17))),
    ]


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    reference, prediction = make_labels()
    scan = make_scan({"CT": make_image()}, AFFINE, reference=reference, prediction=prediction)
    return write_page(tmp_path, scan, TARGETS, PRESETS, make_findings(reference, prediction))[0]


def wait(page: Any) -> Any:
    page.wait_for_selector("html.viewer-runs")
    return page


def read(page: Any, canvas: str) -> NDArray[np.uint8]:
    """Return the pixels `(rows, columns, RGBA)` of a canvas as it is now, without what lies above it."""
    url = page.evaluate(
        f"() => {{ medunetViewer.drawNow(); return document.querySelector('{canvas}').toDataURL(); }}"
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))


def extent(bright: NDArray[np.bool_]) -> NDArray:
    """Return the first and last row and column of what is set."""
    places = np.argwhere(bright)
    return np.concatenate([places.min(axis=0), places.max(axis=0)])


def place_text(voxel: tuple[int, int, int]) -> str:
    """Return the position of a voxel of the oblique scan as a reader sees it."""
    position = apply_affine(AFFINE, voxel).tolist()
    pairs = zip(("LR", "PA", "IS"), position, strict=True)
    return " ".join(f"{letters[mm >= 0]} {abs(mm):.1f} mm" for letters, mm in pairs)


def set_state(page: Any, **values: Any) -> None:
    page.evaluate("values => { Object.assign(medunetViewer.state, values); }", values)


def state(page: Any, name: str) -> Any:
    return page.evaluate("name => medunetViewer.state[name]", name)


def test_pictures_follow_slice_window_and_masks(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = wait(open_page(page_file))
    assert page.locator("#viewer-off").is_hidden()
    first = read(page, ".viewer-image")
    assert first[..., :3].max() > 150  # not empty
    page.locator("#viewer-stage").focus()
    page.keyboard.press("ArrowUp")
    assert (read(page, ".viewer-image") != first).any()
    page.keyboard.press("ArrowDown")
    assert (read(page, ".viewer-image") == first).all()
    for preset in reversed(PRESETS["CT"]):  # most of the image is at 0 HU
        page.select_option("#viewer-preset", label=preset.name)
        grey = read(page, ".viewer-image")[..., 0]
        expected = 255 * (0 - preset.low) / (preset.high - preset.low)
        assert np.median(grey[grey > 0]) == pytest.approx(expected, abs=8)
    masks = read(page, "#viewer-marks")
    page.get_by_role("button", name="prediction").click()
    assert (read(page, "#viewer-marks") != masks).any()


@pytest.mark.parametrize(("plane", "ratio"), [(0, 1), (1, 1.5), (2, 2)], ids=["sagittal", "coronal", "axial"])
def test_masks_lie_on_the_image_in_radiological_orientation(
    plane: int, ratio: float, page_file: Path, open_page: Callable[..., Any]
) -> None:
    page = wait(open_page(page_file, device_scale_factor=ratio))
    middle = [28, 22, 16]
    set_state(
        page, plane=plane, layout="one", voxel=middle, crosshair=False, finding=-1, filled=True, opacity=1
    )
    set_state(page, shown=[True, False], target=0)
    page.evaluate("medunetViewer.fit()")
    coloured, bright = read_organ(page)
    rows, columns = bright.shape
    assert columns == pytest.approx(ratio * page.locator("#viewer-stage").bounding_box()["width"], abs=1)
    assert np.abs(extent(coloured) - extent(bright)).max() <= 0.02 * columns
    top, left, bottom, right = extent(coloured)
    assert (left + right) / 2 < columns / 2  # the right, or the front of sagittal planes, is on the left
    assert (top + bottom) / 2 < rows / 2  # the front or the head is up
    set_state(page, zoom=1.6, centre=[26, 20, 15])
    zoomed, bright = read_organ(page)
    assert np.abs(extent(zoomed) - extent(bright)).max() <= 0.02 * columns
    assert np.ptp(extent(zoomed)[1::2]) == pytest.approx(1.6 * (right - left), rel=0.03)


def read_organ(page: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where the organ's mask is filled, and where the image is as bright as the organ."""
    image, marks = read(page, ".viewer-image"), read(page, "#viewer-marks")
    coloured = (marks[..., 0].astype(int) - marks[..., 2] > 100) & (marks[..., 3] > 200)
    return coloured, image[..., 0] > 170  # half way up to the organ, above the noise


def test_crosshair_tells_position_and_value(page_file: Path, open_page: Callable[..., Any]) -> None:
    page, image = wait(open_page(page_file)), make_image()
    for voxel in ((28, 22, 16), (3, 30, 2)):
        set_state(page, voxel=voxel)
        page.evaluate("medunetViewer.drawNow()")
        text = page.inner_text("#viewer-place")
        assert text.startswith(place_text(voxel))
        assert f" {image[voxel]:.0f} HU".replace("-", "−") in text
        assert "stored voxel" not in text


def test_a_click_moves_the_crosshair_there(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = wait(open_page(page_file))
    set_state(page, layout="one", plane=2)
    page.evaluate("medunetViewer.fit(), medunetViewer.drawNow()")
    box = page.locator("#viewer-stage").bounding_box()
    scale = min(box["width"] / (SHAPE[0] * SPACING[0]), box["height"] / (SHAPE[1] * SPACING[1]))
    x = box["x"] + box["width"] / 2 - (8 - (SHAPE[0] - 1) / 2) * SPACING[0] * scale
    y = box["y"] + box["height"] / 2 - (25 - (SHAPE[1] - 1) / 2) * SPACING[1] * scale
    page.mouse.click(x, y)
    assert state(page, "voxel")[:2] == [8, 25]


def test_measured_distance_is_that_of_the_scan(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = wait(open_page(page_file))
    start, end = (4, 6, 10), (30, 25, 10)
    expected = np.linalg.norm(apply_affine(AFFINE, start) - apply_affine(AFFINE, end))
    assert page.evaluate("([a, b]) => medunetViewer.distance(a, b)", [start, end]) == pytest.approx(expected)
    set_state(page, layout="one", plane=2)
    page.get_by_role("button", name="Distance", exact=True).click()
    page.evaluate("medunetViewer.drawNow()")
    before = read(page, "#viewer-marks")
    box = page.locator("#viewer-stage").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 300)
    page.mouse.up()
    ruler = state(page, "ruler")
    assert ruler["from"] != ruler["to"]
    assert (read(page, "#viewer-marks") != before).any()


def test_every_finding_is_in_its_picture(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = wait(open_page(page_file))
    findings = make_findings(*make_labels())
    assert state(page, "finding") == 0  # the first is shown at once
    page.get_by_role("link", name="the second finding").click()
    assert state(page, "finding") == 1
    for place, finding in enumerate(findings):
        page.locator(f"button[data-finding='{place}']").click()
        page.evaluate("medunetViewer.drawNow()")
        assert state(page, "voxel") == list(finding.centre)
        assert page.locator(f"button[data-finding='{place}']").get_attribute("aria-current") == "true"
        shown = page.inner_text("#viewer-place")
        assert shown.endswith(viewer_module.describe_finding(finding))
        marked = read(page, "#viewer-marks")
        set_state(page, finding=-1)
        assert (read(page, "#viewer-marks") != marked).any()  # its frame or line
        if finding.kind == "surface_distance":
            continue
        set_state(page, finding=place, crosshair=False)
        page.keyboard.press("e")
        with_errors = read(page, "#viewer-marks")
        set_state(page, errors=-1, shown=[False, False])
        changed = (read(page, "#viewer-marks") != with_errors).any(axis=2)
        assert changed.sum() > 50, finding.kind  # the error itself, even of one voxel
        set_state(page, shown=[True, True])


def test_keys_do_what_the_list_says(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = wait(open_page(page_file))
    stage = page.locator("#viewer-stage")

    def press(key: str, name: str) -> tuple[Any, Any]:
        stage.focus()
        before = state(page, name)
        page.keyboard.press(key)
        page.evaluate("medunetViewer.drawNow()")
        return before, state(page, name)

    for key, name in (
        *(("ArrowUp", "voxel"), ("ArrowDown", "voxel"), ("o", "plane"), ("a", "plane"), ("s", "plane")),
        *(("v", "layout"), ("w", "windows"), ("+", "zoom"), ("-", "zoom"), ("1", "shown"), ("2", "shown")),
        *(("m", "shown"), ("e", "errors"), ("t", "target"), ("f", "filled"), ("[", "opacity")),
        *(("]", "opacity"), ("x", "crosshair"), ("d", "measuring"), ("n", "finding"), ("p", "finding")),
    ):
        before, after = press(key, name)
        assert before != after, key
    page.keyboard.press("?")
    assert page.locator("#viewer-help").is_visible()
    listed = page.locator("#viewer-keys dt").all_inner_texts()
    assert {"Arrow up", "N", "?", "E", "Wheel"} <= set(listed)
    page.keyboard.press("Escape")
    assert page.locator("#viewer-help").is_hidden()
    assert not state(page, "measuring")
    page.locator("h1").click()  # without the focus, keys are the page's
    page.keyboard.press("x")
    page.locator("#viewer-slice").focus()
    assert press("0", "zoom")[1] == 1


def test_wheel_scrolls_slices_only_with_the_focus(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = wait(open_page(page_file))
    page.locator("#viewer-stage").hover()
    before = state(page, "voxel")
    page.mouse.wheel(0, 100)
    assert state(page, "voxel") == before
    page.locator("#viewer-stage").focus()
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(100)
    after = state(page, "voxel")
    assert after[2] == before[2] - 1


def test_a_coarser_display_names_the_voxel_of_its_values(
    tmp_path: Path, open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = ((3, 40), (2, 32), (1, 24))
    layout = Layout(box, (2, 2, 1))
    encoded = [encode_image(make_image(), layout)]
    monkeypatch.setattr(viewer_module, "encode_images", lambda *_: (layout, encoded))
    reference, prediction = make_labels()
    scan = make_scan({"CT": make_image()}, AFFINE, reference=reference, prediction=prediction)
    findings = make_findings(reference, prediction)
    path, viewer = write_page(tmp_path, scan, TARGETS, PRESETS, findings)
    assert any("one voxel in 2 × 2 × 1" in notice for notice in viewer.notices)
    page, image = wait(open_page(path)), make_image()
    set_state(page, voxel=[10, 8, 5])  # on the stored grid, which begins at (3, 2, 1)
    page.evaluate("medunetViewer.drawNow()")
    assert f" {image[13, 10, 6]:.0f} HU".replace("-", "−") in page.inner_text("#viewer-place")
    page.locator("button[data-finding='0']").click()  # at (30, 20, 15), which is not stored
    page.evaluate("medunetViewer.drawNow()")
    text = page.inner_text("#viewer-place")
    assert "HU at the stored voxel 1.0 mm away" in text
    assert text.startswith(place_text((30, 20, 15)))
    assert "reference: organ, lesion" in text  # masks are at full resolution
    set_state(page, plane=2, layout="one", crosshair=False, finding=-1, filled=True, opacity=1, target=0)
    set_state(page, shown=[True, False])
    page.evaluate("medunetViewer.fit()")
    coloured, bright = read_organ(page)
    difference = extent(coloured) - extent(bright)
    assert np.abs(difference).max() <= 0.05 * coloured.shape[1]  # a stored voxel


def test_several_images_are_switched_or_side_by_side(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    reference, prediction = make_labels()
    images = {"T1": make_image(), "FLAIR": -make_image()}
    presets = {
        name: [Preset("range", float(image.min()), float(image.max()))] for name, image in images.items()
    }
    scan = make_scan(images, AFFINE, reference=reference, prediction=prediction, modality="MRI")
    findings = make_findings(reference, prediction)
    path, _ = write_page(tmp_path, scan, TARGETS, presets, findings, shown_on={"lesion": "FLAIR"})
    page = wait(open_page(path))
    assert state(page, "channel") == 1  # the image that shows the first finding's target
    page.select_option("#viewer-layout", label="images side by side")
    page.wait_for_function("() => document.querySelectorAll('.viewer-image').length === 2")
    page.evaluate("medunetViewer.drawNow()")
    page.wait_for_timeout(500)
    text = page.inner_text("#viewer-place")
    assert "T1 " in text
    assert "FLAIR " in text
    shot = np.asarray(Image.open(io.BytesIO(page.locator("#viewer-stage").screenshot())).convert("L")).astype(
        int
    )
    half = shot.shape[1] // 2
    assert shot[:, :half].std() > 10
    assert shot[:, half:].std() > 10


def test_pictures_in_colour_have_pixels_and_no_directions(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    picture = np.zeros((30, 20, 1, 3), np.float32)
    picture[20:, :, 0] = (250, 120, 10)
    mask = np.zeros((30, 20, 1), np.uint8)
    mask[20:] = 1
    affine = np.eye(4)
    affine[:2, 3] = (-29, -19)  # as pictures have it, against columns and rows
    scan = make_scan({"red, green, blue": picture}, affine, reference=mask, modality="photo", unit="px")
    page = wait(open_page(write_page(tmp_path, scan, {"cell": (1,)}, {})[0]))
    set_state(page, shown=[False], crosshair=False, voxel=[25, 10, 0])
    image = read(page, ".viewer-image")
    colours, counts = np.unique(image[..., :3].reshape(-1, 3), axis=0, return_counts=True)
    assert [250, 120, 10] in colours[counts > 1000].tolist()
    text = page.inner_text("#viewer-place")
    assert "250, 120, 10" in text
    assert "column 4, row 9" in text
    assert "mm" not in text


def test_without_the_library_or_webgl_or_scripts_the_page_says_so(
    page_file: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(page_file, java_script_enabled=False)
    assert "needs JavaScript and WebGL 2" in page.inner_text("#viewer-off")
    assert page.locator("#viewer-on").is_hidden()
    no_webgl = "HTMLCanvasElement.prototype.getContext = () => null;"
    page = open_page(page_file, first=no_webgl)
    page.wait_for_selector("#viewer-off:has-text('WebGL')")
    assert page.locator("#viewer-on").is_hidden()
    (page_file.parents[1] / "assets" / "niivue.umd.js").unlink()
    page = open_page(page_file, expected="ERR_FILE_NOT_FOUND")
    page.wait_for_selector("#viewer-off:has-text('is missing beside the pages')")
    assert page.locator("#viewer-on").is_hidden()


def test_names_are_text_whatever_is_in_them(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    name = "<b>$x</b></script><script>alert(1)</script>\"'&\u2028 עברית"
    reference, _ = make_labels()
    scan = make_scan({name: make_image()}, AFFINE, reference=reference)
    finding = box_finding("missed_lesion", name, reference == 2, lesion=1)
    path, _ = write_page(tmp_path, scan, {name: (1, 2)}, {name: [Preset(name, 0, 100)]}, [finding])
    page = wait(open_page(path))
    assert name in page.evaluate(
        "[...document.querySelector('#viewer-target').options].map(o => o.textContent)"
    )
    assert page.evaluate("document.querySelectorAll('b').length") == 0
    assert "</b></script>" in page.inner_text(".viewer-findings")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(
    scheme: str,
    page_file: Path,
    open_page: Callable[..., Any],
    find_serious_faults: Callable[[Any], list[str]],
) -> None:
    page = wait(open_page(page_file, color_scheme=scheme, bypass_csp=True))
    page.locator("#viewer-ask").click()
    assert find_serious_faults(page) == []


def test_narrow_and_printed(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = wait(open_page(page_file, width=420))
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.emulate_media(media="print")
    assert page.locator("#viewer").is_hidden()
