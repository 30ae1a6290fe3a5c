"""What fuzzing brought down, one instance of each kind: now refused, in words, by name."""

from __future__ import annotations

import io
import json
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.cli import main
from reidkit.cli.runs import read_results
from reidkit.config import read_toml, set_layer
from reidkit.data.archives import extract_archive
from reidkit.data.manifest import load_manifest, open_dataset
from reidkit.data.matlab import read_mat
from reidkit.data.unpack import unpack_cifar100, unpack_cuhk03
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.features import read_features
from reidkit.image import image_size, read_image
from reidkit.index.filling import read_metadata
from reidkit.index.opening import open_index
from reidkit.masks.label_folder import open_label_folder
from reidkit.masks.labels import load_label_set
from reidkit.runtime.distributed import ProcessGroup
from reidkit.runtime.onnx_contract import read_contract
from reidkit.training.checkpoints import load_resume_point
from reidkit.training.logging import read_history

from .array_targets import _index_seeds
from .dataset_targets import MANIFEST, TABLE_MANIFEST
from .model_targets import (
    _onnx_document,
    _result,
    _resume_document,
    _Session,
    _training_state,
)
from .target import write_files


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "a = \udc80"])
def test_toml_that_is_nested_too_deeply_or_has_huge_numbers(tmp_path: Path, text: str):
    (tmp_path / "x.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"x\.toml is not TOML"):
        read_toml(tmp_path / "x.toml")
    assert set_layer([text.replace(" ", "")]).table["a"] == text[4:]  # text, as all that is no TOML


def manifest(folder: Path, old: str, new: str) -> Path:
    assert old in MANIFEST
    (folder / "x.toml").write_text(MANIFEST.replace(old, new))
    return folder / "x.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('folder = "train"', f'folder = "{"x" * 300}"', "cannot be the path of a file"),
        ('folder = "train"', 'folder = "a\\u0000b"', "cannot be the path of a file"),
        ('folder = "train"', 'folder = "/"', "'/' is not below the data set's folder"),
        ('folder = "train"', 'folder = "a/../.."', "is not below the data set's folder"),
        ('unmatched = "unknown"', "unmatched = -1", "unmatched = -1, expected a number from 0"),
        ("(?P<pid>-?", "(?P<person>-?", "has no group pid"),
        (r"\d+)_c", r"(\d+)_c", "is not a regular expression"),
        (r"-?\d+", r"(-?\d+)+", "may take too long to match"),
    ],
)
def test_manifests_with_impossible_paths_patterns_and_counts(
    tmp_path: Path, old: str, new: str, message: str
):
    with pytest.raises((ConfigError, DataError), match=message):
        load_manifest(manifest(tmp_path, old, new))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train,a.jpg,1,1,t,²", "whole number for frame"),
        ("train,a.jpg,1,1,t," + "9" * 5000, "whole number for frame"),
        ("train," + "x" * 300 + ",1,1,,", "are missing"),
        ("train,\udcff.jpg,1,1,,", "is not a CSV file in UTF-8"),
    ],
)
def test_tables_with_impossible_numbers_and_names(tmp_path: Path, line: str, message: str):
    (tmp_path / "manifest.toml").write_text(TABLE_MANIFEST)
    (tmp_path / "a.jpg").touch()
    text = f"split,path,pid,camid,tracklet,frame\n{line}\n"
    (tmp_path / "data.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        open_dataset(str(tmp_path))


def test_ids_beyond_int64_are_numbered(tmp_path: Path):
    (tmp_path / "manifest.toml").write_text(TABLE_MANIFEST.replace("[splits.query]\n", ""))
    lines = [f"{split},{n}.jpg,{10**30 + n},1" for n, split in enumerate(("train", "gallery"))]
    for n in range(2):
        (tmp_path / f"{n}.jpg").touch()
    (tmp_path / "data.csv").write_text("\n".join(["split,path,pid,camid", *lines]))
    dataset = open_dataset(str(tmp_path))
    assert [item.pid for item in (*dataset.train, *dataset.gallery)] == [0, 1]


def mat_element(kind: int, data: bytes, *, size: int | None = None) -> bytes:
    length = len(data) if size is None else size
    return struct.pack("<II", kind, length) + data.ljust(-(-len(data) // 8) * 8, b"\0")


@pytest.mark.parametrize(
    ("dimensions", "size", "message"),
    [
        ((2**30, 2), None, "3 values for a matrix of the size"),
        ((-1, 3), None, "a matrix of the size"),
        ((1, 3), 2**31, "ends beyond the file"),
        ((1, 4), None, "3 values for a matrix"),
    ],
)
def test_matlab_files_whose_sizes_are_wrong(
    tmp_path: Path, dimensions: tuple[int, int], size: int | None, message: str
):
    """scipy's reader ends the process on some of these."""
    content = mat_element(6, struct.pack("<II", 6, 0)) + mat_element(
        5, struct.pack("<ii", *dimensions)
    )
    content += mat_element(1, b"x") + mat_element(9, struct.pack("<3d", 1, 2, 3), size=size)
    header = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "m.mat").write_bytes(header + mat_element(14, content))
    with pytest.raises(DataError, match=rf"m\.mat cannot be read as a MATLAB file: .*{message}"):
        read_mat(tmp_path / "m.mat")


def test_a_matlab_file_with_an_empty_variable(tmp_path: Path):
    header = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "m.mat").write_bytes(header + mat_element(15, zlib.compress(b"")))
    with pytest.raises(DataError, match="a matrix ends early"):
        read_mat(tmp_path / "m.mat")


def test_a_release_of_cuhk03_that_declares_an_image_of_gigabytes(tmp_path: Path):
    with h5py.File(tmp_path / "cuhk-03.mat", "w") as file:
        size = {"shape": (3, 30_000, 30_000), "chunks": (1, 100, 100), "compression": "gzip"}
        reference = file.create_dataset("image", dtype="u1", **size).ref
        pair = file.create_dataset("pair", (1, 1), h5py.ref_dtype)
        pair[0, 0] = reference
        for name in ("labeled", "detected", "testsets"):
            file.create_dataset(name, (1, 1), h5py.ref_dtype)[0, 0] = pair.ref
    with pytest.raises(DataError, match=r"/image has 2,700,000,000 bytes"):
        unpack_cuhk03(tmp_path, on_progress=lambda done, total: None)


@pytest.mark.parametrize("names", ["../../x y", "apple apple", "a\0b c", "x" * 300 + " y"])
def test_class_names_that_cannot_be_folders(tmp_path: Path, names: str):
    record = bytes([0, 1]) + bytes(3072)
    files = {"train.bin": record, "test.bin": record, "fine_label_names.txt": names.encode()}
    write_files(tmp_path, files)
    with pytest.raises(DataError, match="is not a list of different class names"):
        unpack_cifar100(tmp_path, on_progress=lambda done, total: None)


def test_archives_with_names_that_no_file_can_have(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x" * 300, b"")
    with pytest.raises(DataError, match="has a name of more than 255 bytes"):
        extract_archive(tmp_path / "a.zip", tmp_path / "out", on_progress=lambda done, total: None)


def test_archives_with_names_that_are_not_utf_8(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("é.jpg", b"")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(DataError, match=r"a\.zip is damaged: 'utf-8' codec"):
        extract_archive(tmp_path / "a.zip", tmp_path / "out", on_progress=lambda done, total: None)


@pytest.mark.parametrize("line", ["a\0b,1", "a.jpg," + "9" * 30, "a.jpg,²"])
def test_metadata_with_impossible_paths_and_cameras(tmp_path: Path, line: str):
    (tmp_path / "m.csv").write_text(f"path,camera\n{line}\n")
    with pytest.raises(DataError, match=r"m\.csv"):
        read_metadata(tmp_path / "m.csv")


@pytest.mark.parametrize("change", ["size", "index", "signature", "length"])
def test_a_damaged_heap_of_strings(tmp_path: Path, change: str):
    """The HDF5 library never returns from some of these."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 2), np.float32)
        file["pids"] = file["camids"] = np.arange(2)
        file.create_dataset("paths", data=["a.jpg", "b.jpg"], dtype=h5py.string_dtype())
    assert read_features(path).paths == ("a.jpg", "b.jpg")
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    at, value = {
        "size": (heap + 8, b"\xff" * 8),
        "index": (heap + 16, b"\x09\x00"),
        "signature": (heap, b"GCOX"),
        "length": (heap + 24, b"\xff" * 8),
    }[change]
    data[at : at + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"f\.h5: (the collection|no collection|a string) of"):
        read_features(path)


def test_a_data_set_whose_name_is_not_utf_8(tmp_path: Path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 2), np.float32)
        file["pids"] = file["camids"] = np.arange(2)
        file[b"x\xe9\xff"] = 0
        file.attrs["dataset"] = "12345678"
    assert read_features(path).attributes == {"dataset": "12345678"}


def test_a_damaged_heap_of_an_attribute(tmp_path: Path):
    """The HDF5 library looks for the end of free space of no size without end."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 2), np.float32)
        file["pids"] = file["camids"] = np.arange(2)
        file.attrs["dataset"] = "12345678"
    assert read_features(path).attributes == {"dataset": "12345678"}
    data = bytearray(path.read_bytes())
    free = data.index(b"GCOL") + 16 + 16 + 8  # behind the collection's head and one object
    assert data[free : free + 2] == b"\0\0"
    data[free + 8 : free + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"f\.h5: the collection of strings at byte"):
        read_features(path)


def test_features_with_ids_beyond_int64(tmp_path: Path):
    ids = np.array([1e300, 1.0])
    np.savez(tmp_path / "f.npz", features=np.ones((2, 2), np.float32), pids=ids, camids=ids)
    with pytest.raises(DataError, match="pids are float64, expected integers"):
        read_features(tmp_path / "f.npz")


def test_an_npz_header_that_is_not_python(tmp_path: Path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("features", "pids", "camids"):
            header = b"{'descr': '<f4', 'shape': (("
            data = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
            archive.writestr(f"{name}.npy", data)
    (tmp_path / "f.npz").write_bytes(file.getvalue())
    with pytest.raises(DataError, match="is not a NumPy array"):
        read_features(tmp_path / "f.npz")


def test_an_unknown_key_of_a_table_that_may_be_absent(tmp_path: Path):
    document = _onnx_document()
    document["metadata"]["reidkit"]["assumes"] = {"mean": [0, 0, 0], "std": [1, 1, 1], "x": 1}
    with pytest.raises(CheckpointError, match=r"unknown key assumes\.x\."):
        read_contract(_Session(document), tmp_path / "model.onnx", {})


def test_a_model_without_outputs(tmp_path: Path):
    document = {**_onnx_document(), "outputs": [], "metadata": {}}
    with pytest.raises(CheckpointError, match=r"model\.onnx has no outputs"):
        read_contract(_Session(document), tmp_path / "model.onnx", {})


@pytest.mark.parametrize("text", ["[1]", "null", "{", "[" * 100_000, "\udcff"])
def test_a_label_folder_whose_description_is_damaged(tmp_path: Path, text: str):
    (tmp_path / "labels.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    labels = load_label_set("lip")
    with pytest.raises(DataError, match="label maps of another parser"):
        open_label_folder(tmp_path, labels=labels, parser="p", key="k", images=[])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE meta SET value = '99999999999999' WHERE key = 'slots'", "lacks some of its"),
        ("INSERT INTO removed VALUES (4611686018427387904)", "slots beyond its 8"),
        ("UPDATE records SET slot = 77 WHERE slot = 3", "lacks the records of 1 vectors"),
        ("UPDATE meta SET value = '../x.f32' WHERE key = 'vectors'", "no name of a vector file"),
        ("UPDATE meta SET value = CAST(X'7BFF' AS TEXT) WHERE key = 'header'", "is damaged"),
        (
            "INSERT INTO meta VALUES ('approximate', '{\"slots\": \"x\"}')",
            "its FAISS index is damaged",
        ),
    ],
)
def test_an_index_whose_database_contradicts_its_vectors(
    tmp_path: Path, statement: str, message: str
):
    write_files(tmp_path, _index_seeds()[0])
    database = sqlite3.connect(tmp_path / "records.sqlite")
    database.execute(statement)
    database.commit()
    database.close()
    with pytest.raises(DataError, match=message):
        open_index(str(tmp_path)).search(np.ones((1, 3), np.float32), 8)


def test_an_index_with_a_damaged_vector(tmp_path: Path):
    files = _index_seeds()[0]
    vectors = np.frombuffer(files["vectors-1.f32"], np.float32).copy()
    vectors[6:9] = 1e38
    write_files(tmp_path, {**files, "vectors-1.f32": vectors.tobytes()})
    with pytest.raises(DataError, match="contains vectors that are not of length 1"):
        open_index(str(tmp_path)).search(np.ones((1, 3), np.float32), 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(random=3),
        lambda document: document["optimizer"]["param_groups"][0].update(lr=[1]),
        lambda document: document["optimizer"]["param_groups"][0].pop("lr"),
        lambda document: document["optimizer"]["state"][0].update(exp_avg=None),
        lambda document: document["optimizer"]["state"][0].pop("exp_avg"),
        lambda document: document["optimizer"]["state"][0].update(step=torch.tensor(-1.0)),
        lambda document: document["optimizer"]["param_groups"][0].update(betas=(1.0, 1.0)),
        lambda document: document["model"].update(bias=torch.zeros(2, dtype=torch.complex64)),
    ],
)
def test_a_resume_point_whose_optimizer_could_not_take_a_step(
    tmp_path: Path, change: Callable[[object], object]
):
    document = _resume_document()
    torch.save(document, tmp_path / "resume.pt")
    load_resume_point(tmp_path, _training_state(), ProcessGroup())
    change(document)
    torch.save(document, tmp_path / "resume.pt")
    with pytest.raises(CheckpointError, match="is damaged or was edited"):
        load_resume_point(tmp_path, _training_state(), ProcessGroup())


@pytest.mark.parametrize(
    "value", [None, 3, {"a": [1]}, [10**400] * 3, [1, 2, "x"], [float("nan")] * 3]
)
def test_results_whose_lists_are_no_numbers(tmp_path: Path, value: object):
    result = _result()
    result["per_query"] = {**result["per_query"], "average_precision": value}
    (tmp_path / "metrics.json").write_text(json.dumps({"results": [result]}))
    with pytest.raises(DataError, match=r"per_query\.average_precision of result 1"):
        read_results(tmp_path / "metrics.json")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format", ["TIFF", "JPEG", "PNG"])
def test_the_size_of_an_image_is_that_of_its_pixels(tmp_path: Path, format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (8, 4)).save(tmp_path / "image", format=format, exif=exif)
    picture = read_image(tmp_path / "image")
    assert image_size(tmp_path / "image") == (picture.height, picture.width)
    assert picture.size == ((4, 8) if orientation > 4 else (8, 4))


def test_what_a_file_contains_does_not_control_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "manifest.toml").write_text('format = 1\nreader = "\\u001b[31m\\u0000"\n')
    monkeypatch.setattr("sys.argv", ["reidkit", "datasets", "verify", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert not {"\x1b", "\0"} & set(message)


@pytest.mark.parametrize("change", [{"epoch": 10**300}, {"losses": {"total": 1e308}}])
def test_a_history_with_numbers_that_cannot_be_plotted(tmp_path: Path, change: dict[str, object]):
    record = {"epoch": 1, "lr": 0.1, "accuracy": 0.5, "losses": {"total": 1.0}}
    lines = [json.dumps(entry) for entry in (record | change, record)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match="line 1 is not the record of an epoch"):
        read_history(tmp_path)
