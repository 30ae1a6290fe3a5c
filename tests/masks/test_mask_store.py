import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_masks import lip_source, make_dataset

from reidkit.errors import DataError, MaskError
from reidkit.masks import grid, store
from reidkit.masks.store import MaskStore, frames, require_store, write_store
from reidkit.types import PARTS, Dataset, Tracklet


@pytest.fixture
def written(toy: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "masks" / "toy.h5"
    write_store(path, toy, toy.train, lip_source(toy))
    return path


def expected(dataset: Dataset, name: str) -> np.ndarray:
    part_map = next(lip_source(dataset).part_maps([name]))
    values = grid.sample_points(part_map, num_labels=5)
    return values[grid.spread_index(grid.GRIDS, grid.MAP_SIZE)].reshape(grid.MAP_SIZE)


def read_by_h5py(path: Path) -> dict[str, np.ndarray]:
    """Independent of our reader: the file as its documentation describes it."""
    with h5py.File(path) as file:
        names = bytes(file["paths"][:]).decode().split("\n")[:-1]
        digits = file["masks"][:][:, :, None] // [1, 5, 25] % 5
        return dict(zip(names, digits.reshape(len(names), -1)[:, :660], strict=True))


def test_every_image_gets_its_mask_back_in_the_order_asked_for(toy: Dataset, written: Path):
    masks = MaskStore.open(written, dataset=toy, parts=PARTS)
    names = [sample.path for sample in toy.train][::-2]
    maps = masks.read(names)
    assert maps.shape == (len(names), *masks.size) and maps.dtype == np.uint8
    for name, found in zip(names, maps, strict=True):
        np.testing.assert_array_equal(found, expected(toy, name))
    assert len(masks) == 12 and toy.train[0].path in masks and "other.jpg" not in masks
    assert masks.paths == tuple(sorted(sample.path for sample in toy.train))


def test_the_file_reads_with_plain_hdf5_as_documented(toy: Dataset, written: Path):
    for name, values in read_by_h5py(written).items():
        part_map = next(lip_source(toy).part_maps([name]))
        np.testing.assert_array_equal(values, grid.sample_points(part_map, num_labels=5))
    with h5py.File(written) as file:
        assert file.attrs["source"] == b"index maps (lip)"
        assert file.attrs["fingerprint"].decode() == toy.fingerprint
        assert b'"shoes": ["socks", "left-shoe", "right-shoe"]' in file.attrs["grouping"]


def test_nothing_but_the_finished_file_is_left(written: Path):
    assert [entry.name for entry in written.parent.iterdir()] == ["toy.h5"]


def test_a_failed_source_leaves_no_final_file_and_the_next_run_resumes(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "BATCH", 4)
    path = tmp_path / "toy.h5"
    source = lip_source(toy)
    names = [sample.path for sample in toy.train]
    asked: list[str] = []

    def failing(name: str) -> np.ndarray:
        asked.append(name)
        if name == names[9]:
            raise DataError("broken")
        return source.read(name)

    with pytest.raises(DataError, match="broken"):
        write_store(path, toy, toy.train, replace(source, read=failing))
    assert not path.exists() and path.with_name("toy.h5.partial").exists()
    with pytest.raises(MaskError, match=r"unfinished.*\n.*it resumes"):
        MaskStore.open(path, dataset=toy)

    asked.clear()
    names[9] = ""
    steps: list[tuple[int, int]] = []
    write_store(
        path,
        toy,
        toy.train,
        replace(source, read=failing),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert sorted(asked) == sorted(sample.path for sample in toy.train[8:])
    assert steps == [(8, 12), (9, 12), (10, 12), (11, 12), (12, 12)]
    for sample in toy.train:
        found = MaskStore.open(path).read([sample.path])[0]
        np.testing.assert_array_equal(found, expected(toy, sample.path))


@pytest.mark.parametrize("change", ["key", "fingerprint", "images", "damage"])
def test_a_partial_file_of_another_run_is_begun_anew(
    toy: Dataset,
    tmp_path: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(store, "BATCH", 4)
    path = tmp_path / "toy.h5"
    source = lip_source(toy)

    def failing(name: str) -> np.ndarray:
        if name == toy.train[9].path:
            raise DataError("broken")
        return np.full((128, 64), 1, np.uint8)  # heads everywhere: wrong, must not survive

    with pytest.raises(DataError):
        write_store(path, toy, toy.train, replace(source, read=failing))
    dataset, samples = toy, toy.train
    if change == "key":
        source = replace(source, key="another")
    elif change == "fingerprint":
        dataset = replace(toy, fingerprint="f" * 64)
    elif change == "images":
        samples = toy.train[:-1]
    else:
        partial = path.with_name("toy.h5.partial")
        partial.write_bytes(partial.read_bytes()[:700])
    write_store(path, dataset, samples, source)
    assert "beginning anew" in caplog.text
    masks = MaskStore.open(path, dataset=dataset)
    for sample in samples:
        np.testing.assert_array_equal(masks.read([sample.path])[0], expected(toy, sample.path))


def test_frames_of_tracklets_are_stored_one_by_one(toy: Dataset, tmp_path: Path):
    tracklets = (Tracklet(toy.train[:4]), Tracklet(toy.train[4:]))
    assert frames(tracklets) == list(toy.train) == frames(toy.train)


def test_an_empty_split_is_refused(toy: Dataset, tmp_path: Path):
    with pytest.raises(DataError, match="no images in split query"):
        write_store(tmp_path / "toy.h5", toy, (), lip_source(toy), split="query")


def test_a_path_that_cannot_be_a_key_is_refused(toy: Dataset, tmp_path: Path):
    broken = replace(toy.train[0], path="train/a\nb.jpg")
    with pytest.raises(MaskError, match="cannot be a key"):
        write_store(tmp_path / "toy.h5", toy, [broken], lip_source(toy))


def test_a_missing_store_says_what_to_type(toy: Dataset):
    path = Path("masks/market1501.h5")
    with pytest.raises(MaskError) as caught:
        require_store(path, arch="iaunet", dataset=replace(toy, name="market1501"))
    assert str(caught.value) == (
        "iaunet needs part masks and masks/market1501.h5 is missing.\n"
        "       Run: reidkit prepare-masks --dataset market1501 --labels DIR"
    )


def test_a_store_of_another_data_set_or_other_parts_is_refused(toy: Dataset, written: Path):
    require_store(written, arch="iaunet", dataset=toy)
    assert MaskStore.open(written, dataset=toy, parts=PARTS).parts == PARTS
    with pytest.raises(MaskError, match=r"masks of toy \(fingerprint 000000000000\), expected"):
        MaskStore.open(written, dataset=replace(toy, fingerprint="f" * 64))
    with pytest.raises(MaskError, match=r"has the parts head, upper body.*; expected head, legs"):
        MaskStore.open(written, parts=("head", "legs"))


def test_an_image_without_a_mask_is_named(written: Path):
    with pytest.raises(MaskError, match=r"no mask of query/x\.jpg; it holds the split train"):
        MaskStore.open(written).read(["query/x.jpg"])


def test_a_pickled_store_opens_for_itself(toy: Dataset, written: Path):
    masks = MaskStore.open(written)
    names = [sample.path for sample in toy.train]
    packed = pickle.dumps(masks)
    assert len(packed) < 2000  # paths and masks stay on disk
    np.testing.assert_array_equal(pickle.loads(packed).read(names), masks.read(names))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_reads_the_same(toy: Dataset, written: Path):
    masks = MaskStore.open(written)
    names = [sample.path for sample in toy.train]
    parent = masks.read(names)
    ours, theirs = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:
        theirs.send_bytes(masks.read(names).tobytes())
        os._exit(0)
    assert ours.recv_bytes() == parent.tobytes()
    os.waitpid(child, 0)


def test_a_store_replaced_between_pickling_and_reading_is_noticed(toy: Dataset, written: Path):
    packed = pickle.dumps(MaskStore.open(written))
    other = replace(toy, fingerprint="f" * 64)
    write_store(written, other, toy.train, lip_source(toy))
    with pytest.raises(MaskError, match="was replaced while it was in use"):
        pickle.loads(packed)


def test_a_place_that_cannot_be_written_is_named(toy: Dataset, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(MaskError, match=r"cannot write .*file/toy\.h5\.partial: .*-o FILE"):
        write_store(tmp_path / "file" / "toy.h5", toy, toy.train, lip_source(toy))


def test_two_writers_of_one_file_exclude_each_other(toy: Dataset, tmp_path: Path):
    path = tmp_path / "toy.h5"
    source = lip_source(toy)

    def second_writer(name: str) -> np.ndarray:
        write_store(path, toy, toy.train, source)
        return source.read(name)

    with pytest.raises(MaskError, match="being written by another process"):
        write_store(path, toy, toy.train, replace(source, read=second_writer))


def test_masks_take_fewer_than_350_bytes_an_image(tmp_path: Path):
    dataset = make_dataset(tmp_path / "toy", images=300)
    path = tmp_path / "toy.h5"
    write_store(path, dataset, dataset.train, lip_source(dataset))
    assert path.stat().st_size / 300 < 350
