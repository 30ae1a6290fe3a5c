"""datasets unpack: published archives end up where verify looks for them; hostile ones nowhere."""

from __future__ import annotations

import errno
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from reidkit.data import archives
from reidkit.data.archives import extract_archive, unpack_archive
from reidkit.data.manifest import find_manifest, load_manifest, open_dataset
from reidkit.data.unpack import unpack_records
from reidkit.errors import DataError, ReidkitError

SyntheticDataset = Callable[[str], Path]


def quiet(done: int, total: int) -> None:
    pass


def unpack(name: str, archive: Path, data_root: Path) -> None:
    unpack_archive(archive, load_manifest(find_manifest(name)), data_root, on_progress=quiet)


def zip_folder(archive: Path, folder: Path, *, under: str = "", only: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and (not only or name.parts[0] in only):
                zipped.write(path, f"{under}{name.as_posix()}")
    return archive


def tar_folder(archive: Path, folder: Path, *, under: str) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, under)
    return archive


@pytest.mark.parametrize(
    ("layout", "dataset", "under"),
    [
        ("market1501", "market1501", "Market-1501-v15.09.15/"),
        ("market1501", "market1501", ""),
        ("market1501", "market1501", "downloads/my market/"),
        ("cuhk03-np-labeled", "cuhk03-np-labeled", "cuhk03-np/labeled/"),
        ("mars", "mars", "MARS/"),
    ],
)
def test_zip_files_are_found_afterwards_whatever_folder_they_contain(
    layout: str, dataset: str, under: str, synthetic_dataset: SyntheticDataset, tmp_path: Path
) -> None:
    source = synthetic_dataset(layout)
    unpack(dataset, zip_folder(tmp_path / "a.zip", source, under=under), tmp_path / "data")
    found = open_dataset(dataset, tmp_path / "data")
    assert found.fingerprint == open_dataset(str(source)).fingerprint
    assert not list((tmp_path / "data").glob("*.partial"))


def test_both_releases_of_msmt17_may_be_unpacked(
    synthetic_dataset: SyntheticDataset, tmp_path: Path
) -> None:
    for layout, folder in (("msmt17", "MSMT17_V1"), ("msmt17-v2", "MSMT17_V2")):
        source = synthetic_dataset(layout)
        archive = tar_folder(tmp_path / f"{folder}.tar.gz", source, under=folder)
        unpack("msmt17", archive, tmp_path / "data")
    for variant, layout in (("v1", "msmt17"), ("v2", "msmt17-v2")):
        found = open_dataset(f"msmt17@{variant}", tmp_path / "data")
        assert found.fingerprint == open_dataset(str(synthetic_dataset(layout))).fingerprint


def test_the_parts_of_mars_are_put_together(
    synthetic_dataset: SyntheticDataset, tmp_path: Path
) -> None:
    source = synthetic_dataset("mars")
    for part in ("bbox_train", "bbox_test"):
        unpack(
            "mars", zip_folder(tmp_path / f"{part}.zip", source, only=(part,)), tmp_path / "data"
        )
    info = zip_folder(tmp_path / "i.zip", source, only=("info",), under="MARS-evaluation-master/")
    unpack("mars", info, tmp_path / "data")
    found = open_dataset("mars", tmp_path / "data")
    assert found.root == tmp_path / "data/MARS"
    assert found.fingerprint == open_dataset(str(source)).fingerprint
    with pytest.raises(DataError, match=r"is a folder, expected .*Move it to .*MARS/info"):
        unpack("mars", source / "info", tmp_path / "data")


def test_cuhk03s_release_and_its_protocol_are_put_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / "cuhk-03.mat").write_bytes(b"release")
    protocol = tmp_path / "cuhk03_new_protocol_config_labeled.mat"
    protocol.write_bytes(b"protocol")
    with zipfile.ZipFile(tmp_path / "cuhk03_release.zip", "w") as zipped:
        zipped.write(tmp_path / "cuhk-03.mat", "cuhk03_release/cuhk-03.mat")
        zipped.writestr("__MACOSX/cuhk03_release/._cuhk-03.mat", "x")
    for order in (
        (protocol, tmp_path / "cuhk03_release.zip"),
        (tmp_path / "cuhk-03.mat", protocol),
    ):
        for file in order:
            unpack("cuhk03-np-labeled", file, tmp_path / "data")
        assert sorted(p.name for p in (tmp_path / "data").rglob("*") if p.is_file()) == [
            "cuhk-03.mat",
            "cuhk03_new_protocol_config_labeled.mat",
        ]
        assert [p.name for p in (tmp_path / "data").iterdir()] == ["cuhk03_release"]
        shutil.rmtree(tmp_path / "data")


