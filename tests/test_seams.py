"""Seams between windows are seen where they are, and not where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from arithmetic import Arithmetic, open_arithmetic
from click.testing import CliRunner

from geocd.assess import assess
from geocd.assess.seams import _along, _compare
from geocd.config import AlignConfig, DetectConfig, TilingConfig
from geocd.testing import paint_scene, write_raster
from geocd_cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SMALL = DetectConfig(align=AlignConfig(mode="off"), tiling=TilingConfig(tile_size=128, overlap=16))


class _Seamy(Arithmetic):
    """Sees nothing within 20 pixels of the border of a window."""

    def __call__(self, before, after):
        scores = super().__call__(before, after)
        kept = np.zeros(scores.shape[-2:], bool)
        kept[20:-20, 20:-20] = True
        return scores * kept.astype(np.uint8)


def _open_seamy(weights, *, window, config, calibration):
    return _Seamy(open_arithmetic(weights, window=window, config=config, calibration=calibration))


def _dataset(folder, side=300):
    before = np.clip(paint_scene((side, side), seed=1), 0, 150)
    after = np.full_like(before, 250)
    truth = np.full((1, side, side), 255, np.uint8)
    for sub, array in (("A", before), ("B", after), ("label", truth)):
        (folder / sub).mkdir(parents=True)
        with rasterio.open(folder / sub / "x.png", "w", driver="PNG", height=side, width=side,
                           count=len(array), dtype="uint8") as dataset:  # fmt: skip
            dataset.write(array)
    return folder


def test_pixelwise_scores_have_no_seams(tmp_path, monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", open_arithmetic)
    seams = assess(_dataset(tmp_path / "d"), config=SMALL, audit=True).seams
    assert seams.pairs == 1
    assert seams.border.pixels > 0
    assert seams.interior.pixels > 0
    assert seams.border.flipped == seams.interior.flipped == 0
    assert "0.000% and 0.000%" in seams.report()


def test_a_network_that_is_blind_at_its_borders_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", _open_seamy)
    seams = assess(_dataset(tmp_path / "d"), config=SMALL, audit=True).seams
    border, interior = seams.border.to_dict(), seams.interior.to_dict()
    assert border["flipped"] > 0.1
    assert interior["flipped"] == interior["mean_difference"] == 0


def test_seams_of_large_pairs_are_found_in_their_middle(tmp_path, monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", _open_seamy)
    for module in ("geocd.rasters.pair", "geocd.assess.seams"):
        monkeypatch.setattr(f"{module}.LARGE", 310 * 310)
    monkeypatch.setattr("geocd.assess.seams._MOST_SIDE", 300)
    folder = _dataset(tmp_path / "d", 330)
    for path in folder.glob("*/x.png"):
        with rasterio.open(path) as image:
            write_raster(
                path.with_suffix(".tif"),
                image.read(),
                crs="EPSG:32633",
                transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000),
            )
        path.unlink()
    seams = assess(folder, config=SMALL, audit=True).seams
    assert seams.border.to_dict()["flipped"] > 0.1
    assert seams.interior.to_dict()["flipped"] == 0
    assert 0 < seams.border.pixels + seams.interior.pixels < 300 * 300


def test_one_window_has_no_seams_and_the_command_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", open_arithmetic)
    done = CliRunner().invoke(main, ["evaluate", "--data", str(_dataset(tmp_path / "d", 80)),
                                     "--align", "off", "-q", "--audit"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "no pair is larger than one window" in done.stdout


def test_the_distance_to_a_border_counts_inner_borders_only():
    # Windows of 32 at 0, 24 and 48 in 80 pixels: borders at 24, 32, 48 and 56.
    tiling = TilingConfig(tile_size=32, overlap=8)
    apart = _along(80, 80, tiling)
    assert [apart[k] for k in (0, 23, 24, 28, 79)] == [23.5, 0.5, 0.5, 3.5, 23.5]
    assert _along(80, 80, tiling, cut=True)[0] == 0.5
    assert _along(80, 40, tiling)[0] == 23  # two pixels that are read for one of the map
    assert np.isinf(_along(32, 32, tiling)).all()


def test_unobserved_ground_is_not_compared():
    first, second = np.full((1, 4), 200, np.uint8), np.array([[200, 255, 0, 200]], np.uint8)
    audit = _compare(first, second, np.array([[0.0, 0, 0, 99]]), 0.5)
    assert (audit.border.pixels, audit.border.flipped) == (2, 1)
    assert audit.border.apart == pytest.approx(200 / 254)
    assert audit.interior.pixels == 1
