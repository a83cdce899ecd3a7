"""Labelled pairs are found, fit together, are drawn the same way again, and are reported on."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from samples import block_label, picture, save, triple

from geocd.errors import ConfigError, DamagedSampleError, DatasetError, GeocdWarning
from geocd.testing import write_raster
from geocd.training.datasets import (
    LabelCoding,
    LabelledPairs,
    find_pairs,
    inspect_pairs,
    read_image,
    read_label,
)
from geocd.training.datasets.files import read_header
from geocd.training.tiles import IGNORE


def _cdd(root):
    for number, split in enumerate(("train", "val", "test")):
        triple(root / split, "00001", seed=number, names=("A", "B", "OUT"), ext=".jpg")


def _levir_with_lists(root):
    for number, split in enumerate(("train", "val", "test")):
        triple(root, f"{split}_1", seed=number)
        (root / "list").mkdir(exist_ok=True)
        (root / "list" / f"{split}.txt").write_bytes(f"{split}_1.png\r\n\r\n".encode())


def _lists_beside_without_extensions(root):
    for number, split in enumerate(("train", "val", "test")):
        triple(root, f"{split}.1", seed=number)
        (root / f"{split}.txt").write_text(f"{split}.1\n")


def _sysu(root):
    for number, split in enumerate(("train", "val", "test")):
        triple(root / split, "00001", seed=number, names=("time1", "time2", "label"))


def _dsifn(root):
    for number, split in enumerate(("train", "val", "test")):
        triple(root / split, "1", seed=number, names=("t1", "t2", "mask"))


def _open_cd(root):
    for number, split in enumerate(("train", "val", "test")):
        triple(root, f"{split}_1", seed=number)
        line = " ".join(f"{sub}/{split}_1.png" for sub in ("A", "B", "label"))
        (root / f"{split}.txt").write_text(f"{line}\n")


def _open_cd_below_splits(root):
    for number, split in enumerate(("train", "val", "test")):
        triple(root / split, "1", seed=number)
        line = "\t".join(f"{split}/{sub}/1.png" for sub in ("A", "B", "label"))
        (root / f"{split}.txt").write_text(f"{line}\n")


@pytest.mark.parametrize(
    "paint",
    [_cdd, _levir_with_lists, _lists_beside_without_extensions, _sysu, _dsifn, _open_cd,
     _open_cd_below_splits],
)  # fmt: skip
def test_published_layouts_are_recognised(tmp_path, paint):
    paint(tmp_path)
    pairs = find_pairs(tmp_path)
    assert [pair.split for pair in pairs] == ["train", "val", "test"]
    assert len({pair.name for pair in pairs}) == 3
    for number, pair in enumerate(pairs):
        assert pair.name.startswith(f"{pair.split}/")
        assert read_label(pair.label, LabelCoding())[0].sum() == 48
        if pair.before.suffix == ".png":
            np.testing.assert_array_equal(read_image(pair.before), picture(2 * number))
            np.testing.assert_array_equal(read_image(pair.after), picture(2 * number + 1))
    assert find_pairs(tmp_path, split="val") == [pairs[1]]


def test_a_flat_folder_has_no_splits_and_extensions_may_differ(tmp_path):
    triple(tmp_path, "b[1]", seed=0, ext=".jpg")
    triple(tmp_path, "a.tile", seed=1)
    save(tmp_path / "A" / ".hidden.png", block_label())
    pairs = find_pairs(tmp_path)
    assert [(p.name, p.split) for p in pairs] == [("a.tile", None), ("b[1]", None)]
    assert [p.suffix for p in (pairs[1].before, pairs[1].label)] == [".jpg", ".png"]
    with pytest.raises(DatasetError, match="no split 'train'; it has: none"):
        find_pairs(tmp_path, split="train")


@pytest.mark.parametrize("missing", ["A", "B", "OUT"])
def test_the_date_or_label_that_is_missing_is_named(tmp_path, missing):
    _cdd(tmp_path)
    triple(tmp_path / "val", "7", seed=9, names=("A", "B", "OUT"))
    (tmp_path / "val" / missing / "7.png").unlink()
    with pytest.raises(DatasetError, match=rf"7\.png has no partner in .*val/{missing}"):
        find_pairs(tmp_path)
    assert len(find_pairs(tmp_path, split="train")) == 1


def test_an_empty_split_is_named(tmp_path):
    _cdd(tmp_path)
    for sub in ("A", "B", "OUT"):
        next((tmp_path / "test" / sub).iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"split 'test' of .* is empty"):
        find_pairs(tmp_path)


def test_an_empty_list_is_named(tmp_path):
    _levir_with_lists(tmp_path)
    (tmp_path / "list" / "val.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"split 'val' .* is empty: no images in .*val\.txt"):
        find_pairs(tmp_path)


def test_a_listed_file_that_is_not_there_is_named_with_its_line(tmp_path):
    _levir_with_lists(tmp_path)
    (tmp_path / "list" / "val.txt").write_text("val_1.png\nval_2.png\n")
    with pytest.raises(DatasetError, match=r"val\.txt, line 2: no val_2 in .*A"):
        find_pairs(tmp_path)
    _open_cd(tmp_path / "other")
    (tmp_path / "other" / "test.txt").write_text("A/test_1.png B/test_1.png label/x.png\n")
    with pytest.raises(DatasetError, match=r"test\.txt, line 1: there is no .*label/x\.png"):
        find_pairs(tmp_path / "other")
    (tmp_path / "other" / "test.txt").write_text("A/a.png B/a.png label/a.png\nA/b.png B/b.png\n")
    with pytest.raises(DatasetError, match="line"):
        find_pairs(tmp_path / "other")


def test_an_unknown_layout_says_what_is_known_and_what_was_found(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DatasetError, match=r"A/, B/ and label/ .*found are pictures/"):
        find_pairs(tmp_path)
    _cdd(tmp_path / "Real" / "subset")
    with pytest.raises(DatasetError, match=r"try .*Real/subset"):
        find_pairs(tmp_path)


def test_a_folder_that_is_missing_is_named(tmp_path):
    triple(tmp_path, "1", seed=0, names=("A", "B", "change"))
    with pytest.raises(DatasetError, match=r"no folder labels .*found are A/, B/, change/"):
        find_pairs(tmp_path)
    with pytest.raises(DatasetError, match="there is no folder"):
        find_pairs(tmp_path / "nowhere")


def test_two_files_of_one_name_are_refused(tmp_path):
    triple(tmp_path, "1", seed=0)
    save(tmp_path / "A" / "1.tif", picture(1))
    with pytest.raises(DatasetError, match=r"1\.tif and 1\.png have one name"):
        find_pairs(tmp_path)


# Labels


def test_any_value_but_zero_is_change_and_other_classes_are_not_known():
    planes = LabelCoding(ignore=9).planes(np.array([[0, 1, 255, 9]]), name="x")
    assert planes.tolist() == [[[0, 1, 1, IGNORE]], [[IGNORE] * 4]]


def test_classes_are_told_by_their_values():
    coding = LabelCoding(classes=("building", "road", "water"), values={"road": 2, "building": 1})
    planes = coding.planes(np.array([[0, 1, 2]]), name="x")
    assert planes.tolist() == [[[0, 1, 0]], [[0, 0, 1]], [[IGNORE] * 3]]


def test_wrong_class_values_are_named_with_the_file():
    coding = LabelCoding(values={"building": 1}, ignore=255)
    with pytest.raises(
        DatasetError, match=r"m\.png has wrong class values 2, 7; wanted are 0 none"
    ):
        coding.planes(np.array([[0, 7, 2, 255]]), name="m.png")


@pytest.mark.parametrize(
    "options",
    [{"classes": ()}, {"classes": ("a", "a")}, {"values": {"tree": 1}}, {"values": {"road": 0}},
     {"values": {"road": 1, "building": 1}}, {"ignore": 0}],
)  # fmt: skip
def test_impossible_codings_are_refused(options):
    with pytest.raises(ConfigError):
        LabelCoding(**options)


def test_a_lossy_binary_label_is_cut_in_the_middle(tmp_path):
    label = block_label((64, 64))
    path = save(tmp_path / "l.jpg", label, quality=80)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    np.testing.assert_array_equal(read_label(path, LabelCoding())[0], label > 0)
    for coding in (LabelCoding(ignore=128), LabelCoding(values={"building": 1, "road": 2})):
        with pytest.raises(DatasetError, match=r"l\.jpg is compressed with losses"):
            read_label(path, coding)


@pytest.mark.parametrize(
    ("name", "options", "lossy"),
    [("l.png", {}, False), ("l.jpg", {}, True), ("l.webp", {}, True),
     ("l.webp", {"lossless": True}, False), ("l.tif", {"compression": "tiff_lzw"}, False),
     ("l.tif", {"compression": "jpeg"}, True)],
)  # fmt: skip
def test_losses_are_told_by_the_file_and_not_by_its_name(tmp_path, name, options, lossy):
    path = save(tmp_path / name, np.repeat(block_label((64, 64))[..., None], 3, 2), **options)
    assert read_header(path).lossy == lossy


def test_a_label_in_colours_is_refused_and_a_grey_one_in_three_bands_is_not(tmp_path):
    grey = save(tmp_path / "g.png", np.repeat(block_label()[..., None], 3, 2))
    assert read_label(grey, LabelCoding())[0].sum() == 48
    coloured = save(tmp_path / "c.png", picture(0))
    with pytest.raises(DatasetError, match=r"c\.png is a label in colours"):
        read_label(coloured, LabelCoding())


def test_label_values_survive_palettes_and_single_bits(tmp_path):
    palette = Image.fromarray(block_label(value=2))
    palette = palette.convert("P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 255, 0, 0])
    palette.save(tmp_path / "p.png")
    coding = LabelCoding(values={"building": 2})
    assert read_label(tmp_path / "p.png", coding)[0].sum() == 48
    Image.fromarray(block_label() > 0).save(tmp_path / "bit.png")
    assert read_label(tmp_path / "bit.png", LabelCoding())[0].sum() == 48


# Images


def test_images_become_rgb(tmp_path):
    colour = picture(3)
    grey = save(tmp_path / "grey.png", colour[..., 0])
    np.testing.assert_array_equal(read_image(grey), np.repeat(colour[..., :1], 3, 2))
    alpha = save(tmp_path / "alpha.png", np.dstack([colour, np.full(colour.shape[:2], 9, "u1")]))
    np.testing.assert_array_equal(read_image(alpha), colour)
    four = write_raster(tmp_path / "four.tif", np.moveaxis(colour[..., [0, 1, 2, 0]], 2, 0))
    np.testing.assert_array_equal(read_image(four), colour)
    Image.fromarray(block_label(value=1)).convert("P").save(tmp_path / "p.png")
    palette = Image.open(tmp_path / "p.png")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png")
    assert {tuple(c) for c in read_image(tmp_path / "p.png").reshape(-1, 3).tolist()} == {
        (10, 20, 30), (40, 50, 60)}  # fmt: skip


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.ones((3, 8, 8), np.uint16), r"deep\.tif holds uint16 values, wanted are 8 bits; scale"),
     (np.ones((2, 8, 8), np.uint8), r"deep\.tif has 2 bands")],
)  # fmt: skip
def test_images_that_show_no_colours_are_refused(tmp_path, array, message):
    path = write_raster(tmp_path / "deep.tif", array)
    with pytest.raises(DatasetError, match=message):
        read_image(path)


@pytest.mark.parametrize("ext", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_file_cut_short_is_damaged(tmp_path, ext, kept):
    path = save(tmp_path / f"cut.{ext}", picture(0, (64, 64)))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DamagedSampleError, match=rf"cannot read .*cut\.{ext}"):
        read_image(path)


# Drawing


def test_what_one_date_did_not_observe_is_ignored(tmp_path):
    triple(tmp_path, "1", seed=0)
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:6] = 0
    save(tmp_path / "A" / "1.png", np.dstack([picture(0), alpha]))
    after = np.moveaxis(picture(1), 2, 0)
    after[:, :, :10] = 0
    (tmp_path / "B" / "1.png").unlink()
    write_raster(tmp_path / "B" / "1.tif", after, nodata=0)
    (chip,) = LabelledPairs(find_pairs(tmp_path)).chips()
    assert (chip.change[0] == IGNORE).sum() == 6 * 32 + 18 * 10
    assert (chip.change[0] == 1).sum() == 4 * 4
    (split,) = inspect_pairs(tmp_path).splits
    assert split.classes["change"].ignored == 6 * 32 + 18 * 10


def _mapped(root, shape, number=0):
    """A pair whose pixels say where they are: red the row, green the column, blue the pair."""
    rows, cols = np.indices(shape)
    before = np.stack([rows, cols, np.full(shape, number)], 2).astype(np.uint8)
    label = ((rows * 7 + cols * 3) % 5 == 0).astype(np.uint8)
    save(root / "A" / f"{number}.png", before)
    save(root / "B" / f"{number}.png", 255 - before)
    save(root / "label" / f"{number}.png", label)
    return root


def _check_mapped(chip):
    """Both dates and the label are of the same ground, pixel by pixel."""
    np.testing.assert_array_equal(chip.after, 255 - chip.before)
    rows, cols = (chip.before[..., band].astype(int) for band in (0, 1))
    known = chip.change[0] != IGNORE
    np.testing.assert_array_equal(chip.change[0][known], ((rows * 7 + cols * 3) % 5 == 0)[known])
    assert (chip.change[1] == IGNORE).all()
    return rows, cols, known


@pytest.mark.parametrize("balanced", [0.0, 1.0])
def test_crops_are_turned_whole_and_never_shrunk(tmp_path, balanced):
    pairs = LabelledPairs(find_pairs(_mapped(tmp_path, (150, 100))), balanced=balanced)
    orientations, corners = set(), set()
    for seed in range(60):
        pair = pairs.sample(np.random.default_rng(seed), 32)
        rows, cols, known = _check_mapped(pair)
        assert known.all()
        assert (np.ptp(rows), np.ptp(cols)) == (31, 31)
        orientations.add((rows[1, 0] - rows[0, 0], cols[1, 0] - cols[0, 0],
                          rows[0, 1] - rows[0, 0], cols[0, 1] - cols[0, 0]))  # fmt: skip
        corners.add((rows.min(), cols.min()))
        assert pair.kind == "real"
        assert (pair.labels_before == IGNORE).all()
        assert (pair.labels_after == IGNORE).all()
    assert len(orientations) == 8
    assert len(corners) > 40


@pytest.mark.parametrize("shape", [(40, 20), (20, 100), (1, 7), (13, 13)])
def test_what_lies_beyond_a_small_image_is_ignored(tmp_path, shape):
    pairs = LabelledPairs(find_pairs(_mapped(tmp_path, shape)), balanced=0.5)
    for seed in range(8):
        pair = pairs.sample(np.random.default_rng(seed), 48)
        assert pair.before.shape == (48, 48, 3)
        rows, cols, known = _check_mapped(pair)
        there = list(zip(rows[known], cols[known], strict=True))
        assert len(there) == len(set(there)) == min(shape[0], 48) * min(shape[1], 48)


def test_a_sample_depends_on_the_generator_alone(tmp_path):
    for number in range(5):
        _mapped(tmp_path, (60, 70), number)
    once = LabelledPairs(find_pairs(tmp_path), balanced=0.5)
    again = LabelledPairs(find_pairs(tmp_path), balanced=0.5, cache_bytes=0)
    for seed in range(20):
        once.sample(np.random.default_rng(seed + 1000), 16)
    again = pickle.loads(pickle.dumps(again))
    for seed in range(20):
        a, b = (p.sample(np.random.default_rng(seed), 16) for p in (once, again))
        np.testing.assert_array_equal(a.before, b.before)
        np.testing.assert_array_equal(a.change, b.change)
        a.before[:] = a.change[:] = 0  # what is kept must not change with it


def test_ground_is_drawn_evenly_over_images_of_all_sizes(tmp_path):
    _mapped(tmp_path, (120, 120), 0)
    _mapped(tmp_path, (40, 40), 1)
    pairs = LabelledPairs(find_pairs(tmp_path))
    drawn = [pairs.sample(np.random.default_rng(s), 8).before[0, 0, 2] for s in range(300)]
    assert 240 < drawn.count(0) < 295  # nine tenths


def test_balanced_samples_show_change_of_each_class_equally_often(tmp_path):
    for number, (value, where) in enumerate(((1, 3), (2, 250), (0, 0), (0, 0))):
        _mapped(tmp_path, (256, 256), number)
        label = np.zeros((256, 256), np.uint8)
        label[where : where + 3, 100:103] = value
        save(tmp_path / "label" / f"{number}.png", label)
    coding = LabelCoding(values={"building": 1, "road": 2})
    pairs = LabelledPairs(find_pairs(tmp_path), coding=coding, balanced=1.0)
    samples = [pairs.sample(np.random.default_rng(seed), 32) for seed in range(60)]
    shown = np.array([(s.change == 1).any(axis=(1, 2)) for s in samples])
    assert shown.any(axis=1).all()
    assert 18 < shown[:, 0].sum() < 42
    centred = [np.argwhere((s.change == 1).any(axis=0)).mean(axis=0) for s in samples]
    assert np.std(centred) > 4  # near the middle, not in it
    plain = LabelledPairs(find_pairs(tmp_path), coding=coding)
    rare = [plain.sample(np.random.default_rng(s), 32) for s in range(60)]
    assert sum((s.change == 1).any() for s in rare) < 10


@pytest.mark.parametrize(("crop", "overlap"), [(16, 0), (16, 5), (32, 31), (64, 10), (None, 0)])
def test_chips_show_every_labelled_pixel_once_and_in_order(tmp_path, crop, overlap):
    _mapped(tmp_path, (50, 37), 0)
    _mapped(tmp_path, (33, 70), 1)
    pairs = LabelledPairs(find_pairs(tmp_path))
    chips = list(pairs.chips(crop, overlap=overlap))
    assert [c.name for c in chips] == sorted(c.name for c in chips)
    for name, shape in (("0", (50, 37)), ("1", (33, 70))):
        seen = np.zeros(shape, int)
        for chip in (c for c in chips if c.name == name):
            assert crop is None or chip.before.shape == (crop, crop, 3)
            rows, cols, known = _check_mapped(chip)
            np.add.at(seen, (rows[known], cols[known]), 1)
            assert (rows[0, 0], cols[0, 0]) == (chip.rows.start, chip.cols.start)
            assert chip.rows.stop <= shape[0]
            assert chip.cols.stop <= shape[1]
        assert (seen == 1).all()


def test_decoded_images_are_kept_within_the_budget(tmp_path):
    for number in range(6):
        _mapped(tmp_path, (64, 64), number)
    one = 64 * 64 * 8
    pairs = LabelledPairs(find_pairs(tmp_path), cache_bytes=3 * one + 100)
    for seed in range(40):
        pairs.sample(np.random.default_rng(seed), 32)
        assert pairs._cache.nbytes == one * len(pairs._cache._opened) <= 3 * one
    assert pairs._cache.nbytes == 3 * one


def _cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_a_file_damaged_during_an_epoch_is_named_skipped_and_counted(tmp_path):
    for number in range(3):
        _mapped(tmp_path, (40, 40), number)
    sound = LabelledPairs(find_pairs(tmp_path), cache_bytes=0)
    _cut_short(tmp_path / "B" / "1.png")
    first, second = (LabelledPairs(find_pairs(tmp_path), cache_bytes=0) for _ in range(2))
    with pytest.warns(GeocdWarning, match=r"pair 1 is skipped: cannot read .*B/1\.png") as said:
        drawn = [first.sample(np.random.default_rng(s), 16) for s in range(30)]
    assert len(said) == 1
    assert {pair.before[0, 0, 2] for pair in drawn} == {0, 2}
    assert first.damaged["1"] >= 5
    with pytest.warns(GeocdWarning):
        again = {s: second.sample(np.random.default_rng(s), 16) for s in reversed(range(30))}
    for seed in range(30):  # drawn in another order: the same samples
        np.testing.assert_array_equal(again[seed].before, drawn[seed].before)
    with pytest.warns(GeocdWarning):
        assert [c.name for c in sound.chips(40)] == ["0", "2"]


def test_damage_is_an_error_where_it_is_wanted_to_be(tmp_path):
    for number in range(2):
        _mapped(tmp_path, (40, 40), number)
    _cut_short(tmp_path / "A" / "1.png")
    strict = LabelledPairs(find_pairs(tmp_path), strict=True)
    with pytest.raises(DatasetError, match=r"A/1\.png"):
        list(strict.chips(40))
    _cut_short(tmp_path / "label" / "0.png")
    with pytest.raises(DatasetError, match=r"label/0\.png"):
        LabelledPairs(find_pairs(tmp_path), strict=True)


def test_a_set_without_a_sound_pair_is_refused(tmp_path):
    _mapped(tmp_path, (40, 40))
    pairs = LabelledPairs(find_pairs(tmp_path))
    _cut_short(tmp_path / "A" / "0.png")
    with (
        pytest.warns(GeocdWarning),
        pytest.raises(DatasetError, match="100 pairs drawn in a row are damaged: 0"),
    ):
        pairs.sample(np.random.default_rng(0), 16)
    _cut_short(tmp_path / "label" / "0.png")
    with pytest.warns(GeocdWarning), pytest.raises(DatasetError, match="none of 1 pairs"):
        LabelledPairs(find_pairs(tmp_path))


@pytest.mark.parametrize("changed", ["B", "label"])
def test_files_of_different_size_are_refused_before_training(tmp_path, changed):
    triple(tmp_path, "1", seed=0)
    save(tmp_path / changed / "1.png", block_label((24, 30)))
    with pytest.raises(
        DatasetError, match=rf"{changed}/1\.png is 24 x 30, but .*A/1\.png is 24 x 32"
    ):
        LabelledPairs(find_pairs(tmp_path))


def test_sixteen_bits_and_wrong_values_are_refused_before_training(tmp_path):
    triple(tmp_path, "1", seed=0)
    with pytest.raises(DatasetError, match="wrong class values 255"):
        LabelledPairs(find_pairs(tmp_path), coding=LabelCoding(values={"building": 1}))
    Image.fromarray(np.ones((24, 32), np.uint16)).save(tmp_path / "B" / "1.png")
    with pytest.raises(DatasetError, match="holds uint16"):
        LabelledPairs(find_pairs(tmp_path))


def test_a_set_without_change_cannot_be_balanced_and_says_so(tmp_path):
    triple(tmp_path, "1", seed=0)
    save(tmp_path / "label" / "1.png", np.zeros((24, 32), np.uint8))
    with pytest.warns(GeocdWarning, match="none of 1 pairs shows change"):
        pairs = LabelledPairs(find_pairs(tmp_path), balanced=0.5)
    assert not (pairs.sample(np.random.default_rng(0), 16).change[0] == 1).any()


@pytest.mark.parametrize("options", [{"balanced": 1.5}, {"balanced": -0.1}, {"cache_bytes": -1}])
def test_impossible_settings_are_refused(tmp_path, options):
    triple(tmp_path, "1", seed=0)
    with pytest.raises(ConfigError):
        LabelledPairs(find_pairs(tmp_path), **options)
    with pytest.raises(ConfigError):
        next(LabelledPairs(find_pairs(tmp_path)).chips(16, overlap=16))