def test_an_interrupted_unpacking_is_completed_and_other_files_are_never_replaced(
    synthetic_dataset: SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = synthetic_dataset("market1501"), tmp_path / "data"
    archive = zip_folder(tmp_path / "a.zip", source)

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    manifest = load_manifest(find_manifest("market1501"))
    with pytest.raises(KeyboardInterrupt):
        unpack_archive(archive, manifest, data, on_progress=interrupt)
    assert not list(data.iterdir())
    (data / "a.zip.partial/query").mkdir(parents=True)  # as after a kill
    (data / "a.zip.partial/query/half.jpg").write_bytes(b"half")
    unpack("market1501", archive, data)
    assert not list(data.rglob("half.jpg"))

    root = data / "Market-1501-v15.09.15"
    (root / "manifest.toml").unlink()  # as after a kill between two folders
    shutil.rmtree(root / "bounding_box_test")
    unpack("market1501", archive, data)
    fingerprint = open_dataset(str(source)).fingerprint
    assert open_dataset("market1501", data).fingerprint == fingerprint

    victim = next((root / "query").iterdir())
    victim.write_bytes(b"mine")
    shutil.rmtree(root / "bounding_box_test")
    with pytest.raises(DataError, match=f"{victim.name} exists and differs .*Nothing was changed"):
        unpack("market1501", archive, data)
    assert victim.read_bytes() == b"mine" and not (root / "bounding_box_test").exists()


def test_files_that_are_there_already_are_not_extracted_again(
    synthetic_dataset: SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zip_folder(tmp_path / "a.zip", synthetic_dataset("market1501"))
    manifest, data = load_manifest(find_manifest("market1501")), tmp_path / "data"
    first = unpack_archive(archive, manifest, data, on_progress=quiet)
    assert first.written > 0 and first.present == 0
    next((data / "Market-1501-v15.09.15/query").iterdir()).unlink()
    extracted: list[object] = []
    copy = shutil.copyfileobj
    monkeypatch.setattr(
        shutil, "copyfileobj", lambda *arguments: extracted.append(copy(*arguments))
    )
    again = unpack_archive(archive, manifest, data, on_progress=quiet)
    assert (again.written, again.present) == (1, first.written - 1)
    assert len(extracted) == 1


def test_an_archive_of_another_data_set_is_named(
    synthetic_dataset: SyntheticDataset, tmp_path: Path
) -> None:
    archive = zip_folder(
        tmp_path / "a.zip", synthetic_dataset("market1501"), only=("bounding_box_train",)
    )
    with pytest.raises(DataError, match=r"contains bounding_box_train; expected .*of mars"):
        unpack("mars", archive, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())
    with pytest.raises(DataError, match="no such archive"):
        unpack("mars", tmp_path / "absent.zip", tmp_path / "data")


def zip_with(path: Path, members: list[tuple[str, bytes]], *, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, mode << 16
            zipped.writestr(info, data)
    return path


def tar_with(path: Path, *infos: tuple[str, bytes], link: str = "") -> Path:
    with tarfile.open(path, "w") as tar:
        for name, kind in infos:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info, io.BytesIO(b""))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: zip_with(p, [("..\\evil", b"")]), "points outside"),
        (lambda p: zip_with(p, [("C:/evil", b"")]), "points outside"),
        (lambda p: zip_with(p, [("a/../b", b"")]), "points outside"),
        (lambda p: zip_with(p, [("l", b"/etc")], mode=stat.S_IFLNK | 0o777), "is a link"),
        (lambda p: zip_with(p, [("l", b"")], mode=stat.S_IFCHR), "is a link or a device"),
        (lambda p: tar_with(p, ("l", tarfile.LNKTYPE), link="/etc/passwd"), "is a link"),
        (lambda p: tar_with(p, ("f", tarfile.FIFOTYPE)), "is a link or a device"),
        (lambda p: tar_with(p, ("f", tarfile.REGTYPE), ("f", tarfile.REGTYPE)), "occurs twice"),
        (lambda p: tar_with(p, ("f", tarfile.REGTYPE), ("f/g", tarfile.REGTYPE)), "is in a file"),
    ],
)
def test_hostile_members_are_refused_before_anything_is_written(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        extract_archive(make(tmp_path / "a"), tmp_path / "target", on_progress=quiet)
    assert "Nothing was unpacked" in str(caught.value)
    assert not list((tmp_path / "target").iterdir())


def test_members_and_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = zip_with(tmp_path / "many.zip", [(str(n), b"") for n in range(5)])
    monkeypatch.setattr(archives, "MAX_ENTRIES", 4)
    with pytest.raises(DataError, match="5 files of 0 bytes or more"):
        extract_archive(many, tmp_path / "t", on_progress=quiet)
    bomb = zip_with(tmp_path / "bomb.zip", [("zeros", bytes(1 << 20))])
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 19)
    with pytest.raises(DataError, match=r"1 files of 1,048,576 bytes .* do not trust"):
        extract_archive(bomb, tmp_path / "t", on_progress=quiet)
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 21)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(DataError, match=r"needs 1,048,576 bytes, and .* has 0 free"):
        extract_archive(bomb, tmp_path / "t", on_progress=quiet)
    assert not list((tmp_path / "t").iterdir())


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    archive = zip_with(tmp_path / "a.zip", [("train.bin", bytes(range(256)) * 400)])
    data = bytearray(archive.read_bytes())
    data[60:90] = bytes(30)
    archive.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        unpack("cifar100", archive, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_a_full_disk_is_no_fault_of_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = np.zeros((2, 3074), np.uint8)
    for split in ("train", "test"):
        (tmp_path / f"{split}.bin").write_bytes(records.tobytes())
    (tmp_path / "fine_label_names.txt").write_text("apple")

    def save(image: Image.Image, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Image.Image, "save", save)
        with pytest.raises(ReidkitError, match=r"apple/00000\.png: No space left on device\. Free"):
            unpack_records(tmp_path, on_progress=lambda done, total: None)
    assert not (tmp_path / "train").exists() and not (tmp_path / "train.partial").exists()
    unpack_records(tmp_path, on_progress=lambda done, total: None)
    assert len(list(tmp_path.glob("*/apple/*.png"))) == 4
