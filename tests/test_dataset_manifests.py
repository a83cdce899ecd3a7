"""Georeferenced pairs and their labels come onto one grid, window by window."""

from __future__ import annotations

import multiprocessing

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize

from geocd.errors import DamagedSampleError, DatasetError
from geocd.rasters.grid import Grid
from geocd.rasters.scene import Sampler, Scene
from geocd.testing import paint_scene, write_raster
from geocd.training.datasets import LabelCoding, LabelledPairs, load_pairs, read_manifest
from geocd.training.datasets.scenes import SceneAccess
from geocd.training.tiles import IGNORE

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SHAPE = (160, 200)
HOUSE = shapely.box(500_010, 4_999_950, 500_030, 4_999_980)  # rows 40..100, cols 20..60
STREET = shapely.box(500_050, 4_999_922, 500_053, 4_999_990)  # rows 20..156, cols 100..106
BOTH = LabelCoding(values={"building": 1, "road": 2})


def _burnt(polygon, shape=SHAPE, transform=NORTH_UP):
    return rasterize([polygon], shape, transform=transform).astype(bool)


@pytest.fixture
def survey(tmp_path):
    """Two dates of equal grid and the polygons that changed."""
    for name, seed in (("before", 1), ("after", 2)):
        scene = np.clip(paint_scene(SHAPE, seed=seed), 1, 254)
        write_raster(tmp_path / f"{name}.tif", scene, crs=UTM, transform=NORTH_UP)
    layer = geopandas.GeoDataFrame(
        {"kind": ["house", "street"], "code": [1, 2]}, geometry=[HOUSE, STREET], crs=UTM
    )
    layer.to_file(tmp_path / "changes.gpkg")
    layer.to_crs(4326).to_file(tmp_path / "lonlat.geojson")
    return tmp_path


def _manifest(folder, text='label = "changes.gpkg"', after="after.tif"):
    path = folder / "pairs.toml"
    path.write_text(f'[[pairs]]\nbefore = "before.tif"\nafter = "{after}"\n{text}\n')
    return path


def _drawn(pairs, seed):
    return pairs.sample(np.random.default_rng(seed), 32).after


def _whole(path, coding=None):
    (chip,) = LabelledPairs(load_pairs(path), coding=coding).chips()
    return chip


@pytest.mark.parametrize("label", ["changes.gpkg", "lonlat.geojson"])
def test_polygons_become_change_in_any_crs(survey, label):
    chip = _whole(_manifest(survey, f'label = "{label}"'))
    assert chip.name == "before"
    expected = _burnt(HOUSE) | _burnt(STREET)
    assert (chip.change[0] != expected).sum() <= (0 if label.endswith("gpkg") else 40)
    assert (chip.change[1] == IGNORE).all()


@pytest.mark.parametrize(
    "column",
    ['attribute = "kind"\ncodes = { house = 1, street = 2 }', 'attribute = "code"'],
)
def test_classes_of_polygons_come_from_a_column(survey, column):
    chip = _whole(_manifest(survey, f'label = "changes.gpkg"\n{column}'), BOTH)
    np.testing.assert_array_equal(chip.change[0], _burnt(HOUSE))
    np.testing.assert_array_equal(chip.change[1], _burnt(STREET))


def test_windows_show_the_same_as_the_whole(survey):
    write_raster(survey / "label.tif", _burnt(HOUSE).astype(np.uint8), crs=UTM, transform=NORTH_UP)
    for label in ("changes.gpkg", "label.tif"):
        path = _manifest(survey, f'label = "{label}"')
        whole = _whole(path)
        for chip in LabelledPairs(load_pairs(path)).chips(48):
            shown = chip.change[0] != IGNORE
            height, width = chip.rows.stop - chip.rows.start, chip.cols.stop - chip.cols.start
            window = (chip.rows, chip.cols)
            np.testing.assert_array_equal(chip.before[:height, :width], whole.before[window])
            expected = whole.change[0][window][shown[:height, :width]]
            np.testing.assert_array_equal(chip.change[0][shown], expected)


def test_dates_of_another_crs_and_resolution_come_onto_the_grid_of_before(survey):
    lonlat = Affine(9e-6, 0, 14.9995, 0, -6e-6, 45.1545)
    grid = Grid(CRS.from_epsg(4326), lonlat, 300, 320)
    with Sampler(Scene.open(survey / "before.tif"), grid) as sampler:
        values, valid = sampler.read(slice(0, 300), slice(0, 320), (1, 2, 3))
    assert valid.any()
    write_raster(survey / "lonlat.tif", values, grid=grid, alpha=valid)
    chip = _whole(_manifest(survey, after="lonlat.tif"))
    known = chip.change[0] != IGNORE
    assert known.mean() > 0.5
    here, there = chip.before[..., 1].astype(int), chip.after[..., 1].astype(int)
    assert np.corrcoef(here[known], there[known])[0, 1] > 0.9
    displaced = np.roll(there, 3, axis=1)
    assert np.corrcoef(here[known], displaced[known])[0, 1] < 0.8


