import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_masks import lip_source, make_dataset, make_labels, save_labels

from reidkit.errors import DataError
from reidkit.image import MAX_PIXELS
from reidkit.masks.matching import label_stem, match_labels
from reidkit.types import PARTS, Dataset


def only(dataset: Dataset, number: int = 0) -> np.ndarray:
    return next(lip_source(dataset).part_maps([dataset.train[number].path]))


def label_file(dataset: Dataset, number: int = 0) -> Path:
    return dataset.root / "labels" / f"{dataset.train[number].path[:-4]}.png"


def test_index_maps_become_part_maps_of_the_images_size_in_order(toy: Dataset):
    source = lip_source(toy)
    assert source.parts == PARTS
    names = [sample.path for sample in toy.train]
    maps = list(source.part_maps(names))
    again = list(source.part_maps(names[::-1]))[::-1]
    for one, other in zip(maps, again, strict=True):
        assert one.shape == (128, 64) and one.dtype == np.uint8
        assert set(np.unique(one)) == {0, 1, 2, 3, 4}
        np.testing.assert_array_equal(one, other)


def test_a_palette_png_is_read_by_index_not_by_luminance(toy: Dataset):
    plain = only(toy)
    file = label_file(toy)
    labels = Image.open(file).copy()
    palette = Image.fromarray(np.asarray(labels))
    palette.putpalette([255 - i // 3 for i in range(768)])  # the luminance of index 13 would be 242
    palette.save(file)
    with Image.open(file) as written:
        assert written.mode == "P"
    np.testing.assert_array_equal(only(toy), plain)


def test_a_label_above_19_is_refused_with_its_file(toy: Dataset):
    labels = np.array(Image.open(label_file(toy)))
    labels[5, 5] = 20
    save_labels(labels, label_file(toy))
    with pytest.raises(DataError, match=r"000000_01\.png: label 20, expected at most 19"):
        only(toy)


def test_a_colour_image_in_place_of_a_label_map_is_refused(toy: Dataset):
    Image.fromarray(np.zeros((128, 64, 3), np.uint8)).save(label_file(toy))
    with pytest.raises(DataError, match="mode RGB, expected a single-channel map"):
        only(toy)


def test_a_label_map_of_another_size_than_its_image_is_refused(toy: Dataset):
    save_labels(np.zeros((64, 32), np.uint8), label_file(toy))
    with pytest.raises(DataError, match=r"64x32 pixels .* has 128x64"):
        only(toy)


def test_a_photo_that_exif_rotates_takes_an_upright_label_map(toy: Dataset):
    labels = make_labels(np.random.default_rng(4))
    save_labels(labels, label_file(toy))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: 64 high, 128 wide
    lying = Image.fromarray(np.rot90(labels))
    lying.save(toy.root / toy.train[0].path, exif=exif)
    assert lying.size == (128, 64) and only(toy).shape == (128, 64)
    lying.save(label_file(toy))
    with pytest.raises(DataError, match=r"64x128 pixels .* has 128x64 when upright"):
        only(toy)


def test_a_truncated_label_map_and_a_broken_image_are_refused_by_name(toy: Dataset):
    file = label_file(toy)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot read image .*000000_01\.png: .*truncated"):
        only(toy)
    (toy.root / toy.train[1].path).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read image .*000001_01\.jpg: it is not an image"):
        only(toy, 1)
    (toy.root / toy.train[2].path).unlink()
    with pytest.raises(DataError, match=r"no such image: .*000002_01\.jpg"):
        only(toy, 2)


@pytest.mark.parametrize("size", [(9000, 9000), (15_000, 15_000), (30_000, 30_000)])
def test_label_maps_above_the_pixel_cap_are_refused_before_they_are_decoded(
    toy: Dataset, size: tuple[int, int]
):
    whole = label_file(toy).read_bytes()
    header = b"IHDR" + struct.pack(">II", *size) + whole[24:29]
    crc = struct.pack(">I", zlib.crc32(header))
    label_file(toy).write_bytes(whole[:12] + header + crc + whole[33:])  # only claims to be large
    with pytest.raises(DataError, match=r"more (than the cap|pixels than the cap) of 64,000,000"):
        only(toy)
    assert MAX_PIXELS < 9000 * 9000


def test_label_maps_may_be_nested_or_flat(tmp_path: Path):
    dataset = make_dataset(tmp_path / "toy", images=3)
    names = [sample.path for sample in dataset.train]
    nested = match_labels(names, dataset.root / "labels", stem=label_stem)
    flat = match_labels(names, dataset.root / "labels" / "train", stem=label_stem)
    assert nested.found == flat.found and len(nested.found) == 3
    assert (nested.by_name, flat.by_name) == (0, 3)
    assert nested.missing == flat.missing == ()


def test_label_files_may_keep_the_images_suffix_and_colour_images_are_skipped():
    assert label_stem("0001_c1.png") == "0001_c1"
    assert label_stem("0001_c1.jpg.png") == "0001_c1"
    assert label_stem("0001.5_c1.png") == "0001.5_c1"
    assert label_stem("0001_c1_vis.png") is None
    assert label_stem("Thumbs.db") is None


def test_missing_label_maps_are_counted_and_named_with_the_matching_rule(toy: Dataset):
    for number in range(1, 6):
        label_file(toy, number).unlink()
    save_labels(np.zeros((4, 4), np.uint8), toy.root / "labels" / "unmatched.png")
    with pytest.raises(DataError) as caught:
        lip_source(toy)
    message = str(caught.value)
    assert "5 of 12 images have no label map" in message
    assert "by relative path, then by file name" in message
    assert "1 label maps belong to no image" in message
    assert all(toy.train[number].path in message for number in (1, 2, 3))
    assert toy.train[4].path not in message


def test_a_name_that_fits_two_label_maps_is_refused(toy: Dataset):
    name = Path(toy.train[0].path).name
    for folder in ("a", "b"):
        save_labels(np.zeros((4, 4), np.uint8), toy.root / "two" / folder / f"{name[:-4]}.png")
    with pytest.raises(DataError, match=r"2 label maps under .* could belong"):
        match_labels([toy.train[0].path], toy.root / "two", stem=label_stem)


def test_a_label_map_that_fits_two_images_is_refused(toy: Dataset):
    save_labels(np.zeros((4, 4), np.uint8), toy.root / "flat" / "0001.png")
    with pytest.raises(
        DataError, match=r"0001\.png could belong to cam1/0001.jpg and to cam2/0001"
    ):
        match_labels(["cam1/0001.jpg", "cam2/0001.jpg"], toy.root / "flat", stem=label_stem)
    save_labels(np.zeros((4, 4), np.uint8), toy.root / "flat" / "cam2" / "0001.png")
    with pytest.raises(DataError, match="2 label maps"):
        match_labels(["cam1/0001.jpg", "cam2/0001.jpg"], toy.root / "flat", stem=label_stem)


def test_a_missing_label_folder_is_named(toy: Dataset):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        match_labels(["a.jpg"], toy.root / "nowhere", stem=label_stem)
