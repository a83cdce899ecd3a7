"""The whole way, with a network replaced by arithmetic, so that the answer is known."""

from __future__ import annotations

import dataclasses
import json
import resource
import sqlite3
import threading
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from arithmetic import Arithmetic, open_arithmetic
from rasterio.crs import CRS
from rasterio.warp import calculate_default_transform, reproject

import geocd
from geocd.config import AlignConfig, DetectConfig, PredictConfig, TilingConfig, VectorizeConfig
from geocd.errors import (
    ConfigError,
    NotAlignedError,
    NothingObservedError,
    OutputError,
    OutputExistsError,
    RasterOpenError,
)
from geocd.predict.flow import prefetch, score_pieces
from geocd.predict.torch import TorchPredictor
from geocd.rasters.write import read_provenance
from geocd.testing import paint_scene, write_raster

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
OFF = DetectConfig(align=AlignConfig(mode="off"), vectorize=VectorizeConfig(min_area=0))


@pytest.fixture
def arithmetic(monkeypatch):
    monkeypatch.setattr("geocd.pipeline.open_predictor", open_arithmetic)


def _painted(shape=(300, 420), seed=4):
    """Before, after and the change map between them."""
    before = paint_scene(shape, seed=seed) // 2 + 64
    after, truth = before.copy(), np.zeros(shape, np.uint8)
    for rows, cols, code in (
        (slice(40, 80), slice(50, 90), 1),
        (slice(200, 208), slice(10, 400), 2),
        (slice(240, 290), slice(300, 330), 1),
    ):
        rows, cols = (
            slice(min(s.start, n), min(s.stop, n)) for s, n in ((rows, shape[0]), (cols, shape[1]))
        )
        after[:, rows, cols] = 250 if code == 1 else 2
        truth[rows, cols] = code
    return before, after, truth


def _files(tmp_path, before, after, *, transform=NORTH_UP, crs=UTM, **options):
    return (
        write_raster(tmp_path / "before.tif", before, crs=crs, transform=transform, **options),
        write_raster(tmp_path / "after.tif", after, crs=crs, transform=transform, **options),
    )


def _mask(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def _run(tmp_path, paths, config=OFF, **options):
    result = geocd.detect(*paths, tmp_path / "c.gpkg", mask=tmp_path / "m.tif", config=config,
                          overwrite=True, **options)  # fmt: skip
    return result, _mask(tmp_path / "m.tif")


@pytest.mark.parametrize(("tile", "overlap"), [(256, 64), (64, 0), (32, 31), (512, 100)])
@pytest.mark.usefixtures("arithmetic")
def test_the_map_is_the_painted_change_whatever_the_tiling(tmp_path, tile, overlap):
    before, after, truth = _painted()
    tiling = TilingConfig(tile_size=tile, overlap=overlap)
    result, mask = _run(tmp_path, _files(tmp_path, before, after),
                        dataclasses.replace(OFF, tiling=tiling))  # fmt: skip
    np.testing.assert_array_equal(mask, truth)
    assert {kind: s.count for kind, s in result.kinds.items()} == {"building": 2, "road": 1}
    assert result.kinds["building"].area_px == (truth == 1).sum()
    assert result.observed == 1


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (Affine(0.5, 0, 500_000, 0, 0.5, 4_999_800), UTM),
        (NORTH_UP @ Affine.rotation(30), UTM),
        (Affine(6e-6, 0, 15, 0, -6e-6, 50), CRS.from_epsg(4326)),
        (Affine.identity(), None),
    ],
    ids=["south-up", "rotated", "geographic", "no CRS"],
)
@pytest.mark.usefixtures("arithmetic")
def test_the_map_lies_on_befores_grid_however_that_lies(tmp_path, transform, crs):
    before, after, truth = _painted()
    paths = _files(tmp_path, before, after, transform=transform, crs=crs)
    _, mask = _run(tmp_path, paths)
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert dataset.crs == crs
        expected = transform if crs else Affine(1, 0, 0, 0, -1, 0)
        assert dataset.transform.almost_equals(expected, precision=1e-9)
    assert (mask != truth).mean() < (0.005 if crs and crs.is_geographic else 1e-9)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.usefixtures("arithmetic")
