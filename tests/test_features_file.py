"""Features files of reidkit, and of other tools if they have features, pids and camids."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.features import Features, read_features, write_features


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


def test_reading_returns_what_was_written(tmp_path: Path) -> None:
    write_features(tmp_path / "f.h5", example())
    found = read_features(tmp_path / "f.h5")
    assert found.paths == example().paths
    assert (found.features == example().features).all() and found.features.dtype == np.float32
    for name in ("pids", "camids", "roles"):
        assert (getattr(found, name) == getattr(example(), name)).all()
    assert found.attributes["model"] == "iaunet" and found.attributes["format"] == 1


def test_files_of_other_tools_need_only_three_data_sets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = np.ones((2, 5))
        file["pids"] = np.array([3, 4], np.int32)
        file["camids"] = [1, 2]
    found = read_features(tmp_path / "f.h5")
    assert found.features.shape == (2, 5) and found.paths == ("", "")
    assert found.roles.tolist() == [0, 0]


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