def test_a_label_raster_on_another_grid_is_taken_by_the_nearest_value(survey):
    coarse = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    label = np.zeros((40, 25), np.uint8)  # the left half of the ground only
    label[10:25, 5:15] = 1  # the house
    write_raster(survey / "label.tif", label, crs=UTM, transform=coarse)
    chip = _whole(_manifest(survey, 'label = "label.tif"'))
    np.testing.assert_array_equal(chip.change[0][:, :100], _burnt(HOUSE)[:, :100])
    assert (chip.change[:, :, 100:] == IGNORE).all()


def test_a_label_raster_may_have_a_colour_table(survey):
    path = survey / "label.tif"
    with rasterio.open(path, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], count=1,
                       dtype="uint8", crs=UTM, transform=NORTH_UP) as dataset:  # fmt: skip
        dataset.write(2 * _burnt(HOUSE).astype(np.uint8), 1)
        dataset.write_colormap(1, {0: (0, 0, 0, 255), 2: (255, 0, 0, 255)})
    chip = _whole(_manifest(survey, 'label = "label.tif"'), LabelCoding(values={"road": 2}))
    np.testing.assert_array_equal(chip.change[1], _burnt(HOUSE))


@pytest.mark.parametrize(("nodata", "ignored"), [(0, 0), (1, 0), (7, 16), (None, 0)])
def test_nodata_of_a_label_is_unknown_unless_it_means_something(survey, nodata, ignored):
    label = _burnt(HOUSE).astype(np.uint8)
    label[:4, :4] = nodata or 0
    write_raster(survey / "label.tif", label, crs=UTM, transform=NORTH_UP, nodata=nodata)
    coding = LabelCoding(values={"building": 1}) if nodata == 1 else None
    change = _whole(_manifest(survey, 'label = "label.tif"'), coding).change[0]
    assert (change == IGNORE).sum() == ignored
    np.testing.assert_array_equal(change[4:] == 1, _burnt(HOUSE)[4:])


def test_what_a_date_did_not_observe_is_ignored(survey):
    after = np.clip(paint_scene(SHAPE, seed=2), 1, 254)
    after[:, :60] = 0
    write_raster(survey / "after.tif", after, crs=UTM, transform=NORTH_UP, nodata=0)
    change = _whole(_manifest(survey)).change[0]
    assert (change[:60] == IGNORE).all()
    np.testing.assert_array_equal(change[60:], (_burnt(HOUSE) | _burnt(STREET))[60:])


def test_outside_the_labelled_area_nothing_is_known(survey):
    area = geopandas.GeoDataFrame(geometry=[HOUSE.buffer(5, join_style="mitre")], crs=UTM)
    area.to_file(survey / "area.gpkg")
    chip = _whole(_manifest(survey, 'label = "changes.gpkg"\narea = "area.gpkg"'))
    assert chip.change[0].shape == (80, 60)
    assert (chip.change[0] == 1).sum() == 60 * 40


def test_sixteen_bits_are_stretched_and_bands_chosen(survey):
    for name in ("before", "after"):
        bands = np.random.default_rng(0).integers(300, 3000, (4, *SHAPE)).astype(np.uint16)
        write_raster(survey / f"{name}.tif", bands, crs=UTM, transform=NORTH_UP)
    chip = _whole(_manifest(survey, 'label = "changes.gpkg"\nbands = [4, 2, 1]'))
    assert chip.before.dtype == np.uint8
    assert np.corrcoef(chip.before[..., 0].ravel(), bands[3].ravel())[0, 1] > 0.99


def test_a_ground_sample_distance_can_be_asked_for(survey):
    chip = _whole(_manifest(survey, 'label = "changes.gpkg"\ngsd = 1.0'))
    assert chip.before.shape[:2] == pytest.approx((80, 100), abs=1)
    assert (chip.change[0] == 1).sum() == pytest.approx(600 + 68 * 3, abs=90)


def test_samples_of_scenes_are_balanced_and_repeatable(survey):
    path = _manifest(survey, 'label = "changes.gpkg"\nattribute = "code"')
    pairs = LabelledPairs(load_pairs(path), coding=BOTH, balanced=1.0)
    shown = []
    for seed in range(12):
        pair, again = (pairs.sample(np.random.default_rng(seed), 32) for _ in range(2))
        np.testing.assert_array_equal(pair.before, again.before)
        shown.append((pair.change == 1).any(axis=(1, 2)))
    assert np.any(shown, axis=1).all()
    assert np.any(shown, axis=0).all()


