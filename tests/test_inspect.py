"""Inspection: verdicts on painted boards are known in advance, and doubt is never a pass."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import shapely
from boards import BOARD, GOLDEN, SHAPE, bad, good, inspector, save

from geocd.config import InspectConfig, PredictConfig, TilingConfig
from geocd.errors import ConfigError, InputError
from geocd.inspect import Verdict, Zone, read_zones
from geocd.inspect.register import Register
from geocd.testing.boards import DEFECTS, paint_board, photograph


@pytest.fixture(scope="module")
def judge():
    return inspector().judge


# Registration


@pytest.mark.parametrize(
    ("shift", "turn"), [((0, 0), 0), ((0.5, -0.25), 0), ((5, -4), 0.5), ((-12, 9), -1), ((3, 3), 3)]
)
def test_a_sample_is_found_below_a_tenth_of_a_pixel(shift, turn):
    found = Register(GOLDEN, usable=np.ones(SHAPE, bool), max_shift=20)(
        good(shift=shift, turn=turn, gain=0.8, offset=20, noise=6)
    )
    assert found.proven, found.reason
    angle = math.radians(turn)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = np.array(SHAPE[::-1]) / 2
    for corner in ((0, 0), (256, 0), (256, 256), (128, 128)):
        true = rotation @ (np.array(corner) - middle) + middle + np.array(shift)[::-1]
        assert np.hypot(*(np.array(found.motion @ corner) - true)) < 0.15
    assert found.residual_px < 0.3


def test_another_board_a_mirrored_one_and_noise_are_not_proven():
    register = Register(GOLDEN, usable=np.ones(SHAPE, bool), max_shift=20)
    noise = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    for image in (paint_board(SHAPE, seed=8).image, GOLDEN[:, ::-1].copy(), noise):
        found = register(image)
        assert not found.proven
        assert "agree on where it lies" in found.reason
    assert not register(np.full(SHAPE, 77, np.uint8)).proven


def test_a_part_that_lies_elsewhere_than_the_rest_is_not_aligned():
    torn = good()
    torn[:100, :100] = photograph(GOLDEN, shift=(0, 9))[:100, :100]
    assert "upper left" in Register(GOLDEN, usable=np.ones(SHAPE, bool), max_shift=20)(torn).reason


def test_stripes_leave_the_place_along_them_open():
    stripes = np.full(SHAPE, 235, np.uint8)
    for left in (10, 47, 71, 120, 133, 180, 222):
        stripes[:, left : left + 7] = 20
    found = Register(stripes, usable=np.ones(SHAPE, bool), max_shift=20)(
        photograph(stripes, shift=(0, 3), noise=4)
    )
    assert not found.proven
    assert "leave its place open" in found.reason


def test_a_golden_without_edges_is_refused():
    with pytest.raises(InputError, match="edges in 0 of"):
        inspector([np.full(SHAPE, 200, np.uint8)])


# Verdicts


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"shift": (5, -5), "turn": 0.5},
        {"shift": (-3.4, 2.2), "turn": -0.5, "gain": 0.75, "offset": 20, "noise": 6},
        {"gain": 0.9, "noise": 10, "blur": 0.5},
    ],
)
def test_good_boards_pass_however_they_are_taken(judge, how):
    verdict = judge(good(**how))
    assert verdict.word == "pass", verdict
    assert verdict.defects == ()


@pytest.mark.parametrize("name", DEFECTS)
def test_every_painted_defect_rejects_and_is_where_it_was_painted(judge, name):
    spoilt = BOARD.with_defects([name], seed=4)
    verdict = judge(photograph(spoilt.image, shift=(4, -3), turn=0.4, noise=5), name="b")
    assert verdict.word == "reject"
    assert "defect" in verdict.reasons[0]
    left, top, right, bottom = verdict.defects[0].box
    rows, cols = np.nonzero(spoilt.truth)
    assert rows.min() - 2 <= (top + bottom) / 2 <= rows.max() + 2
    assert cols.min() - 2 <= (left + right) / 2 <= cols.max() + 2


def test_a_defect_is_told_in_pixels_and_millimetres():
    sample = GOLDEN.copy()
    free = np.argwhere(cv2.erode((GOLDEN > 200).astype(np.uint8), np.ones((21, 21))) > 0)
    row, col = free[np.abs(free - 128).sum(axis=1).argmin()]
    sample[row - 4 : row + 4, col - 5 : col + 5] = 20
    verdict = inspector(config=InspectConfig(mm_per_pixel=0.05)).judge(sample)
    defect, entry = verdict.defects[0], verdict.to_dict()["defects"][0]
    assert defect.box == (col - 5, row - 4, col + 5, row + 4)
    assert (defect.area_px, defect.kind, defect.score) == (80, "defect", 1.0)
    assert shapely.Polygon(defect.outline).area == pytest.approx(80, rel=0.1)
    assert entry["area_mm2"] == pytest.approx(80 * 0.05**2)
    np.testing.assert_allclose(entry["box_mm"], np.array(entry["box_px"]) * 0.05)
    assert "area_mm2" not in inspector().judge(sample).to_dict()["defects"][0]


def test_what_is_too_small_to_count_is_told_and_does_not_reject():
    sample = bad(["spot"])
    assert inspector(config=InspectConfig(min_area=20)).judge(sample).word == "reject"
    lenient = inspector(config=InspectConfig(min_area=1000)).judge(sample)
    assert lenient.word == "pass"
    assert [d.counts for d in lenient.defects] == [False]


def test_lines_hold_numbers_that_json_has():
    verdict = Verdict("a", "cannot judge", measures={"noise": math.inf, "contrast": 0.5})
    assert verdict.to_dict()["measures"] == {"noise": None, "contrast": 0.5}
    lost = inspector().judge(np.zeros(SHAPE, np.uint8)).to_dict()
    assert "NaN" not in json.dumps(lost)
    assert lost["registration"]["residual_px"] is None


# Doubt is never a pass


def _coloured(image):
    return np.stack([image, image // 2, image], axis=-1)


DOUBTS = {
    "blurred": (lambda: good(blur=2), "blurred"),
    "blurred in a corner": (
        lambda: np.block([[good(blur=2.5)[:128, :128], GOLDEN[:128, 128:]],
                          [GOLDEN[128:, :128], GOLDEN[128:, 128:]]]),
        "blurred",
    ),
    "far off": (lambda: good(shift=(30, 0)), "not aligned"),
    "turned": (lambda: good(turn=12), "not aligned"),
    "another board": (lambda: paint_board(SHAPE, seed=9).image, "not aligned"),
    "black": (lambda: np.zeros(SHAPE, np.uint8), "not aligned"),
    "too dark": (lambda: good(gain=0.3), "contrast"),
    "too dim": (lambda: good(gain=0.52), "brightness"),
    "washed out": (lambda: good(gain=0.55, offset=110), "out of distribution"),
    "noisy": (lambda: good(noise=60), "noise|sharp|blurred"),
    "a hand in the picture": (
        lambda: cv2.rectangle(good(), (20, 90), (235, 165), 120, -1), "plainly differ|lie where"),
    "another size": (lambda: GOLDEN[:-1], "another size"),
    "in colour": (lambda: _coloured(GOLDEN), "in colour and the golden in grey"),
    "floats": (lambda: GOLDEN.astype(np.float32), "float32"),
    "five bands": (lambda: np.dstack([GOLDEN] * 5), "shape"),
    "above white": (lambda: GOLDEN.astype(np.uint16) * 300, "above the white"),
    "12 bits unsaid": (lambda: GOLDEN.astype(np.uint16) * 16, "contrast"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTS)
def test_doubt_is_never_a_pass_and_says_why(name):
    make, reason = DOUBTS[name]
    config = InspectConfig(white=60000) if name == "above white" else None
    verdict = inspector(config=config).judge(make())
    assert verdict.word == "cannot judge"
    assert any(word in " ".join(verdict.reasons) for word in reason.split("|")), verdict.reasons


def test_a_plain_difference_that_the_network_overlooks_is_not_a_pass():
    verdict = inspector(blind=True).judge(bad(["spot"]))
    assert verdict.word == "cannot judge"
    assert "the network calls no defect" in verdict.reasons[0]
    assert inspector(blind=True).judge(good(noise=5, shift=(2, 2))).word == "pass"


def test_an_exception_inside_one_sample_is_not_a_pass_and_ends_nothing():
    broken = inspector()
    network = broken.predictor

    def fail_on_twins(before, after):
        if any((a == b).all() for a, b in zip(before, after, strict=True)):
            raise ValueError("torn")
        return type(network)()(before, after)

    broken.predictor = fail_on_twins
    fail_on_twins.card = network.card
    samples = [good(noise=5), GOLDEN, good(noise=5), good(noise=5)]
    words = [v.word for v in broken.judge_all(samples)]
    assert words == ["pass", "cannot judge", "pass", "pass"]
    assert "ValueError: torn" in broken.judge(GOLDEN).reasons[0]


def test_damaged_files_are_not_judged(tmp_path, judge):
    whole = save(tmp_path / "whole.png", good()).read_bytes()
    jpeg = save(tmp_path / "whole.jpg", good()).read_bytes()
    for name, content in {
        "cut.png": whole[: len(whole) // 2], "cut.jpg": jpeg[: len(jpeg) * 2 // 3],
        "empty.png": b"", "text.png": b"not a picture", "tail.png": whole[:-40],
    }.items():  # fmt: skip
        path = tmp_path / name
        path.write_bytes(content)
        assert judge(path).word == "cannot judge", name
    assert judge(tmp_path / "whole.jpg").word == "pass"
    assert judge(tmp_path / "missing.png").word == "cannot judge"


def test_what_is_not_in_the_picture_is_not_judged():
    sample = good(shift=(0, 15))
    assert inspector().judge(sample).word == "cannot judge"
    assert "are not in the picture" in inspector().judge(sample).reasons[0]
    assert inspector(config=InspectConfig(border=16)).judge(sample).word == "pass"


def test_sixteen_bits_are_scaled_by_what_is_white(tmp_path):
    twelve = GOLDEN.astype(np.uint16) * 16
    path = save(tmp_path / "twelve.png", twelve)
    assert inspector(config=InspectConfig(white=4080)).judge(path).word == "pass"
    assert inspector().judge(GOLDEN.astype(np.uint16) * 257).word == "pass"


def test_grey_saved_as_colour_is_grey_and_colour_goldens_want_colour():
    assert inspector().judge(np.dstack([GOLDEN] * 3)).word == "pass"
    colour = inspector([_coloured(GOLDEN)])
    assert colour.judge(_coloured(good(shift=(2, 1)))).word == "pass"
    assert "in grey and the golden in colour" in colour.judge(GOLDEN).reasons[0]


def test_transparent_pictures_are_not_judged(tmp_path):
    alpha = np.full(SHAPE, 255, np.uint8)
    opaque = save(tmp_path / "a.png", np.dstack([GOLDEN] * 3 + [alpha]))
    alpha[50:90, 50:90] = 0
    holed = save(tmp_path / "b.png", np.dstack([GOLDEN] * 3 + [alpha]))
    assert inspector().judge(opaque).word == "pass"
    assert "transparent" in inspector().judge(holed).reasons[0]


def test_windows_go_to_the_network_in_batches_and_the_batch_changes_nothing():
    sample = bad(["hole"], shift=(2, 1))
    tiling = TilingConfig(tile_size=64, overlap=16)  # 5 x 5 windows
    scores = []
    for size, calls in ((8, 4), (25, 1)):
        predict = PredictConfig(first_look=False, batch_size=size)
        one = inspector(config=InspectConfig(tiling=tiling, predict=predict))
        scores.append(one.judge(sample).scores)
        assert one.predictor.calls == calls
    np.testing.assert_array_equal(*scores)


# Several goldens


def test_union_wants_a_difference_from_every_golden_and_nearest_takes_the_most_like():
    other = BOARD.with_defects(["spot"], seed=6)
    both = BOARD.with_defects(["spot", "hole"], seed=6)
    goldens = [GOLDEN, photograph(other.image, shift=(3, -2), turn=0.3)]
    nearest = inspector(goldens)
    assert [nearest.judge(i).golden for i in (GOLDEN, other.image)] == [0, 1]
    assert nearest.judge(other.image).word == "pass"
    union = inspector(goldens, config=InspectConfig(golden_rule="union"))
    assert [union.judge(i).word for i in (GOLDEN, other.image)] == ["pass", "pass"]
    verdict = union.judge(both.image)
    assert (verdict.word, verdict.golden, len(verdict.defects)) == ("reject", None, 1)


def test_goldens_of_other_parts_sizes_and_colours_are_refused(tmp_path):
    with pytest.raises(InputError, match="inspect others on their own"):
        inspector([GOLDEN, paint_board(SHAPE, seed=9).image])
    with pytest.raises(InputError, match="256 x 256 in grey, number 2 is 256 x 255"):
        inspector([GOLDEN, GOLDEN[:-1]])
    with pytest.raises(InputError, match="in colour"):
        inspector([GOLDEN, _coloured(GOLDEN)])
    with pytest.raises(InputError, match="cannot be used"):
        inspector([tmp_path / "missing.png"])
    with pytest.raises(ConfigError, match="needs a golden"):
        inspector([])


# Zones


def _zones(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": properties, "geometry": {
            "type": "Polygon", "coordinates": [list(shapely.box(*box).exterior.coords)]}}
        for box, properties in features
    ]}))  # fmt: skip
    return path


def _box(sample):
    return inspector().judge(sample).defects[0].box


def test_what_is_excluded_is_not_looked_at():
    sample = bad(["spot"])
    left, top, right, bottom = _box(sample)
    mask = Zone("label", shapely.box(left - 4, top - 4, right + 4, bottom + 4), exclude=True)
    assert inspector(zones=[mask]).judge(sample).word == "pass"
    assert inspector(zones=[mask]).judge(bad(["spot", "hole"], seed=2)).word == "reject"


def test_zones_have_limits_of_their_own(tmp_path):
    sample = bad(["spot"])
    left, top, right, bottom = _box(sample)
    around = (left - 4, top - 4, right + 4, bottom + 4)
    path = tmp_path / "zones.geojson"
    words = []
    for limits in ({}, {"max_defects": 1}, {"min_area_px": 5000}, {"min_area_mm2": 4}):
        _zones(path, (around, {"name": "pads", **limits}))
        zones = read_zones(path, mm_per_pixel=0.1)
        verdict = inspector(zones=zones).judge(sample)
        words.append(verdict.word)
        assert verdict.defects[0].zone == "pads"
    assert words == ["reject", "pass", "pass", "pass"]
    assert verdict.defects[0].counts is False
    _zones(path, (around, {"name": "pads"}))
    reject = inspector(zones=read_zones(path, mm_per_pixel=None)).judge(sample)
    assert reject.reasons == ("1 defect in zone pads",)


def test_a_defect_across_two_zones_is_judged_by_both():
    sample = bad(["spot"])
    left, top, right, bottom = _box(sample)
    most = Zone("lenient", shapely.box(left - 4, top - 4, right - 1, bottom + 4), max_defects=5)
    verdict = inspector(zones=[most]).judge(sample)
    assert verdict.defects[0].zone == "lenient"
    assert verdict.word == "reject"


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({}, "has no name"),
        ({"name": "a", "min_aera_px": 3}, "unknown min_aera_px"),
        ({"name": "a", "threshold": 2}, "between 0 and 1"),
        ({"name": "a", "threshold": "0.5"}, "must be a number"),
        ({"name": "a", "max_defects": 1.5}, "whole number"),
        ({"name": "a", "exclude": "yes"}, "true or false"),
        ({"name": "a", "exclude": True, "max_defects": 1}, "mean nothing"),
        ({"name": "a", "min_area_px": 1, "min_area_mm2": 1}, "not both"),
    ],
)
def test_zones_that_are_not_understood_are_refused(tmp_path, properties, message):
    path = _zones(tmp_path / "z.geojson", ((10, 10, 50, 50), properties))
    with pytest.raises(InputError, match=message):
        read_zones(path, mm_per_pixel=1)


def test_zones_outside_and_limits_without_a_scale_are_refused(tmp_path):
    path = _zones(tmp_path / "z.geojson", ((10, -50, 50, -10), {"name": "a", "min_area_mm2": 1}))
    with pytest.raises(ConfigError, match="mm-per-pixel"):
        read_zones(path, mm_per_pixel=None)
    with pytest.raises(InputError, match="no pixel of the golden"):
        inspector(zones=read_zones(path, mm_per_pixel=1))
    path.write_text("[]")
    with pytest.raises(InputError, match="no zones that are understood"):
        read_zones(path, mm_per_pixel=1)


@pytest.mark.parametrize(
    "settings",
    [{"min_area": -1}, {"mm_per_pixel": 0}, {"white": 0}, {"min_sharpness": 0},
     {"golden_rule": "best"}, {"threshold": 1.0}, {"max_shift": math.nan},
     {"contrasts": (1.2, 2)}, {"predict": PredictConfig()}],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        InspectConfig(**settings)
