"""Features files of reidkit, and of other tools if they have features, pids and camids."""

import csv
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError, ReidkitError, RuntimeMissing
from reidkit.features import Features, check_features_path, read_features, write_features
from reidkit.index.searching import search_features


def example() -> Features:
    rng = np.random.default_rng(0)
    return Features(
        features=rng.normal(size=(4, 3)).astype(np.float32),
        pids=np.array([1, 1, 2, 0]),
        camids=np.array([1, 2, 1, 3]),
        paths=("a.jpg", "b/ü.jpg", "c.jpg", "d.jpg"),
        roles=np.array([0, 0, 1, 2], np.uint8),
        attributes={"model": "iaunet", "normalised": False},
    )


@pytest.mark.parametrize("name", ["f.h5", "f.npz", "F.NPZ"])
def test_reading_returns_what_was_written(tmp_path: Path, name: str) -> None:
    write_features(tmp_path / name, example())
    found = read_features(tmp_path / name)
    assert found.paths == example().paths
    assert (found.features == example().features).all() and found.features.dtype == np.float32
    for name in ("pids", "camids", "roles"):
        assert (getattr(found, name) == getattr(example(), name)).all()
    assert found.attributes == {"format": 1, "model": "iaunet", "normalised": False}


def test_files_of_other_tools_need_only_three_data_sets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = np.ones((2, 5))
        file["pids"] = np.array([3, 4], np.int32)
        file["camids"] = [1, 2]
    found = read_features(tmp_path / "f.h5")
    assert found.features.shape == (2, 5) and found.paths == ("", "")
    assert found.roles.tolist() == [0, 0]


def test_vectors_of_a_large_file_stay_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.h5"
    write_features(path, example())
    monkeypatch.setattr("reidkit.hdf5.MAPPED_BYTES", 48)  # 4 x 3 float32
    found = read_features(path).features
    assert isinstance(found, np.memmap) and not found.flags.writeable
    assert (found == example().features).all()
    hits = search_features(example(), read_features(path), 3)
    assert [[hit.record.path for hit in row] for row in hits] == [
        [hit.record.path for hit in row] for row in search_features(example(), example(), 3)
    ]
    assert all("c.jpg" not in [hit.record.path for hit in row] for row in hits)  # junk
    with h5py.File(path, "r+") as file:  # in pieces
        del file["features"]
        file.create_dataset("features", data=example().features, chunks=(2, 3))
    assert not isinstance(read_features(path).features, np.memmap)


def test_inconsistent_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with pytest.raises(DataError, match="no such features file"):
        read_features(path)
    path.write_text("text")
    with pytest.raises(DataError, match="not a readable features file"):
        read_features(path)
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 5))
        file["pids"] = [1, 2]
    with pytest.raises(DataError, match="no data set 'camids', only features, pids"):
        read_features(path)
    with h5py.File(path, "a") as file:
        file["camids"] = [1, 2, 3]
    with pytest.raises(DataError, match=r"lengths .* expected equal ones"):
        read_features(path)


def test_external_links_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["features"] = np.ones((2, 5))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = h5py.ExternalLink("secret.h5", "/features")
        file["pids"] = [1, 2]
        file["camids"] = [1, 2]
    with pytest.raises(DataError, match="'features' is a soft or external link; refused"):
        read_features(tmp_path / "f.h5")


def test_without_roles_pid_minus_one_is_junk_and_ids_must_be_integers(tmp_path: Path) -> None:
    def write(pids: object) -> Path:
        with h5py.File(tmp_path / "f.h5", "w") as file:
            file["features"] = np.ones((3, 5))
            file["pids"] = pids
            file["camids"] = [1, 2, 3]
        return tmp_path / "f.h5"

    assert read_features(write([-1, 0, 5])).roles.tolist() == [1, 0, 0]
    assert read_features(write([1.0, 2.0, 3.0])).pids.tolist() == [1, 2, 3]
    for wrong in ([1.5, 2, 3], [np.nan, 2, 3], np.array([b"a", b"b", b"c"])):
        with pytest.raises(DataError, match=r"pids.* (is|are) .*, expected (integers|numbers)"):
            read_features(write(wrong))


