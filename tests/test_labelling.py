"""A sample is labelled on a page: it shows the right pixels, says nothing of the map, and joins."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re

import numpy as np
import pyogrio
import pytest
from click.testing import CliRunner
from PIL import Image
from report_samples import NORTH_UP, UTM, paint_run
from test_report_page import chromium  # noqa: F401

from geocd.assess.labelling import read_labels
from geocd.assess.sampled import judge_sample, make_sample
from geocd.config import SampleConfig
from geocd.errors import ConfigError, InputError, OutputExistsError
from geocd.testing import write_raster
from geocd_cli.main import main

CONFIG = SampleConfig(per_stratum=3, buffer=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sample, its page, and the folder of both images."""
    folder = tmp_path_factory.mktemp("labelling")
    run = paint_run(folder)
    _make(run, folder)
    return folder


def _make(run, folder, **changes):
    images = str(run.before), str(run.after)
    settings = {"config": CONFIG, "page": folder / "labels.html", "images": images} | changes
    return make_sample(run.mask, folder / "sample.gpkg", **settings)


def _facts(page):
    text = page.read_text()
    packed = re.search(r'id="facts">([^<]+)<', text)[1]
    images = re.search(r'id="images">([^<]+)<', text)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed))), base64.b64decode(images)


def _units(folder):
    return pyogrio.read_dataframe(folder / "sample.gpkg", layer="sample", read_geometry=False)


def _write(path, sample, labels):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sample", "unit", "reference", "note"])
        rows.writerows([sample, unit, label, "a, b"] for unit, label in labels.items())
    return path


def test_each_chip_shows_its_unit_in_the_middle_on_both_dates(made):
    facts, images = _facts(made / "labels.html")
    units, ends = _units(made), np.cumsum([0, *facts["bytes"]])
    assert facts["units"] == len(units)
    import rasterio

    with rasterio.open(made / "before.tif") as dataset:
        before = np.moveaxis(dataset.read(), 0, -1).astype(int)
    for index, (row, col) in enumerate(zip(units["row"], units["col"], strict=True)):
        chip = np.asarray(Image.open(io.BytesIO(images[ends[2 * index] : ends[2 * index + 1]])))
        half = facts["side"] // 2
        around = before[max(0, row - 3) : row + 4, max(0, col - 3) : col + 4].mean(axis=(0, 1))
        top, left = max(0, half - min(row, 3)), max(0, half - min(col, 3))
        shown = chip[top : half + min(4, before.shape[0] - row), :, :3][
            :, left : half + min(4, before.shape[1] - col)
        ].mean(axis=(0, 1))
        np.testing.assert_allclose(shown, around, atol=12)


def test_the_page_tells_nothing_of_the_map_and_asks_for_nothing(made):
    text = (made / "labels.html").read_text()
    facts, _ = _facts(made / "labels.html")
    assert not {"stratum", "map_class"} & set(facts)
    assert "stratum" not in text
    assert "http:" not in text.split("</style>")[1]
    assert "geocd assess sample.gpkg --labels sample-labels.csv" in text


