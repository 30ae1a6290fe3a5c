import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from toy_masks import lip_source, make_dataset, save_labels

from reidkit.errors import DataError, MaskError, ReidkitError
from reidkit.masks import writer
from reidkit.masks.store import MaskStore, require_store
from reidkit.masks.writer import STORED_SIZE, stored_map, write_store
from reidkit.types import PARTS, Dataset


@pytest.fixture
def written(toy: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "masks" / "toy.h5"
    write_store(path, toy, toy.train, lip_source(toy))
    return path


def expected(dataset: Dataset, name: str) -> np.ndarray:
    part_map = next(lip_source(dataset).part_maps([name]))
    return stored_map(part_map, num_parts=4)


def test_masks_come_in_the_order_of_the_requested_paths(toy: Dataset, written: Path):
    masks = MaskStore.open(written, dataset=toy, parts=PARTS)
    names = [sample.path for sample in toy.train][::-2]
    maps = masks.read(names)
    assert masks.size == STORED_SIZE == (400, 200)
    assert maps.shape == (len(names), *masks.size) and maps.dtype == np.uint8
    assert masks.sizes(names).tolist() == [[128, 64]] * len(names)
    for name, found in zip(names, maps, strict=True):
        np.testing.assert_array_equal(found, expected(toy, name))
    assert len(masks) == 12 and toy.train[0].path in masks and "other.jpg" not in masks
    assert masks.paths == tuple(sorted(sample.path for sample in toy.train))


def test_the_file_reads_with_plain_hdf5_as_documented(toy: Dataset, written: Path):
    with h5py.File(written) as file:
        assert file["masks"].shape == (12, 400, 200) and file["masks"].dtype == np.uint8
        assert file["sizes"][:].tolist() == [[128, 64]] * 12
        for name, mask in zip(file["paths"].asstr()[:], file["masks"][:], strict=True):
            part_map = next(lip_source(toy).part_maps([name]))
            cells = (np.arange(128) + 0.5) * 3.125  # 400 / 128
            rows, columns = cells.astype(int), cells[:64].astype(int)
            np.testing.assert_array_equal(mask[rows][:, columns], part_map)
        assert file.attrs["source"] == b"index maps (lip)"
        assert file.attrs["fingerprint"].decode() == toy.fingerprint
        assert b'"shoes": ["socks", "left-shoe", "right-shoe"]' in file.attrs["grouping"]


def test_the_fingerprint_is_of_the_maps(toy: Dataset, written: Path, tmp_path: Path):
    again, other = tmp_path / "again.h5", tmp_path / "other.h5"
    write_store(again, toy, toy.train, lip_source(toy))
    fingerprint = MaskStore.open(written).fingerprint
    assert MaskStore.open(again).fingerprint == fingerprint
    labels = toy.root / "labels" / toy.train[3].path.replace(".jpg", ".png")
    save_labels(np.roll(np.asarray(Image.open(labels)), 5, axis=0), labels)
    write_store(other, toy, toy.train, lip_source(toy))
    assert MaskStore.open(other).fingerprint != fingerprint


def test_nothing_but_the_finished_file_is_left(written: Path):
    assert [entry.name for entry in written.parent.iterdir()] == ["toy.h5"]


def test_a_failed_source_leaves_no_final_file_and_the_next_run_resumes(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer, "BATCH", 4)
    path = tmp_path / "toy.h5"
    source = lip_source(toy)
    names = [sample.path for sample in toy.train]
    requested: list[str] = []

    def failing(name: str) -> np.ndarray:
        requested.append(name)
        if name == names[9]:
            raise DataError("broken")
        return source.read(name)

    with pytest.raises(DataError, match="broken"):
        write_store(path, toy, toy.train, replace(source, read=failing))
    assert not path.exists() and path.with_name("toy.h5.journal").exists()
    with pytest.raises(MaskError, match=r"unfinished; the same command resumes it\.\n"):
        MaskStore.open(path, dataset=toy)

    requested.clear()
    names[9] = ""
    steps: list[tuple[int, int]] = []
    write_store(
        path,
        toy,
        toy.train,
        replace(source, read=failing),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert sorted(requested) == sorted(sample.path for sample in toy.train[9:])
    assert steps == [(9, 12), (10, 12), (11, 12), (12, 12)]
    for sample in toy.train:
        found = MaskStore.open(path).read([sample.path])[0]
        np.testing.assert_array_equal(found, expected(toy, sample.path))


@pytest.mark.parametrize("change", ["key", "fingerprint", "images", "damage"])
def test_a_journal_of_another_run_is_restarted(
    toy: Dataset,
    tmp_path: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(writer, "BATCH", 4)
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
        journal = path.with_name("toy.h5.journal")
        journal.write_bytes(b"{" + journal.read_bytes())
    write_store(path, dataset, samples, source)
    assert "restarting" in caplog.text
    masks = MaskStore.open(path, dataset=dataset)
    for sample in samples:
        np.testing.assert_array_equal(masks.read([sample.path])[0], expected(toy, sample.path))


@pytest.mark.parametrize("damage", ["cut", "flipped bit"])
def test_damaged_records_of_a_journal_are_made_again(
    toy: Dataset, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer, "BATCH", 4)
    path = tmp_path / "toy.h5"
    source = lip_source(toy)
    requested: list[str] = []

    def failing(name: str) -> np.ndarray:
        requested.append(name)
        if len(requested) == 9:
            raise DataError("broken")
        return source.read(name)

    with pytest.raises(DataError):
        write_store(path, toy, toy.train, replace(source, read=failing))
    journal = path.with_name("toy.h5.journal")
    content = bytearray(journal.read_bytes())
    if damage == "cut":
        del content[-100:]
    else:
        content[-100] ^= 1
    journal.write_bytes(content)
    requested.clear()
    write_store(path, toy, toy.train, replace(source, read=failing))
    assert sorted(requested) == [sample.path for sample in toy.train[7:]]
    for sample in toy.train:
        found = MaskStore.open(path).read([sample.path])[0]
        np.testing.assert_array_equal(found, expected(toy, sample.path))


def test_images_of_several_sizes_share_a_file(toy: Dataset, tmp_path: Path):
    names = [sample.path for sample in toy.train]
    sizes = [(60, 30), (500, 250), (256, 128)]
    for name, (height, width) in zip(names, sizes, strict=False):
        Image.new("RGB", (width, height)).save(toy.root / name)
        labels = np.zeros((height, width), np.uint8)
        labels[: height // 2] = 13
        save_labels(labels, toy.root / "labels" / f"{name[:-4]}.png")
    write_store(tmp_path / "toy.h5", toy, toy.train, lip_source(toy))
    masks = MaskStore.open(tmp_path / "toy.h5")
    assert masks.sizes(names[:4]).tolist() == [[60, 30], [500, 250], [256, 128], [128, 64]]
    for mask in masks.read(names[:3]):
        assert (mask[:200] == 1).all() and (mask[200:] == 0).all()


def test_an_empty_split_is_refused(toy: Dataset, tmp_path: Path):
    with pytest.raises(DataError, match="no images in split query"):
        write_store(tmp_path / "toy.h5", toy, (), lip_source(toy), split="query")


def test_a_path_that_cannot_be_a_key_is_refused(toy: Dataset, tmp_path: Path):
    broken = replace(toy.train[0], path="train/a\0b.jpg")
    with pytest.raises(MaskError, match="expected 1 to 1024 bytes without NUL"):
        write_store(tmp_path / "toy.h5", toy, [broken], lip_source(toy))


def test_a_missing_store_says_what_to_type(toy: Dataset):
    path = Path("masks/market1501.h5")
    with pytest.raises(MaskError) as caught:
        require_store(
            path, arch="iaunet", dataset=replace(toy, name="market1501", root=path.parent)
        )
    assert str(caught.value) == (
        "iaunet needs part masks and masks/market1501.h5 is missing.\n"
        "       Run: reidkit prepare-masks --dataset market1501 --labels DIR\n"
        "       Without a parser's label maps: the same with --source stripes.\n"
        "       Without masks: reidkit train ... --set arch.part_supervision=false"
    )
    own = replace(toy, labels=toy.root / "labels")
    with pytest.raises(MaskError, match=r"Run: reidkit prepare-masks --dataset toy\n"):
        require_store(Path("masks/toy.h5"), arch="iaunet", dataset=own)


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
    with pytest.raises(MaskError, match=r"cannot write .*file/toy\.h5\.journal: .*-o FILE"):
        write_store(tmp_path / "file" / "toy.h5", toy, toy.train, lip_source(toy))


def test_two_writers_of_one_file_exclude_each_other(toy: Dataset, tmp_path: Path):
    path = tmp_path / "toy.h5"
    source = lip_source(toy)

    def second_writer(name: str) -> np.ndarray:
        write_store(path, toy, toy.train, source)
        return source.read(name)

    with pytest.raises(ReidkitError, match=r"another process is writing to .*toy\.h5\.journal"):
        write_store(path, toy, toy.train, replace(source, read=second_writer))


def test_masks_take_less_than_1_kib_an_image(tmp_path: Path):
    dataset = make_dataset(tmp_path / "toy", images=300)
    path = tmp_path / "toy.h5"
    write_store(path, dataset, dataset.train, lip_source(dataset))
    assert path.stat().st_size / 300 < 1024


def test_a_journal_that_is_removed_meanwhile_is_named(toy: Dataset, tmp_path: Path):
    path = tmp_path / "toy.h5"

    def progress(done: int, total: int) -> None:
        if done == total:
            path.with_name("toy.h5.journal").unlink()

    with pytest.raises(ReidkitError, match=r"toy\.h5\.journal was removed by another program"):
        write_store(path, toy, toy.train, lip_source(toy), progress=progress)
    write_store(path, toy, toy.train, lip_source(toy))
    assert len(MaskStore.open(path)) == 12
