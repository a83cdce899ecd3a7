"""The report in a headless Chromium: swipe, list, verdicts, export; quiet, and never online."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from report_samples import NASTY, change_frame, layers_of_the_run, paint_run

from geocd.config import ReportConfig
from geocd.report import apply_verdicts, write_report
from geocd.report.layer import read_changes

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT = 30_000
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    if not Path(CHROMIUM).exists():
        pytest.skip("Debian's Chromium is not installed (make system-deps)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return paint_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run):
    target = run.changes.with_name("report.html")
    return write_report(run.changes, **run.images, mask=run.mask, output=target).output


@pytest.fixture
def page(chromium, report):
    """The open report; the test fails if it asks the network or complains."""
    yield from _open(chromium, report)


def _open(chromium, report, **context):
    tab = chromium.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
    tab.set_default_timeout(WAIT)
    asked, complaints = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(report.as_uri())
    tab.wait_for_selector("html[data-ready=yes]")
    yield tab
    outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    assert [url for url in asked if url.startswith("file:")] in (
        [report.as_uri()], [report.as_uri()] * 2,
    )  # fmt: skip
    assert complaints == []
    tab.context.close()


def _pixel(tab, x: float, y: float) -> int:
    """Brightness of the map in shares of its size, as it is on the screen."""
    picture = Image.open(io.BytesIO(tab.locator("#map").screenshot())).convert("L")
    return picture.getpixel((int(x * picture.width), int(y * picture.height)))


def _row(tab, number: int):
    return tab.locator(f"#change-{number}")


def _chosen(tab) -> str:
    return tab.locator(".row[aria-selected=true] .what").inner_text()


def test_the_page_is_quiet_and_opens_no_other_file(page):
    page.wait_for_selector("#change-0")
    assert page.title() == "Changes, 2019-06-14 to 2024-09-02"
    assert page.locator("#count").inner_text() == "4 of 4 shown"
    assert page.evaluate("window.hacked") is None


def test_the_swipe_moves_by_pointer_and_by_keys(page):
    handle = page.locator("#swipe")
    # A building that appeared: left of the swipe there is none, right of it there is.
    page.evaluate("geocdReport.outlines.rows = []; geocdReport.outlines.draw()")
    place = page.evaluate(
        """() => { const map = geocdReport.map, size = map.getSize();
        const point = map.latLngToContainerPoint([-65, 70]);
        return [point.x / size.x, point.y / size.y]; }"""
    )
    assert _pixel(page, *place) < 200
    grip = page.locator(".grip").bounding_box()
    page.mouse.move(grip["x"] + 20, grip["y"] + 20)
    page.mouse.down()
    page.mouse.move(page.locator("#map").bounding_box()["x"] + 10, grip["y"] + 20, steps=4)
    page.mouse.up()
    assert int(handle.get_attribute("aria-valuenow")) < 10
    assert _pixel(page, *place) > 220
    handle.focus()
    handle.press("End")
    assert handle.get_attribute("aria-valuenow") == "100"
    assert _pixel(page, *place) < 200
    handle.press("ArrowLeft")
    assert handle.get_attribute("aria-valuenow") == "98"


def test_outlines_follow_the_map_when_it_zooms(page):
    zoom = page.evaluate("geocdReport.map.getZoom()")
    page.locator(".leaflet-control-zoom-in").click()
    page.wait_for_function("zoom => geocdReport.map.getZoom() > zoom", arg=zoom)
    page.wait_for_timeout(400)
    drawn = page.evaluate(
        """() => { const map = geocdReport.map, ratio = window.devicePixelRatio;
        const point = map.latLngToContainerPoint([-110, 120]);
        const context = document.querySelector('.leaflet-outlines-pane canvas').getContext('2d');
        return [...context.getImageData(point.x * ratio, point.y * ratio, 1, 1).data]; }"""
    )
    assert drawn[:3] == pytest.approx([86, 180, 233], abs=40)
    assert drawn[3] > 200


def test_a_click_on_the_list_zooms_and_highlights(page):
    zoom = page.evaluate("geocdReport.map.getZoom()")
    _row(page, 2).click()
    assert page.evaluate("geocdReport.map.getZoom()") > zoom
    centre = page.evaluate("(c => [c.lng, -c.lat])(geocdReport.map.getCenter())")
    assert centre == pytest.approx([215, 162.5], abs=2)
    assert _row(page, 2).get_attribute("aria-selected") == "true"
    assert page.evaluate("geocdReport.outlines.chosen") == 2
    assert page.locator("#selected-title").inner_text() == "Building 3"
    assert "188 m²" in page.locator("#attributes").inner_text()


def test_a_click_on_the_map_chooses_what_is_there(page):
    box = page.locator("#map").bounding_box()
    for x, y, name in ((126, 60, "Road 2"), (60, 60, "Building 1")):
        point = page.evaluate("([x, y]) => geocdReport.map.latLngToContainerPoint([-y, x])", [x, y])
        page.mouse.click(box["x"] + point["x"], box["y"] + point["y"])
        assert _chosen(page) == name
    point = page.evaluate("geocdReport.map.latLngToContainerPoint([-220, 20])")
    page.mouse.click(box["x"] + point["x"], box["y"] + point["y"])
    assert page.locator(".row[aria-selected=true]").count() == 0


def test_keys_move_through_the_list_and_mark(page):
    page.locator("#list").focus()
    for key, name in (("j", "Building 1"), ("ArrowDown", "Road 2"), ("k", "Building 1"),
                      ("ArrowUp", "Building 1")):  # fmt: skip
        page.keyboard.press(key)
        assert _chosen(page) == name
    for key, verdict in (("a", "accepted"), ("r", "rejected"), ("U", "unsure")):
        page.keyboard.press(key)
        assert _row(page, 0).locator(".badge").inner_text() == verdict
        pressed = page.locator("[data-verdict][aria-pressed=true]")
        assert pressed.get_attribute("data-verdict") == verdict
    page.keyboard.press("u")
    assert _row(page, 0).locator(".badge").inner_text() == ""


def test_keys_in_a_note_are_text(page):
    _row(page, 0).click()
    page.locator("[data-verdict=accepted]").click()
    page.locator("#note").press_sequentially("rua")
    assert page.locator("#note").input_value() == "rua"
    assert _row(page, 0).locator(".badge").inner_text() == "accepted"


def test_verdicts_survive_a_reload(page):
    _row(page, 1).click()
    page.keyboard.press("r")
    page.locator("#note").fill("a shadow")
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert _row(page, 1).locator(".badge").inner_text() == "rejected"
    _row(page, 1).click()
    assert page.locator("#note").input_value() == "a shadow"
    assert "1 of 4 changes reviewed" in page.locator("#progress").inner_text()


def test_the_export_is_geojson_that_review_apply_takes(page, run, tmp_path):
    for row, key in ((0, "a"), (1, "r"), (3, "a")):
        _row(page, row).click()
        page.keyboard.press(key)
    page.locator("#note").fill(NASTY)
    assert "Precision so far 67 %" in page.locator("#progress").inner_text()
    with page.expect_download() as download:
        page.locator("#export").click()
    assert download.value.suggested_filename == "changes-verdicts.geojson"
    exported = tmp_path / "verdicts.geojson"
    download.value.save_as(exported)
    document = json.loads(exported.read_text())
    assert document["type"] == "FeatureCollection"
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        lon, lat = feature["geometry"]["coordinates"]
        assert (lon, lat) == pytest.approx((15, 45.15), abs=0.01)
    changes = tmp_path / "changes.gpkg"
    changes.write_bytes(run.changes.read_bytes())
    result = apply_verdicts(exported, changes)
    assert (result.total.accepted, result.total.rejected, result.unknown) == (2, 1, ())
    frame = read_changes(changes).frame
    assert frame["verdict"].fillna("").tolist() == ["accepted", "rejected", "", "accepted"]
    assert frame["verdict_note"][3] == NASTY


def test_filters_by_kind_score_and_verdict_and_the_sorting(page):
    names = lambda: page.locator(".row .what").all_inner_texts()  # noqa: E731
    page.locator("#sort").select_option("score")
    assert [n.split()[-1] for n in names()] == ["1", "3", "4", "2"]
    page.locator("#score").fill("0.75")
    assert page.locator("#count").inner_text() == "2 of 4 shown"
    page.locator("#score").fill("0")
    page.locator("[name=kind]").first.uncheck()
    assert page.locator("#count").inner_text() == "2 of 4 shown"
    _row(page, 1).click()
    page.keyboard.press("a")
    page.locator("#verdict-filter").select_option("none")
    assert page.locator("#count").inner_text() == "1 of 4 shown"
    page.locator("#verdict-filter").select_option("unsure")
    assert "No change passes the filters" in page.locator("#list").inner_text()


def test_thumbnails_show_both_dates(page):
    page.wait_for_function("document.querySelectorAll('#change-0 canvas')[1].width > 0")
    page.wait_for_timeout(200)
    means = page.evaluate(
        """() => [...document.querySelectorAll('#change-0 canvas')].map((canvas) => {
        const side = canvas.width / 5;
        const {data} = canvas.getContext('2d').getImageData(2 * side, 2 * side, side, side);
        return data.filter((_, i) => i % 4 === 0).reduce((a, b) => a + b) / (data.length / 4);
        })"""
    )
    assert means[0] < 200
    assert means[1] > 240


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_light_and_dark(chromium, report, scheme):
    for tab in _open(chromium, report, color_scheme=scheme):
        contrasts = tab.evaluate(
            """() => { const style = getComputedStyle(document.documentElement);
            const part = (name) => { const probe = document.createElement('i');
              probe.style.color = style.getPropertyValue(name); document.body.append(probe);
              const found = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3)
                .map((v) => v / 255)
                .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
              probe.remove(); return .2126 * found[0] + .7152 * found[1] + .0722 * found[2]; };
            const ratio = (a, b) => { const [x, y] = [part(a), part(b)].sort((p, q) => q - p);
              return (x + .05) / (y + .05); };
            return [['--ink', '--paper'], ['--faint', '--paper'], ['--faint', '--panel'],
              ['--accent', '--paper'], ['--on-accent', '--accent'], ['--good', '--chosen'],
              ['--bad', '--chosen'], ['--open', '--chosen'], ['--faint', '--chosen'],
              ['--paper', '--good'], ['--paper', '--bad'], ['--paper', '--open']]
              .map(([a, b]) => [a, b, ratio(a, b)]); }"""
        )
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
        assert dark == (scheme == "dark")
        # WCAG 2.2, level AA.
        assert [c for c in contrasts if c[2] < 4.5] == []


def test_everything_is_reached_by_the_tab_key_with_a_visible_focus(page):
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(
            """() => { const at = document.activeElement, style = getComputedStyle(at);
            const grip = at.id === 'swipe' ? getComputedStyle(at.firstElementChild) : style;
            return [at.id || at.name || at.className || at.tagName,
                    grip.outlineStyle !== 'none']; }"""
        )
        seen.add(name)
        assert outlined or name == "BODY", name
    assert {"kind", "score", "sort", "map", "swipe", "list"} <= seen


def test_paper_shows_both_dates_and_the_changes(page):
    page.emulate_media(media="print")
    page.wait_for_selector(".print-row >> nth=3")
    assert page.locator(".work").is_hidden()
    assert page.locator("#plate-before").is_visible()
    assert page.locator("#print-title").inner_text() == "First 4 of 4 changes by area"
    page.wait_for_function("document.getElementById('plate-after').naturalWidth > 0")
    assert page.pdf().startswith(b"%PDF")


def test_a_narrow_screen_needs_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 360, "height": 740})
    _row(page, 0).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_an_empty_report_opens(chromium, tmp_path):
    run = paint_run(tmp_path, frame=change_frame((), ()))
    report = write_report(run.changes, **run.images, output=tmp_path / "r.html").output
    for tab in _open(chromium, report):
        assert "No change was found" in tab.locator("#list").inner_text()
        tab.keyboard.press("j")
        tab.keyboard.press("a")


def test_a_report_without_a_crs_exports_verdicts_without_a_place(chromium, tmp_path):
    run = paint_run(tmp_path, georeferenced=False)
    report = write_report(run.changes, **run.images, output=tmp_path / "r.html").output
    for tab in _open(chromium, report):
        _row(tab, 0).click()
        tab.keyboard.press("a")
        with tab.expect_download() as download:
            tab.locator("#export").click()
        download.value.save_as(tmp_path / "v.geojson")
        (feature,) = json.loads((tmp_path / "v.geojson").read_text())["features"]
        assert feature["geometry"] is None
    assert apply_verdicts(tmp_path / "v.geojson", run.changes).applied == 1


def _drawing(tab) -> Image.Image:
    """What is drawn over the images."""
    canvas = tab.locator(".leaflet-outlines-pane canvas")
    address = canvas.evaluate("canvas => canvas.toDataURL()")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_layers_beside_the_changes_are_switched_by_keys(chromium, tmp_path):
    run = paint_run(tmp_path, layers=layers_of_the_run())
    report = write_report(
        run.changes, **run.images, mask=run.mask, output=tmp_path / "r.html"
    ).output
    for tab in _open(chromium, report):
        place = tab.evaluate("geocdReport.map.latLngToContainerPoint([-112, 60])")
        whole = _drawing(tab)
        road = whole.getpixel((round(place["x"]), round(place["y"])))
        assert road[:3] == pytest.approx([240, 228, 66], abs=40)
        for name in ("centrelines", "not_observed", "footprint"):
            switch = tab.locator(f"[name=layer][value={name}]")
            switch.focus()
            tab.keyboard.press("Space")
            assert not switch.is_checked()
            assert _drawing(tab) != whole
            tab.keyboard.press("Space")
            assert _drawing(tab) == whole
        veil = tab.locator(".leaflet-veil-pane")
        assert veil.evaluate("pane => pane.style.display") == ""
        tab.locator("[name=layer][value=not_observed]").uncheck()
        assert veil.evaluate("pane => pane.style.display") == "none"


def test_a_sharper_picture_is_laid_over_a_coarse_map(chromium, run, tmp_path):
    config = ReportConfig(overview_size=256, max_thumbnails=4)
    target = tmp_path / "r.html"
    report = write_report(run.changes, **run.images, output=target, config=config).output
    for tab in _open(chromium, report):
        _row(tab, 3).click()
        assert tab.locator(".leaflet-before-pane img").count() == 2
        tab.keyboard.press("k")
        tab.keyboard.press("j")
        assert tab.locator(".leaflet-before-pane img").count() == 2