def test_a_csv_has_one_row_per_image_and_gives_every_float32_back(tmp_path: Path) -> None:
    write_features(tmp_path / "f.csv", example())
    with (tmp_path / "f.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "pid", "camid", "role", "f0", "f1", "f2"]
    assert rows[2][:4] == ["b/ü.jpg", "1", "2", "person"] and rows[4][3] == "distractor"
    values = np.array([[float(value) for value in row[4:]] for row in rows[1:]], np.float32)
    assert (values == example().features).all()
    with pytest.raises(DataError, match=r"read from \.h5 and \.npz files only"):
        read_features(tmp_path / "f.csv")


def test_parquet_has_one_row_per_image(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_features(tmp_path / "f.parquet", example())
    table = parquet.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["path"] == list(example().paths) and table["role"][2] == "junk"
    assert (np.array(table["features"], np.float32) == example().features).all()
    write_features(tmp_path / "f.parquet", example())  # may be replaced


def test_parquet_without_pyarrow_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeMissing, match=r"pip install 'reidkit\[parquet\]'"):
        check_features_path(tmp_path / "f.parquet")


@pytest.mark.parametrize("name", ["f.txt", "f", "f.h5.gz"])
def test_another_suffix_is_refused_and_the_supported_ones_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected \.h5, \.npz, \.csv, \.parquet"):
        check_features_path(Path(name))


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".csv"])
def test_only_features_files_are_overwritten(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"f{suffix}"
    write_features(path, example())
    write_features(path, example())
    path.write_text("split,path,pid,camid,tracklet,frame\n")
    with pytest.raises(DataError, match="is not a features file, so it is not overwritten"):
        write_features(path, example())


def test_an_npz_of_another_tool_needs_only_three_arrays(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "f.npz", features=np.eye(3), pids=[1.0, -1, 2], camids=np.int8([1, 2, 3])
    )
    found = read_features(tmp_path / "f.npz")
    assert found.features.dtype == np.float32 and found.roles.tolist() == [0, 1, 0]
    assert found.paths == ("", "", "") and found.attributes == {}


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def array(values: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def save(path: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(f"{name}.npy", data)


def objects(path: Path) -> None:
    np.savez(path, features=np.array([[{}], [{}]], object), pids=[1, 2], camids=[1, 2])


def absurd_shape(path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 2048), }"
    save(path, features=npy(header, b"1234"), pids=array([1]), camids=array([1]))


def bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("features.npy", "w") as entry,
    ):
        for _ in range(300):
            entry.write(bytes(1 << 20))  # 300 MiB of zeros in 300 kB


def overflow(path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }"
    save(path, features=npy(header, b"1234"), pids=array([1]), camids=array([1]))


def not_numpy(path: Path) -> None:
    save(path, features=b"GIF89a", pids=array([1]), camids=array([1]))


def code_in_header(path: Path) -> None:
    save(path, features=npy("__import__('os').getcwd()"), pids=array([1]), camids=array([1]))


def truncated(path: Path) -> None:
    np.savez(path, features=np.eye(40), pids=np.arange(40), camids=np.arange(40))
    data = bytearray(path.read_bytes())
    data[400:600] = bytes(200)
    path.write_bytes(data)


def text(path: Path) -> None:
    path.write_text("features")


def structured(path: Path) -> None:
    np.savez(path, features=np.zeros((2, 2), "f4,f4"), pids=[1, 2], camids=[1, 2])


def names_repeated(path: Path) -> None:
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as file:
        for _ in range(2):
            file.writestr("features.npy", array(np.eye(2)))


def lengths(path: Path) -> None:
    np.savez(path, features=np.eye(2), pids=[1, 2, 3], camids=[1, 2])


def attributes(path: Path) -> None:
    np.savez(path, features=np.eye(2), pids=[1, 2], camids=[1, 2], attributes="{no")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (objects, "contains Python objects; refused"),
        (absurd_shape, "claims 8,192,000,000,000,000 bytes and has 4; refused"),
        (bomb, "more than 20 times the file's size; refused"),
        (overflow, "refused"),
        (not_numpy, "is not a NumPy array"),
        (code_in_header, "is not a NumPy array"),
        (truncated, "is damaged"),
        (text, "not a readable .npz file"),
        (structured, "expected numbers"),
        (names_repeated, "of different names"),
        (lengths, r"lengths of .* expected equal ones"),
        (attributes, "is not JSON"),
    ],
)
def test_a_hostile_npz_is_refused_in_one_line_that_names_it(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / "f.npz")
    with pytest.raises(DataError, match=message) as caught:
        read_features(tmp_path / "f.npz")
    assert str(tmp_path / "f.npz") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", [".h5", ".npz", ".csv"])
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path, suffix: str) -> None:
    import resource

    path = tmp_path / f"features{suffix}"
    features = example()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 64):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(ReidkitError, match=f"cannot write {path}: File too large") as error:
                write_features(path, features)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    write_features(path, features)