def test_change_is_found_in_other_types_of_values(tmp_path, dtype):
    before, after, truth = _painted()
    _, mask = _run(tmp_path, _files(tmp_path, *(i.astype(dtype) * 7 for i in (before, after))))
    # Each date is stretched by its own percentiles, so quiet ground may pass a bare difference.
    assert (mask == truth)[truth > 0].mean() > 0.85
    assert ((mask > 0) & (truth == 0)).mean() < 0.1


@pytest.mark.parametrize("gsd", [0.1, 3.0])
@pytest.mark.usefixtures("arithmetic")
def test_a_pair_read_at_another_scale_comes_back_on_its_own_grid(tmp_path, gsd):
    before, after, truth = _painted((600, 700))
    scale = gsd / 0.5
    paths = _files(tmp_path, before, after, transform=NORTH_UP @ Affine.scale(scale))
    result, mask = _run(tmp_path, paths) if gsd < 1 else (None, None)
    if gsd > 1:
        with pytest.warns(geocd.GeocdWarning):
            result, mask = _run(tmp_path, paths)
    assert mask.shape == truth.shape
    # The 8 pixels wide road is 2 pixels wide where it is read; buildings keep their shape.
    agree = ((mask == 1) & (truth == 1)).sum() / ((mask == 1) | (truth == 1)).sum()
    assert agree > 0.85
    assert result.reading_gsd == pytest.approx((0.5, 0.5) if gsd < 1 else (1.5, 1.5), rel=2e-3)


@pytest.mark.usefixtures("arithmetic")
def test_nodata_on_one_date_is_never_change(tmp_path):
    before, after, truth = _painted()
    hole = (slice(30, 60), slice(40, 200))
    after[:, hole[0], hole[1]] = 0
    paths = (
        write_raster(tmp_path / "before.tif", before, crs=UTM, transform=NORTH_UP),
        write_raster(tmp_path / "after.tif", after, crs=UTM, transform=NORTH_UP, nodata=0),
    )
    result, mask = _run(tmp_path, paths)
    truth[hole] = 255
    np.testing.assert_array_equal(mask, truth)
    assert result.observed == pytest.approx(1 - 30 * 160 / truth.size)
    assert result.changes["observed"].min() < 1


@pytest.mark.usefixtures("arithmetic")
def test_ground_that_one_image_lacks_is_not_observed(tmp_path):
    before, after, truth = _painted()
    paths = (
        write_raster(tmp_path / "before.tif", before, crs=UTM, transform=NORTH_UP),
        write_raster(tmp_path / "after.tif", after[:, 50:, 100:], crs=UTM,
                     transform=NORTH_UP @ Affine.translation(100, 50)),
    )  # fmt: skip
    _, mask = _run(tmp_path, paths)
    truth[:50], truth[:, :100] = 255, 255
    np.testing.assert_array_equal(mask, truth)


@pytest.mark.usefixtures("arithmetic")
def test_another_crs_and_resolution_give_the_same_map(tmp_path):
    before, after, truth = _painted((400, 500))
    target = CRS.from_epsg(3035)
    bounds = rasterio.transform.array_bounds(400, 500, NORTH_UP)
    transform, width, height = calculate_default_transform(
        UTM, target, 500, 400, *bounds, resolution=0.4
    )
    warped = np.zeros((3, height, width), np.uint8)
    reproject(after, warped, src_transform=NORTH_UP, src_crs=UTM, dst_transform=transform,
              dst_crs=target, resampling=rasterio.enums.Resampling.cubic)  # fmt: skip
    paths = (
        write_raster(tmp_path / "before.tif", before, crs=UTM, transform=NORTH_UP),
        write_raster(tmp_path / "after.tif", warped, crs=target, transform=transform, nodata=0),
    )
    _, mask = _run(tmp_path, paths)
    seen = mask != 255
    assert seen.mean() > 0.98
    assert (mask[seen] != truth[seen]).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (20, 31), (1, 1)])
@pytest.mark.usefixtures("arithmetic")
def test_strips_and_images_smaller_than_a_tile_work(tmp_path, shape):
    before, after, truth = _painted(shape)
    _, mask = _run(tmp_path, _files(tmp_path, before, after))
    np.testing.assert_array_equal(mask, truth)