def test_labels_of_several_people_join_and_the_file_stays(made, tmp_path):
    facts, _ = _facts(made / "labels.html")
    truth = dict(_units(made)[["unit", "map_class"]].itertuples(index=False))
    content = (made / "sample.gpkg").read_bytes()
    odd = _write(tmp_path / "1.csv", facts["sample"], {u: t for u, t in truth.items() if u % 2})
    even = _write(
        tmp_path / "2.csv", facts["sample"], {u: t for u, t in truth.items() if not u % 2}
    )
    with pytest.raises(InputError, match="have no label"):
        judge_sample(made / "sample.gpkg", labels=[odd])
    told = CliRunner().invoke(
        main, ["assess", str(made / "sample.gpkg"), "--labels", str(odd), "--labels", str(even),
               "--json"],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["overall"]["value"] == 1
    assert (made / "sample.gpkg").read_bytes() == content


def test_labels_that_contradict_each_other_or_are_of_another_sample_are_refused(made, tmp_path):
    facts, _ = _facts(made / "labels.html")
    one = _write(tmp_path / "1.csv", facts["sample"], {1: "none"})
    other = _write(tmp_path / "2.csv", facts["sample"], {1: "road"})
    with pytest.raises(InputError, match="unit 1 is labelled 'none' and 'road'"):
        judge_sample(made / "sample.gpkg", labels=[one, other])
    strange = _write(tmp_path / "3.csv", "0123456789abcdef", {1: "none"})
    with pytest.raises(InputError, match="are of the sample 0123456789abcdef"):
        judge_sample(made / "sample.gpkg", labels=[strange])


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "sample,unit,reference,note\ns,x,none,\n",
             "sample,unit,reference,note\ns,1,none,\ns,1,road,\n",
             "sample,unit,reference,note\ns,1,none,\nt,2,road,\n"],
)  # fmt: skip
def test_files_that_are_no_labels_are_refused(tmp_path, text):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match="holds"):
        read_labels(tmp_path / "l.csv")
    with pytest.raises(InputError, match="holds no labels"):
        read_labels(tmp_path / "nothing.csv")


def test_pages_that_cannot_be_are_refused_before_anything_is_written(made, tmp_path):
    run = paint_run(tmp_path)
    with pytest.raises(ConfigError, match=r"written as \.html"):
        _make(run, tmp_path, page=tmp_path / "labels.pdf")
    (tmp_path / "labels.html").write_text("precious")
    with pytest.raises(OutputExistsError):
        _make(run, tmp_path)
    with pytest.raises(ConfigError, match="--images BEFORE AFTER"):
        _make(run, tmp_path, page=tmp_path / "l.html", images=None)
    small = write_raster(tmp_path / "small.tif", np.zeros((3, 50, 60), np.uint8), crs=UTM,
                         transform=NORTH_UP)  # fmt: skip
    with pytest.raises(InputError, match="give the images that the map was made of"):
        _make(run, tmp_path, page=tmp_path / "l.html", images=(str(small), str(small)))
    assert not (tmp_path / "sample.gpkg").exists()


@pytest.mark.browser
def test_keys_label_units_and_the_export_is_what_assess_joins(chromium, made, tmp_path):  # noqa: F811
    tab = chromium.new_context(accept_downloads=True).new_page()
    complaints, asked = [], []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((made / "labels.html").as_uri())
    tab.wait_for_selector("html[data-ready=yes]")
    truth = dict(_units(made)[["unit", "map_class"]].itertuples(index=False))
    keys = {"none": "1", "building": "2", "road": "3"}
    assert tab.locator("#export").is_disabled()
    tab.keyboard.press("5")  # cannot tell
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("[data-label=unclear]").get_attribute("aria-pressed") == "true"
    tab.keyboard.press("5")  # taken back
    for unit, label in truth.items():
        assert tab.locator("#unit").inner_text() == f"Unit {unit} of {len(truth)}"
        if unit == 2:
            tab.keyboard.press("n")
            tab.keyboard.type('1 "roof", new')  # no digit labels while a note is written
            tab.keyboard.press("Enter")
        tab.keyboard.press(keys[label])
    assert tab.locator("#count").inner_text() == f"{len(truth)} of {len(truth)} labelled"
    tab.reload()
    tab.wait_for_selector("html[data-ready=yes]")
    with tab.expect_download() as download:
        tab.locator("#export").click()
    assert download.value.suggested_filename == "sample-labels.csv"
    download.value.save_as(tmp_path / "l.csv")
    with (tmp_path / "l.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["note"] == '1 "roof", new'
    judged = judge_sample(made / "sample.gpkg", labels=[tmp_path / "l.csv"])
    assert judged.to_dict()["overall"]["value"] == 1
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    tab.context.close()
