"""Masks from a parser that reidkit runs: what is kept, compared and shared among processes."""

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_masks import GreyParser

from reidkit.errors import DataError
from reidkit.masks.agreement import agreement, confusion, intersection_over_union
from reidkit.masks.label_folder import open_label_folder
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.parser_source import ParserSource
from reidkit.masks.prepare import prepare
from reidkit.masks.processes import ONE_PROCESS
from reidkit.masks.store import MaskStore
from reidkit.masks.writer import write_store
from reidkit.types import Dataset

LIP = load_label_set("lip")


class Counting(GreyParser):
    """Counts the images that it receives; `slip` is the number of rows by which its label
    maps are shifted down."""

    def __init__(self, *, key: str = "grey", slip: int = 0) -> None:
        self.key, self.slip, self.images = key, slip, 0

    def label_maps(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.images += len(images)
        assert len(images) <= self.batch
        return [np.roll(m, self.slip, axis=0) for m in super().label_maps(images)]


def make_source(dataset: Dataset, parser: GreyParser, keep: Path | None = None) -> ParserSource:
    images = [sample.path for sample in dataset.train]
    folder = None
    if keep:
        folder = open_label_folder(keep, labels=LIP, parser="grey", key=parser.key, images=images)
    return ParserSource(
        name="grey",
        parser=parser,
        root=dataset.root,
        groups=default_grouping(LIP),
        keep=folder,
    )


def label_maps(dataset: Dataset) -> dict[str, np.ndarray]:
    images = {
        s.path: np.asarray(Image.open(dataset.root / s.path).convert("RGB")) for s in dataset.train
    }
    return dict(zip(images, GreyParser().label_maps(list(images.values())), strict=True))


def test_part_maps_come_in_the_order_of_the_images(toy: Dataset):
    expected = label_maps(toy)
    names = list(expected)[:7][::-1]
    source = make_source(toy, GreyParser())
    for name, part_map in zip(names, source.part_maps(names), strict=True):
        np.testing.assert_array_equal(part_map, source.groups.part_map(expected[name]))
    assert list(source.part_maps([])) == []


def test_kept_label_maps_are_palette_images_under_the_images_paths(toy: Dataset, tmp_path: Path):
    source = make_source(toy, GreyParser(), tmp_path / "kept")
    write_store(tmp_path / "m.h5", toy, toy.train, source)
    for name, expected in label_maps(toy).items():
        with Image.open(tmp_path / "kept" / f"{name[:-4]}.png") as kept:
            assert kept.mode == "P" and kept.getpalette()[39:42] == [0, 0, 255]  # 13: face
            np.testing.assert_array_equal(np.asarray(kept), expected)
    description = json.loads((tmp_path / "kept" / "labels.json").read_text())
    assert description["parser"] == "grey" and description["labels"][13] == "face"


def test_label_maps_without_a_palette_are_grey(toy: Dataset, tmp_path: Path):
    labels = replace(LIP, palette=())
    folder = open_label_folder(tmp_path / "kept", labels=labels, parser="p", key="k", images=[])
    folder.save("a/b.jpg", np.full((3, 2), 7, np.uint8))
    with Image.open(tmp_path / "kept" / "a" / "b.png") as kept:
        assert kept.mode == "L" and np.asarray(kept).tolist() == [[7, 7]] * 3


def test_a_run_begun_without_keeping_labels_lacks_none_in_the_end(toy: Dataset, tmp_path: Path):
    prepare(tmp_path / "m.h5", toy, toy.train, make_source(toy, GreyParser()))
    parser = Counting()
    source = make_source(toy, parser, tmp_path / "kept")
    prepare(tmp_path / "m.h5", toy, toy.train, source)
    assert parser.images == 0  # the masks are there already
    names = [sample.path for sample in toy.train]
    source.keep_missing(names, processes=ONE_PROCESS)
    assert parser.images == 12
    (tmp_path / "kept" / f"{names[5][:-4]}.png").unlink()
    source.keep_missing(names, processes=ONE_PROCESS)
    assert parser.images == 13 and source.keep and not source.keep.missing(names)


def test_a_folder_of_other_label_maps_is_refused(toy: Dataset, tmp_path: Path):
    make_source(toy, GreyParser(), tmp_path / "kept")
    make_source(toy, GreyParser(), tmp_path / "kept")  # of the same parser: resumed
    with pytest.raises(DataError, match="another parser, procedure or precision"):
        make_source(toy, Counting(key="other"), tmp_path / "kept")
    before = (toy.root / toy.train[0].path).read_bytes()
    with pytest.raises(DataError, match=r"not an empty folder and has no labels\.json"):
        make_source(toy, GreyParser(), toy.root)
    assert (toy.root / toy.train[0].path).read_bytes() == before


def test_two_images_that_would_share_a_label_map_are_refused(tmp_path: Path):
    images = ["a/x.jpg", "b/x.jpg", "a/x.png"]
    with pytest.raises(DataError, match=r"a/x\.jpg and a/x\.png would have the same label map"):
        open_label_folder(tmp_path / "kept", labels=LIP, parser="p", key="k", images=images)
    assert not (tmp_path / "kept").exists()


def test_agreement_of_a_hand_counted_case():
    # 8 pixels: two hats called hair (both head), one face called upper-clothes
    reference = np.array([[1, 1, 13, 13], [0, 0, 18, 18]], np.uint8)
    found = np.array([[2, 2, 13, 5], [0, 0, 18, 18]], np.uint8)
    counts = confusion(reference, found, size=20)
    assert counts[1, 2] == 2 and counts[13, 5] == 1 and counts.sum() == 8
    assert intersection_over_union(counts)[[0, 1, 2, 13]].tolist() == [1, 0, 0, 0.5]
    assert np.isnan(intersection_over_union(counts)[7])
    result = agreement(counts, default_grouping(LIP), images=1)
    assert (result.labels, result.parts) == (5 / 8, 7 / 8)
    assert result.part_iou == {"head": 0.75, "upper body": 0.0, "lower body": None, "shoes": 1.0}
    assert "62.50 % of pixels have the same label, 87.50 % the same part" in result.describe()
    assert "lower body -" in result.describe()


def test_a_fast_procedure_is_compared_once_and_the_file_says_so(toy: Dataset, tmp_path: Path):
    original, fast = Counting(), Counting(key="fast", slip=2)
    source = make_source(toy, fast)

    def compare(images: Sequence[str]):
        return source.compare(
            original, images, processes=ONE_PROCESS, progress=lambda done, total: None
        )

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 6:
            raise Killed

    with pytest.raises(Killed):
        write_store(tmp_path / "m.h5", toy, toy.train, source, compare=compare, progress=kill)
    assert original.images == 12
    report = prepare(tmp_path / "m.h5", toy, toy.train, source, compare=compare)
    assert original.images == 12  # not measured again
    found = MaskStore.open(tmp_path / "m.h5").header.agreement
    assert found and found == report.agreement and found.images == 12

    same = total = 0
    for label_map in label_maps(toy).values():
        same += (np.roll(label_map, 2, axis=0) == label_map).sum()
        total += label_map.size
    assert found.labels == same / total and 0.9 < found.labels < 1
    assert json.loads(json.dumps(report.as_dict()))["agreement"]["labels"] == found.labels
    plain = prepare(tmp_path / "n.h5", toy, toy.train, make_source(toy, original))
    assert plain.agreement is None and plain.as_dict()["agreement"] is None


class Threads:
    """Threads in place of torchrun's processes."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, board: dict) -> None:
        self.rank, self.size = rank, size
        self.is_main = rank == 0
        self.barrier, self.board, self.step = barrier, board, 0

    def shard(self, items: Sequence) -> Sequence:
        start, stop = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return items[start:stop]

    def gather(self, value: object) -> list:
        self.step += 1
        self.board[self.step, self.rank] = value
        self.barrier.wait(60)
        return [self.board[self.step, rank] for rank in range(self.size)]

    def broadcast(self, value: object) -> object:
        return self.gather(value)[0]


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_images_and_write_the_same_file_as_one(
    toy: Dataset, tmp_path: Path, size: int
):
    barrier, board = threading.Barrier(size), {}
    parsers = [Counting() for _ in range(size)]
    originals = [Counting(slip=1) for _ in range(size)]
    steps: list[tuple[int, int]] = []

    def work(rank: int) -> None:
        processes = Threads(rank, size, barrier, board)
        source = make_source(toy, parsers[rank])
        write_store(
            tmp_path / "many.h5",
            toy,
            toy.train,
            source,
            compare=lambda images: source.compare(
                originals[rank], images, processes=processes, progress=lambda done, total: None
            ),
            processes=processes,
            progress=lambda done, total: steps.append((done, total)) if rank == 0 else None,
        )
        assert (tmp_path / "many.h5").exists()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # each compares and then parses its share of 12 images
    assert [parser.images for parser in parsers] == [2 * 12 // size] * size
    assert [parser.images for parser in originals] == [12 // size] * size
    assert steps[0] == (0, 12) and steps[-1] == (12, 12)
    source = make_source(toy, GreyParser())
    write_store(
        tmp_path / "one.h5",
        toy,
        toy.train,
        source,
        compare=lambda images: source.compare(
            Counting(slip=1), images, processes=ONE_PROCESS, progress=lambda done, total: None
        ),
    )
    assert (tmp_path / "many.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert sorted(entry.name for entry in tmp_path.glob("*.h5*")) == ["many.h5", "one.h5"]