@pytest.mark.parametrize("shape", [(1, 300), (20, 31), (1, 1), (100, 100)])
def test_the_real_network_takes_any_size(tmp_path, shape):
    before, after, _ = _painted(shape)
    _, mask = _run(tmp_path, _files(tmp_path, before, after))
    assert mask.shape == shape
    assert set(np.unique(mask)) <= {0, 1, 2}


@pytest.mark.usefixtures("arithmetic")
def test_no_change_gives_valid_empty_outputs(tmp_path):
    before, _, _ = _painted()
    result, mask = _run(tmp_path, _files(tmp_path, before, before))
    assert result.count == 0
    assert (mask == 0).all()
    layer = geopandas.read_file(tmp_path / "c.gpkg", layer="changes")
    assert len(layer) == 0
    assert {"kind", "score_mean", "area_m2", "observed"} <= set(layer.columns)


@pytest.mark.usefixtures("arithmetic")
def test_the_minimum_mapping_unit_is_square_metres(tmp_path):
    before, after, _ = _painted()
    config = dataclasses.replace(OFF, vectorize=VectorizeConfig(min_area=390))
    # The buildings cover 400 and 375 m2, the road 780.
    result, _ = _run(tmp_path, _files(tmp_path, before, after), config)
    assert sorted(result.changes["kind"]) == ["building", "road"]


@pytest.mark.usefixtures("arithmetic")
def test_outputs_say_what_made_them(tmp_path):
    before, after, _ = _painted()
    paths = _files(tmp_path, before, after, tags={"TIFFTAG_DATETIME": "2019:06:14 10:12:00"})
    result, _ = _run(tmp_path, paths, scores=tmp_path / "s.tif")
    for raster in ("m.tif", "s.tif"):
        record = read_provenance(tmp_path / raster)
        assert record["weights"] == result.weights
        assert record["inputs"]["before"]["date"] == "2019-06-14"
        assert record["config"]["align"]["mode"] == "off"
    with sqlite3.connect(tmp_path / "c.gpkg") as database:
        stored = dict(database.execute("select key, value from provenance").fetchall())
    assert result.weights["sha256"] in json.dumps(stored)
    assert set(result.changes["before_date"]) == {"2019-06-14"}
    with rasterio.open(tmp_path / "s.tif") as scores:
        assert scores.descriptions == ("building", "road")
        assert scores.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.usefixtures("arithmetic")
def test_a_misregistered_pair_is_aligned_before_it_is_compared(tmp_path):
    before, after, truth = _painted((500, 520))
    shifted = np.roll(after, (7, -5), axis=(1, 2))
    result, mask = _run(tmp_path, _files(tmp_path, before, shifted),
                        DetectConfig(vectorize=VectorizeConfig(min_area=0)))  # fmt: skip
    assert result.alignment.status == "applied"
    assert result.alignment.shift_px == pytest.approx(np.hypot(7, 5), abs=0.1)
    inside = (slice(10, -10), slice(10, -10))
    assert (mask != truth)[inside].mean() < 0.002


@pytest.mark.usefixtures("arithmetic")
def test_where_alignment_is_required_a_pair_that_cannot_be_aligned_is_an_error(tmp_path):
    before, _, _ = _painted((300, 320))
    other = np.random.default_rng(0).integers(0, 255, before.shape).astype(np.uint8)
    config = DetectConfig(align=AlignConfig(mode="require"))
    with pytest.raises(NotAlignedError, match="tie points"):
        _run(tmp_path, _files(tmp_path, before, other), config)
    assert not (tmp_path / "c.gpkg").exists()


@pytest.mark.usefixtures("arithmetic")
def test_progress_counts_every_stage_to_its_end(tmp_path):
    before, after, _ = _painted()
    last: dict[str, tuple[int, int]] = {}
    _run(tmp_path, _files(tmp_path, before, after),
         progress=lambda stage, done, total: last.update({stage: (done, total)}))  # fmt: skip
    assert {"align", "predict", "write rasters"} <= set(last)
    assert all(done == total for done, total in last.values())


# Bad input: nothing is left behind


