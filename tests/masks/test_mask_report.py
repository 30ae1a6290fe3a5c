from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_masks import lip_source, make_dataset

from reidkit.errors import DataError, MaskError
from reidkit.masks.contact_sheet import choose, save_contact_sheet
from reidkit.masks.prepare import prepare
from reidkit.masks.report import MaskReport, mask_report
from reidkit.masks.store import MaskStore
from reidkit.masks.writer import write_store
from reidkit.types import Dataset


def figure() -> np.ndarray:
    """A sound part map: head, upper body, lower body, shoes from the top down."""
    part_map = np.zeros((128, 64), np.uint8)
    part_map[5:20, 26:38] = 1
    part_map[20:64, 20:44] = 2
    part_map[64:112, 24:40] = 3
    part_map[112:122, 22:42] = 4
    return part_map


def report_on(
    tmp_path: Path, dataset: Dataset, maps: dict[int, np.ndarray], **changes
) -> MaskReport:
    """The report on a store in which the images numbered in `maps` have those masks."""
    masks = {dataset.train[number].path: part_map for number, part_map in maps.items()}
    source = replace(lip_source(dataset), read=lambda name: masks.get(name, figure()), **changes)
    path = tmp_path / "report.h5"
    write_store(path, dataset, dataset.train, source)
    return mask_report(MaskStore.open(path))


def test_sound_masks_raise_no_suspicion(tmp_path: Path, toy: Dataset):
    found = report_on(tmp_path, toy, {})
    assert (found.images, found.empty, found.suspicious) == (12, 0, 0)
    assert found.suspects == found.warnings == ()
    # shares of 128 x 64 cells: 15 * 12, 44 * 24, 48 * 16, 10 * 20
    assert found.coverage == pytest.approx([0.022, 0.129, 0.094, 0.024], abs=0.003)
    assert found.absent == (0, 0, 0, 0)


def test_each_defect_is_named(tmp_path: Path, toy: Dataset):
    sound = figure()
    noise = np.random.default_rng(0).integers(0, 5, (128, 64), np.uint8)
    broken = {
        0: np.zeros_like(sound),
        1: np.where(sound == 1, 0, sound).astype(np.uint8),
        2: np.array([0, 4, 2, 3, 1], np.uint8)[sound],
        3: np.roll(sound, 20, axis=1),
        4: np.ones_like(sound),
        5: noise,
    }
    found = report_on(tmp_path, toy, broken)
    reasons = {suspect.path: suspect.reasons for suspect in found.suspects}
    found_reasons = [reasons[toy.train[number].path] for number in range(6)]
    assert found_reasons[0] == ("next to no mask",)
    assert found_reasons[1] == ("no head",)
    assert "shoes above head" in found_reasons[2]
    assert "mask far from the middle" in found_reasons[3]
    assert "mask covers the whole image" in found_reasons[4]
    assert "mask in specks" in found_reasons[5]
    assert (found.empty, found.suspicious) == (1, 6)
    assert found.absent[0] == 2  # the empty one and the headless one
    assert found.suspects[0].path == toy.train[0].path or "shoes" in str(found_reasons[2])
    scores = [suspect.score for suspect in found.suspects]
    assert scores == sorted(scores, reverse=True)


def test_the_report_keeps_the_twenty_worst(tmp_path: Path):
    dataset = make_dataset(tmp_path / "toy", images=30)
    headless = np.where(figure() == 1, 0, figure()).astype(np.uint8)
    maps = dict.fromkeys(range(30), headless) | {17: np.zeros_like(headless)}
    found = report_on(tmp_path, dataset, maps)
    assert found.suspicious == 30 and len(found.suspects) == 20
    assert found.suspects[0].path == dataset.train[17].path
    assert any("30 of 30 images have no head" in warning for warning in found.warnings)
    assert found.as_dict()["parts"]["head"]["absent"] == 30


def test_stripes_are_marked_in_every_report(tmp_path: Path, toy: Dataset):
    found = report_on(tmp_path, toy, {}, name="stripes (no parser)")
    assert found.source == "stripes (no parser)"
    assert "no parser has seen the images" in found.warnings[0]


def test_parts_of_other_names_have_no_order(tmp_path: Path, toy: Dataset):
    upside_down = {n: np.array([0, 4, 2, 3, 1], np.uint8)[figure()] for n in range(12)}
    found = report_on(tmp_path, toy, upside_down, parts=("a", "b", "c", "d"))
    assert found.suspicious == 0


def test_a_contact_sheet_shows_a_sample_of_images_and_the_worst(tmp_path: Path, toy: Dataset):
    found = report_on(tmp_path, toy, {5: np.zeros((128, 64), np.uint8)})
    chosen = choose(found, MaskStore.open(tmp_path / "report.h5").paths, count=6)
    assert chosen[-1] == (toy.train[5].path, "next to no mask")
    assert len(chosen) == len(set(chosen)) == 6
    path = tmp_path / "sheet.png"
    save_contact_sheet(path, MaskStore.open(tmp_path / "report.h5"), found, root=toy.root)
    with Image.open(path) as sheet:
        colours = sheet.getcolors(1 << 24)
    assert colours and len(colours) > 100
    with pytest.raises(DataError, match=r"ends in \.png"):
        save_contact_sheet(
            tmp_path / "a.gif", MaskStore.open(tmp_path / "report.h5"), found, root=toy.root
        )
    (toy.root / toy.train[5].path).write_bytes(b"gone")
    with pytest.raises(DataError, match="cannot read image"):
        save_contact_sheet(path, MaskStore.open(tmp_path / "report.h5"), found, root=toy.root)


def test_preparing_twice_does_nothing_the_second_time(tmp_path: Path, toy: Dataset):
    path = tmp_path / "toy.h5"
    first = prepare(path, toy, toy.train, lip_source(toy))
    before = path.stat().st_mtime_ns
    assert prepare(path, toy, toy.train, lip_source(toy)) == first
    assert path.stat().st_mtime_ns == before


def test_other_masks_are_replaced_only_with_overwrite(tmp_path: Path, toy: Dataset):
    path = tmp_path / "toy.h5"
    prepare(path, toy, toy.train, lip_source(toy))
    other = replace(lip_source(toy), key="another")
    with pytest.raises(MaskError, match=r"holds other masks \(12 of toy, train, .*--overwrite"):
        prepare(path, toy, toy.train, other)
    assert prepare(path, toy, toy.train[:5], other, overwrite=True).images == 5
