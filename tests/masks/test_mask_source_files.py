"""Sources other than index maps: colour images, the authors' five files, stripes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_masks import lip_source

from reidkit.errors import ConfigError, DataError
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.matching import colour_stem, match_labels
from reidkit.masks.sources import FIVE_FILES, FileSource, colour_maps, five_files, stripes
from reidkit.types import PARTS, Dataset

LIP = load_label_set("lip")


def names(dataset: Dataset) -> list[str]:
    return [sample.path for sample in dataset.train]


def save_colours(dataset: Dataset, folder: Path) -> None:
    """JPPNet's *_vis.png of every label map."""
    palette = np.array(LIP.palette, np.uint8)
    folder.mkdir()
    for file in (dataset.root / "labels" / "train").iterdir():
        with Image.open(file) as labels:
            colours = Image.fromarray(palette[np.asarray(labels)])
        colours.save(folder / f"{file.stem}_vis.png")


def colour_source(dataset: Dataset, folder: Path) -> FileSource:
    matching = match_labels(names(dataset), folder, stem=colour_stem).complete()
    return colour_maps(dataset.root, matching, default_grouping(LIP))


def assert_same_maps(one: FileSource, other: FileSource, images: list[str]) -> None:
    for a, b in zip(one.part_maps(images), other.part_maps(images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lips_palette_is_jppnets():
    # spot checks against JPPNet's published list
    assert LIP.palette[0] == (0, 0, 0) and LIP.palette[13] == (0, 0, 255)
    assert LIP.palette[7] == (0, 119, 221) and LIP.palette[19] == (255, 170, 0)


def test_colour_images_are_read_by_exact_palette(toy: Dataset, tmp_path: Path):
    save_colours(toy, tmp_path / "vis")
    assert_same_maps(colour_source(toy, tmp_path / "vis"), lip_source(toy), names(toy))


def test_colours_changed_by_jpeg_are_refused(toy: Dataset, tmp_path: Path):
    save_colours(toy, tmp_path / "vis")
    victim = sorted((tmp_path / "vis").iterdir())[0]
    with Image.open(victim) as colours:
        colours.save(tmp_path / "changed.jpg", quality=90)
    with Image.open(tmp_path / "changed.jpg") as changed:
        changed.save(victim)
    with pytest.raises(DataError, match="pixels are not in lip's palette, first RGB"):
        list(colour_source(toy, tmp_path / "vis").part_maps(names(toy)[:1]))
    (tmp_path / "changed.jpg").rename(victim.with_suffix(".jpg"))
    victim.unlink()
    with pytest.raises(DataError, match=r"_vis\.jpg: a JPEG"):
        list(colour_source(toy, tmp_path / "vis").part_maps(names(toy)[:1]))


def test_colours_need_a_palette(toy: Dataset, tmp_path: Path):
    save_colours(toy, tmp_path / "vis")
    matching = match_labels(names(toy), tmp_path / "vis", stem=colour_stem)
    with pytest.raises(ConfigError, match="atr has no palette"):
        colour_maps(toy.root, matching, default_grouping(load_label_set("atr")))


def save_five_files(dataset: Dataset, folder: Path) -> None:
    for name, part_map in zip(
        names(dataset), lip_source(dataset).part_maps(names(dataset)), strict=True
    ):
        place = folder / "Market1501_train_seg_part4" / Path(name).stem.partition(".")[0]
        place.mkdir(parents=True)
        for index, file in enumerate(FIVE_FILES, start=1):
            Image.fromarray(((part_map == index) * 255).astype(np.uint8)).save(
                place / f"{file}.png"
            )


@pytest.mark.parametrize("inside", ["", "Market1501_train_seg_part4"])
def test_the_authors_five_files_are_read(toy: Dataset, tmp_path: Path, inside: str):
    save_five_files(toy, tmp_path / "seg_part4")
    source = five_files(toy.root, names(toy), tmp_path / "seg_part4" / inside)
    assert source.parts == PARTS
    assert_same_maps(source, lip_source(toy), names(toy))


def test_part_files_of_0_and_1_are_refused(toy: Dataset, tmp_path: Path):
    # the authors divide by 255: such masks would give targets near zero
    save_five_files(toy, tmp_path / "seg_part4")
    victim = next(iter((tmp_path / "seg_part4").glob("*/*000000_01/head.png")))
    with Image.open(victim) as mask:
        Image.fromarray(np.asarray(mask) // 255).save(victim)
    source = five_files(toy.root, names(toy), tmp_path / "seg_part4")
    with pytest.raises(DataError, match=r"head\.png: values up to 1, expected a mask of 0 and 255"):
        list(source.part_maps(names(toy)[:1]))
    victim.with_name("shoes.png").unlink()
    Image.fromarray(np.zeros((128, 64), np.uint8)).save(victim)
    with pytest.raises(DataError, match=r"no such image: .*shoes\.png"):
        list(source.part_maps(names(toy)[:1]))


def test_images_without_part_files_are_counted(toy: Dataset, tmp_path: Path):
    save_five_files(toy, tmp_path / "seg_part4")
    images = [*names(toy), "train/0099_c1s1_000099_01.jpg"]
    with pytest.raises(DataError, match=r"1 of 13 images have no label map.*0099_c1s1"):
        five_files(toy.root, images, tmp_path / "seg_part4")


def test_stripes_follow_the_body_from_the_top_down(toy: Dataset):
    source = stripes(toy.root)
    part_map = next(source.part_maps(names(toy)[:1]))
    middle = part_map[:, 32]
    order = [int(v) for v in middle[np.flatnonzero(np.diff(middle, prepend=9))]]
    assert order == [0, 1, 2, 3, 4, 0]
    heights = [(middle == part).sum() / 128 for part in (1, 2, 3, 4)]
    # of a box of which the person fills 94 %: head .13, to the hip .34, to the ankle .491, .039
    assert heights == pytest.approx([0.122, 0.320, 0.462, 0.037], abs=0.008)
    np.testing.assert_array_equal(part_map, part_map[:, ::-1])
    assert source.name.startswith("stripes")


def test_stripes_keep_to_the_middle_of_a_wide_image(toy: Dataset):
    Image.new("RGB", (128, 128)).save(toy.root / names(toy)[0])
    part_map = next(stripes(toy.root).part_maps(names(toy)[:1]))
    assert part_map.shape == (128, 128)
    assert not part_map[:, :30].any() and not part_map[:, -30:].any()