def _left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name not in ("before.tif", "after.tif"))


@pytest.mark.usefixtures("arithmetic")
def test_nothing_valid_on_both_dates_is_refused(tmp_path):
    before, _, _ = _painted()
    empty = np.full(before.shape, np.nan, np.float32)
    paths = (
        write_raster(tmp_path / "before.tif", before, crs=UTM, transform=NORTH_UP),
        write_raster(tmp_path / "after.tif", empty, crs=UTM, transform=NORTH_UP),
    )
    with pytest.raises(NothingObservedError, match="nodata"):
        _run(tmp_path, paths)
    assert _left(tmp_path) == []


@pytest.mark.usefixtures("arithmetic")
def test_a_truncated_input_leaves_no_output(tmp_path):
    before, after, _ = _painted((700, 700))
    paths = _files(tmp_path, before, after)
    paths[1].write_bytes(paths[1].read_bytes()[:200_000])
    with pytest.raises(RasterOpenError, match=r"after\.tif"):
        _run(tmp_path, paths)
    assert _left(tmp_path) == []


@pytest.mark.usefixtures("arithmetic")
def test_an_interrupt_leaves_no_output(tmp_path):
    before, after, _ = _painted()

    def _interrupt(stage, done, total):
        if stage == "write rasters":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, _files(tmp_path, before, after), progress=_interrupt)
    assert _left(tmp_path) == []


@pytest.mark.parametrize("taken", ["c.gpkg", "m.tif"])
@pytest.mark.usefixtures("arithmetic")
def test_existing_outputs_are_kept_unless_overwriting_is_asked_for(tmp_path, taken):
    (tmp_path / taken).write_bytes(b"precious")
    paths = _files(tmp_path, *_painted()[:2])
    with pytest.raises(OutputExistsError, match="overwrite"):
        geocd.detect(*paths, tmp_path / "c.gpkg", mask=tmp_path / "m.tif", config=OFF)
    assert (tmp_path / taken).read_bytes() == b"precious"
    assert _left(tmp_path) == [taken]


def test_an_output_in_a_missing_folder_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        geocd.detect("nowhere.tif", "nowhere.tif", tmp_path / "no" / "c.gpkg")


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"\.gpkg"):
        geocd.detect("nowhere.tif", "nowhere.tif", tmp_path / "c.docx")


@pytest.mark.usefixtures("arithmetic")
def test_two_outputs_of_one_name_are_refused(tmp_path):
    paths = _files(tmp_path, *_painted()[:2])
    with pytest.raises(ConfigError, match="same file"):
        geocd.detect(*paths, tmp_path / "c.gpkg", mask=tmp_path / "a.tif",
                     scores=tmp_path / "a.tif")  # fmt: skip


@pytest.mark.usefixtures("arithmetic")
def test_an_output_over_an_input_is_refused(tmp_path):
    paths = _files(tmp_path, *_painted()[:2])
    data = paths[0].read_bytes()
    with pytest.raises(ConfigError, match="an input"):
        geocd.detect(*paths, tmp_path / "c.gpkg", mask=paths[0], overwrite=True)
    assert paths[0].read_bytes() == data


@pytest.mark.usefixtures("arithmetic")
def test_an_output_among_the_tiles_of_an_input_is_refused(tmp_path):
    (tmp_path / "tiles").mkdir()
    _, after = _files(tmp_path / "tiles", *_painted()[:2])
    with pytest.raises(ConfigError, match="read as tiles"):
        geocd.detect(tmp_path / "tiles", after, tmp_path / "tiles" / "c.gpkg")


# The predictor and its feeding


def test_scores_do_not_depend_on_the_batch(tmp_path):
    predictor = TorchPredictor(geocd.load_weights("geocd-vhr"), device="cpu")
    pair = np.stack([paint_scene((64, 64), seed=i) for i in range(4)])
    together = predictor(pair, pair[::-1])
    single = np.concatenate(
        [predictor(p[None], q[None]) for p, q in zip(pair, pair[::-1], strict=True)]
    )
    np.testing.assert_allclose(together.astype(int), single, atol=1)
    assert together.shape == (4, 2, 64, 64)


