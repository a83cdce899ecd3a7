"""Debian's QGIS, headless, opens what geocd writes, and styles it by itself."""

from __future__ import annotations

from pathlib import Path

import headless_qgis
import numpy as np
import pytest
from affine import Affine
from arithmetic import open_arithmetic
from headless_qgis import probe
from PIL import Image
from rasterio.crs import CRS

import geocd
from geocd.config import CHANGE_MAP_COLOURS, AlignConfig, DetectConfig, VectorizeConfig
from geocd.testing import paint_scene, shifted_pair, write_raster

NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
pytestmark = pytest.mark.qgis


@pytest.fixture(scope="module", autouse=True)
def _qgis() -> None:
    headless_qgis.require()


@pytest.fixture(scope="module", params=["changes", "no changes", "no CRS"])
def run(request, tmp_path_factory):
    """A run of detect, with how many polygons it gave."""
    folder = tmp_path_factory.mktemp("qgis")
    before = paint_scene((200, 240), seed=2) // 2 + 64
    after = before.copy()
    if request.param != "no changes":
        after[:, 30:70, 40:90], after[:, 120:130, 10:220] = 250, 2
        after[:, 170:200, 200:240] = 0
    georeferenced = request.param != "no CRS"
    paths = [
        write_raster(folder / f"{name}.tif", image, nodata=0,
                     crs=CRS.from_epsg(32633) if georeferenced else None,
                     transform=NORTH_UP if georeferenced else Affine.identity())
        for name, image in (("before", before), ("after", after))
    ]  # fmt: skip
    config = DetectConfig(align=AlignConfig(mode="off"), vectorize=VectorizeConfig(min_area=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geocd.pipeline.open_predictor", open_arithmetic)
        result = geocd.detect(*paths, folder / "c.gpkg", mask=folder / "m.tif",
                              scores=folder / "s.tif", config=config)  # fmt: skip
    return result, "EPSG:32633" if georeferenced else ""


def test_polygons_open_styled_by_kind(run, tmp_path):
    result, crs = run
    facts = probe("vector", result.output, tmp_path / "c.png")
    assert facts["valid"]
    assert facts["features"] == result.count
    assert facts["crs"] == crs
    assert (facts["renderer"], facts["attribute"]) == ("categorizedSymbol", "kind")
    assert facts["categories"] == {
        "building": "Building change", "road": "Road change", "": "Other change",
    }  # fmt: skip
    for code, kind in ((1, "building"), (2, "road")):
        red, green, blue, _ = CHANGE_MAP_COLOURS[code]
        assert facts["colours"][kind] == f"#{red:02x}{green:02x}{blue:02x}"
    assert {"kind", "score_mean", "area_m2", "observed", "before_date"} <= set(facts["fields"])
    assert (tmp_path / "c.png").stat().st_size > 0


def test_the_change_map_opens_with_a_legend_in_words(run, tmp_path):
    result, crs = run
    facts = probe("raster", result.mask, tmp_path / "m.png")
    assert facts["valid"]
    assert facts["crs"] == crs
    assert facts["renderer"] == "paletted"
    assert facts["legend"] == {
        "0": "No change", "1": "Building change", "2": "Road change",
        "3": "Change of unknown kind", "255": "Not observed",
    }  # fmt: skip
    assert {int(k): tuple(v) for k, v in facts["colours"].items()} == CHANGE_MAP_COLOURS
    # The picture is 600 pixels wide for 240; rows start 50 pixels down.
    picture = Image.open(tmp_path / "m.png").convert("RGB")
    unobserved, unchanged = picture.getpixel((550, 512)), picture.getpixel((300, 100))
    assert unchanged == (255, 255, 255)
    assert max(unobserved) - min(unobserved) < 4
    assert (180 < unobserved[0] < 200) == (result.observed < 1)


def test_every_layer_of_a_run_opens_styled_with_a_legend_in_words(run):
    result, crs = run
    layers = probe("layers", result.output)
    assert {name: facts["legend"] for name, facts in layers.items()} == {
        "changes": ["Building change", "Road change", "Other change"],
        "centrelines": ["Centreline of a road change"],
        "not_observed": ["Not observed (one date or both)"],
        "footprint": ["Extent that was compared"],
    }
    assert all(facts["valid"] and facts["crs"] == crs for facts in layers.values())


def test_scores_open_as_a_ramp_that_hides_what_was_not_observed(run, tmp_path):
    result, crs = run
    facts = probe("raster", result.scores, tmp_path / "s.png")
    assert facts["valid"]
    assert facts["crs"] == crs
    assert facts["renderer"] == "singlebandpseudocolor"
    assert facts["legend"] == ["0.0 (no change)", "0.25", "0.5", "0.75", "1.0 (change)"]
    picture = Image.open(tmp_path / "s.png").convert("RGB")
    unobserved, unchanged = picture.getpixel((550, 512)), picture.getpixel((300, 100))
    assert unobserved == unchanged == (255, 255, 255)
    if result.count:
        # The middle of the painted building: rows 30..70, columns 40..90.
        assert picture.getpixel((162, 50 + 125)) == (73, 0, 106)


@pytest.fixture(scope="module")
def ties(tmp_path_factory) -> Path:
    """Tie points of a pair that a shift aligns."""
    folder = tmp_path_factory.mktemp("ties")
    paths = [
        write_raster(folder / f"{k}.tif", image, crs=CRS.from_epsg(32633), transform=NORTH_UP)
        for k, image in enumerate(shifted_pair((300, 340), shift=(4.0, -6.5), seed=5))
    ]
    geocd.coregister(paths[0], paths[1:], folder / "o.tif", tie_points=folder / "t.gpkg")
    return folder / "t.gpkg"


def test_tie_points_open_styled_by_role(ties, tmp_path):
    facts = probe("vector", f"{ties}|layername=tie_points", tmp_path / "t.png")
    assert facts["valid"]
    assert facts["crs"] == "EPSG:32633"
    assert (facts["renderer"], facts["attribute"]) == ("categorizedSymbol", "role")
    assert set(facts["categories"]) == {"held-out", "fit", "outlier"}
    assert set(facts["drawn"].values()) == {"SimpleMarker"}
    assert {"residual_before_px", "residual_after_px", "score"} <= set(facts["fields"])


def test_residuals_open_as_arrows_before_and_after(ties, tmp_path):
    facts = probe("vector", f"{ties}|layername=residual_arrows", tmp_path / "a.png")
    assert facts["valid"]
    assert facts["features"] > 20
    assert (facts["renderer"], facts["attribute"]) == ("categorizedSymbol", "alignment")
    assert facts["drawn"] == {"before": "ArrowLine", "after": "ArrowLine"}
    assert {"residual_px", "scale"} <= set(facts["fields"])
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    for colour in ((213, 94, 0), (0, 114, 178)):
        assert (np.abs(picture - colour).sum(axis=-1) < 30).sum() > 100