def test_forked_workers_draw_what_their_parent_draws(survey):
    pairs = LabelledPairs(load_pairs(_manifest(survey)), balanced=0.5)
    here = [_drawn(pairs, seed) for seed in range(6)]  # leaves the scenes open
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    worker = context.Process(target=lambda: queue.put([_drawn(pairs, s) for s in range(6)]))
    worker.start()
    np.testing.assert_array_equal(queue.get(), here)
    worker.join()
    assert worker.exitcode == 0
    np.testing.assert_array_equal(_drawn(pairs, 0), here[0])


def test_splits_and_names_come_from_the_manifest(survey):
    entry = 'before = "before.tif"\nafter = "after.tif"\nlabel = "changes.gpkg"\n'
    path = survey / "pairs.toml"
    path.write_text(f'[[pairs]]\n{entry}split = "train"\nname = "a"\n'
                    f'[[pairs]]\n{entry}split = "val"\n')  # fmt: skip
    assert [(p.name, p.split) for p in read_manifest(path)] == [("a", "train"), ("before", "val")]
    assert [p.name for p in load_pairs(path, split="val")] == ["before"]
    with pytest.raises(DatasetError, match="no split 'test'; it has: train, val"):
        read_manifest(path, split="test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('label = "changes.gpkg"\ncolour = 1', "pair 1: unknown 'colour'; the keys are before"),
        ("split = 'val'", "pair 1: no 'label'"),
        ('label = "nowhere.gpkg"', r"there is no .*nowhere\.gpkg"),
        ('label = "changes.gpkg"\nbands = 3', "bands = 3 should be list"),
        ('label = "changes.gpkg"\ncodes = { a = 1 }', "codes without the attribute"),
        ('label = "https://example.org/x.tif"', "must be a local file"),
        ("label = ", "is no manifest in TOML"),
        ('label = "changes.gpkg"\n[labels]\nx = 1', "a list of .*pairs.* found 'labels'"),
        (
            (
                'label = "changes.gpkg"\n[[pairs]]\nbefore = "before.tif"\n'
                'after = "after.tif"\nlabel = "changes.gpkg"'
            ),
            "several pairs are called 'before'",
        ),
    ],
)
def test_manifests_with_mistakes_are_refused(survey, text, message):
    with pytest.raises(DatasetError, match=message):
        read_manifest(_manifest(survey, text))


@pytest.mark.parametrize(
    ("text", "coding", "message"),
    [
        ('attribute = "type"', None, r"no column 'type'; it has: kind, code"),
        ('attribute = "kind"', None, "holds 'house', 'street' in its column 'kind'; give each"),
        ('attribute = "kind"\ncodes = { house = 1 }', None, "holds 'street' in its column"),
        ("", BOTH, "attribute must name the column"),
        ('attribute = "code"', LabelCoding(values={"road": 2}), "wrong class values 1"),
    ],
)
def test_columns_that_do_not_fit_are_named(survey, text, coding, message):
    path = _manifest(survey, f'label = "changes.gpkg"\n{text}')
    with pytest.raises(DatasetError, match=message):
        LabelledPairs(load_pairs(path), coding=coding)


def test_lines_are_refused_as_labels(survey):
    line = shapely.LineString([(500_010, 4_999_950), (500_030, 4_999_980)])
    geopandas.GeoDataFrame(geometry=[line], crs=UTM).to_file(survey / "lines.gpkg")
    with pytest.raises(DatasetError, match=r"lines\.gpkg holds LineString"):
        _whole(_manifest(survey, 'label = "lines.gpkg"'))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_labels_that_do_not_fit_the_ground_are_refused(survey):
    write_raster(survey / "label.tif", _burnt(HOUSE).astype(np.uint8))
    with pytest.raises(DatasetError, match="label without a CRS does not fit the images"):
        _whole(_manifest(survey, 'label = "label.tif"'))
    write_raster(survey / "label.tif", np.zeros((3, 160, 200), np.uint8), crs=UTM,
                 transform=NORTH_UP)  # fmt: skip
    with pytest.raises(DatasetError, match="has 3 bands of uint8; a label has one"):
        _whole(_manifest(survey, 'label = "label.tif"'))
    far = NORTH_UP @ Affine.translation(10_000, 0)
    write_raster(survey / "after.tif", paint_scene(SHAPE, seed=2), crs=UTM, transform=far)
    with pytest.raises(DatasetError, match="pair before: the images share no ground"):
        _whole(_manifest(survey))


def test_a_damaged_scene_is_skipped_like_any_other_file(survey):
    (survey / "changes.gpkg").write_bytes(b"no database")
    (pair,) = read_manifest(_manifest(survey))
    with pytest.raises(DamagedSampleError, match=r"cannot read .*changes\.gpkg"):
        SceneAccess(pair, LabelCoding())
    (survey / "after.tif").write_bytes(b"no raster")
    with pytest.raises(DamagedSampleError, match=r"pair before: cannot open .*after\.tif"):
        SceneAccess(pair, LabelCoding())