def test_windows_that_nobody_observed_are_not_run():
    predictor = Arithmetic(geocd.load_weights("geocd-vhr"))
    before = np.zeros((3, 128, 256), np.uint8)
    valid = np.zeros((128, 256), bool)
    valid[:64, :64] = True

    class _Strip:
        def __init__(self, rows, cols):
            self.before = self.after = before[:, rows, cols]
            self.seen = self.valid = valid[rows, cols]

    tiling = TilingConfig(tile_size=64, overlap=0)
    rows = list(score_pieces(predictor, _Strip, (128, 256), tiling=tiling, batch_size=1))
    assert predictor.calls == 1
    scores = np.concatenate([piece.levels for piece in rows], axis=1)
    assert (scores[:, valid] == 0).all()
    assert (scores[:, ~valid] == 255).all()


def test_prefetching_keeps_order_and_carries_errors():
    def _items():
        yield from range(5)
        raise RasterOpenError("broken")

    seen: list[int] = []
    with pytest.raises(RasterOpenError, match="broken"):
        seen.extend(prefetch(_items()))
    assert seen == [0, 1, 2, 3, 4]


def test_prefetching_that_is_given_up_stops_its_thread():
    made = []

    def _items():
        for number in range(1000):
            made.append(number)
            yield number

    ahead = prefetch(_items())
    next(ahead)
    ahead.close()
    assert len(made) < 10
    assert not any(t.name == "geocd-prefetch" for t in threading.enumerate())


def test_cuda_is_refused_where_there_is_none():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="cuda"):
        TorchPredictor(geocd.load_weights("geocd-vhr"), device="cuda")


def test_impossible_settings_are_refused_when_they_are_built():
    for wrong in ({"threshold": 0.0}, {"threshold": 1.5}, {"gsd": -1.0}, {"bands": (0,)},
                  {"pixel_size": float("nan")}):  # fmt: skip
        with pytest.raises(ConfigError):
            DetectConfig(**wrong)
    with pytest.raises(ConfigError):
        PredictConfig(batch_size=0)


def test_a_threshold_of_no_class_is_refused_before_an_image_is_opened(tmp_path):
    config = DetectConfig(threshold={"house": 0.5})
    with pytest.raises(ConfigError, match="'house', the classes are building"):
        geocd.detect(tmp_path / "no.tif", tmp_path / "none.tif", tmp_path / "c.gpkg", config=config)


@pytest.mark.parametrize(
    ("grow", "told"),
    [({"house": 0.3}, "'house' cannot grow, the classes are building"), (0.99, "above its thresh")],
)
def test_growing_that_cannot_be_is_refused_before_an_image_is_opened(tmp_path, grow, told):
    config = DetectConfig(vectorize=VectorizeConfig(grow=grow))
    with pytest.raises(ConfigError, match=told):
        geocd.detect(tmp_path / "no.tif", tmp_path / "none.tif", tmp_path / "c.gpkg", config=config)


class _Noise(Arithmetic):
    """Scores that no compression makes small."""

    def __call__(self, before, after):
        shape = (len(before), 2, *before.shape[2:])
        return np.random.default_rng(self.calls).integers(0, 255, shape, np.uint8)


def test_a_disk_that_fills_up_on_the_way_is_told_and_nothing_is_left(tmp_path, monkeypatch):
    card = open_arithmetic("geocd-vhr", window=None, config=None, calibration=None)
    monkeypatch.setattr("geocd.pipeline.open_predictor", lambda *_, **__: _Noise(card))
    paths = _files(tmp_path, *_painted((600, 700))[:2])
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond this: what a full disk does to the temporary rasters.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    try:
        with pytest.raises(OutputError, match="disk full"):
            _run(tmp_path, paths)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert _left(tmp_path) == []


@pytest.mark.parametrize(("threshold", "looks"), [(0.5, True), (0.05, False)])
@pytest.mark.usefixtures("arithmetic")
def test_a_threshold_that_a_first_look_cannot_tell_runs_every_window(tmp_path, threshold, looks):
    before, after, _ = _painted()
    config = dataclasses.replace(OFF, threshold=threshold)
    result, _ = _run(tmp_path, _files(tmp_path, before, after), config)
    assert ("first look" in result.backend) is looks
