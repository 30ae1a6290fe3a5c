"""The features file: embeddings with their identities, cameras and paths.

HDF5 or .npz; CSV and Parquet are written for other tools. Only `features`, `pids` and `camids` are
required when reading, so that features of other tools can be evaluated.
"""

# N images or tracklets, D embedding

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.feature_tables import import_pyarrow, is_csv, is_parquet, write_csv, write_parquet
from reidkit.files import atomic, check_regular, user_path
from reidkit.hdf5 import map_array, open_hdf5, read_attributes, read_strings
from reidkit.npz import NpzFile
from reidkit.types import ROLES

FORMAT = 1
PERSON, JUNK = ROLES.index("person"), ROLES.index("junk")


@dataclass(frozen=True)
class Features:
    """Embeddings with their labels and origin.

    Attributes:
        features: float32 [N, D].
        pids, camids: int64 [N]; -1 where unknown.
        paths: N strings, empty where unknown.
        roles: uint8 [N], positions in `types.ROLES`.
        attributes: model and its hash, preprocessing, whether rows are L2-normalised, data set,
            split, protocol.
    """

    features: NDArray[np.float32]
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    paths: tuple[str, ...]
    roles: NDArray[np.uint8]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        N, D = self.features.shape
        origin = " ".join(str(self.attributes.get(key, "")) for key in ("dataset", "split")).strip()
        people = len(np.unique(self.pids[(self.roles == PERSON) & (self.pids >= 0)]))
        labels = f"{people} identities" if people else "unlabelled"
        return f"Features({f'{origin[:40]}: ' if origin else ''}{N} of {D}-d, {labels})"

    def stored_attributes(self) -> dict[str, Any]:
        """The attributes as files contain them: with the format, and without NumPy's scalars."""
        stored = {"format": FORMAT, **self.attributes}
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in stored.items()}


def write_features(path: Path, features: Features) -> None:
    """Writes a features file, atomically. The suffix selects the format (`FORMATS`).

    Raises:
        ConfigError, RuntimeMissing, DataError: as `check_features_path`.
        ReidkitError: the file cannot be written.
    """
    check_features_path(path)
    with atomic(path) as partial:
        FORMATS[path.suffix.lower()].write(partial, features)


def check_features_path(path: Path) -> None:
    """Passes if a features file can be written to `path`.

    Raises:
        ConfigError: the suffix is not one of `FORMATS`.
        RuntimeMissing: the format needs a package that is not installed.
        DataError: the path is another kind of file, which is not overwritten.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(
            f"{path}: {f'unknown suffix {path.suffix}' if suffix else 'no suffix'}, expected "
            f"{', '.join(FORMATS)}. Choose a name such as {path.stem}.h5"
        )
    if suffix == ".parquet":
        import_pyarrow(path)
    if path.exists() and not (path.is_file() and FORMATS[suffix].recognises(path)):
        raise DataError(
            f"{path} exists and is not a features file, so it is not overwritten. "
            f"Choose another name: -o FILE{suffix}"
        )


def read_features(path: str | Path) -> Features:
    """Reads a features file of reidkit or of another tool: .npz by its suffix, otherwise HDF5.

    Vectors of a large HDF5 file (`hdf5.MAPPED_BYTES`) stay in the file until they are used.

    Raises:
        DataError: the file is missing or of another format, or an array is missing or invalid.
    """
    path = user_path(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".parquet"):
        raise DataError(f"{path}: features are read from .h5 and .npz files only")
    check_regular(path, DataError)
    if not path.is_file():
        raise DataError(
            f"no such features file: {path}. "
            f"Run: reidkit extract MODEL --dataset NAME --split query -o {path}"
        )
    if suffix == ".npz":
        with NpzFile(path) as arrays:
            return _read_npz(arrays)
    with open_hdf5(path, DataError, "features file") as file:
        return _read_hdf5(file)


def _read_hdf5(file: h5py.File) -> Features:
    return _checked(
        lambda name, kinds, ndim: map_array(file, name, kinds=kinds, ndim=ndim),
        names=set(file),
        paths=tuple(read_strings(file, "paths")) if "paths" in file else None,
        attributes=read_attributes(file),
    )


def _read_npz(file: NpzFile) -> Features:
    attributes = {}
    if "attributes" in file.names:
        text = str(file.array("attributes", kinds="U", ndim=0))
        try:
            attributes = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file.path}: 'attributes' is not JSON: {str(error)[:120]}") from error
        if not isinstance(attributes, dict):
            raise DataError(f"{file.path}: 'attributes' is {text[:40]!r}, expected a JSON object")
    paths = None
    if "paths" in file.names:
        paths = tuple(file.array("paths", kinds="U", ndim=1).tolist())
    try:
        return _checked(
            lambda name, kinds, ndim: file.array(name, kinds=kinds, ndim=ndim),
            names=set(file.names),
            paths=paths,
            attributes={k: v for k, v in attributes.items() if isinstance(v, str | int | float)},
        )
    except _Inconsistent as error:
        raise DataError(f"{file.path}: {error}") from error


class _Inconsistent(DataError):
    """Arrays that do not fit one another; the file is still to be named."""


def _checked(
    read: Callable[[str, str, int], NDArray[Any]],
    *,
    names: Container[str],
    paths: tuple[str, ...] | None,
    attributes: Mapping[str, Any],
) -> Features:
    """Features from the arrays of a file, which must be of equal length.

    Args:
        read: (name, accepted kinds of dtype, number of dimensions) -> the array.
        names: of the arrays in the file.
    """

    def integers(name: str) -> NDArray[np.int64]:
        """int64 [N] from integers, or from floats that are whole numbers."""
        values = read(name, "iuf", 1)
        is_float = values.dtype.kind == "f"
        numbers = values.astype(np.float64)  # the bound is beyond float16
        if is_float and not ((np.abs(numbers) < 2.0**63) & (numbers == np.rint(numbers))).all():
            raise _Inconsistent(f"{name} are {values.dtype}, expected integers")
        return values.astype(np.int64)

    features = read("features", "fiu", 2)
    N = len(features)
    pids, camids = integers("pids"), integers("camids")
    if paths is None:
        paths = ("",) * N
    # without roles, pid -1 is junk, as in Market-1501
    roles = integers("role") if "role" in names else np.where(pids == -1, JUNK, 0)
    lengths = [len(values) for values in (features, pids, camids, paths, roles)]
    if lengths != [N] * len(lengths):
        raise _Inconsistent(
            f"lengths of features, pids, camids, paths and role are {lengths}, expected equal ones"
        )
    if N and not 0 <= roles.min() <= roles.max() < len(ROLES):
        raise _Inconsistent(f"found role {roles.max()}, expected 0 to {len(ROLES) - 1}")
    return Features(
        features=features.astype(np.float32, copy=False),
        pids=pids,
        camids=camids,
        paths=paths,
        roles=roles.astype(np.uint8),
        attributes=attributes,
    )


def _write_hdf5(path: Path, features: Features) -> None:
    """Raises OSError if that is not possible."""
    try:
        with h5py.File(path, "w", locking=False) as file:  # `atomic` has locked it
            file["features"] = features.features
            file["pids"] = features.pids
            file["camids"] = features.camids
            file["role"] = features.roles
            file["role"].attrs["names"] = list(ROLES)
            file.create_dataset("paths", data=list(features.paths), dtype=h5py.string_dtype())
            for name, value in features.stored_attributes().items():
                file.attrs[name] = value
    except RuntimeError as error:  # h5py's when the disk is full on closing the file
        raise OSError(str(error)) from error


def _write_npz(path: Path, features: Features) -> None:
    with path.open("wb") as file:  # np.savez would append .npz to the name of the partial file
        np.savez(
            file,
            features=features.features,
            pids=features.pids,
            camids=features.camids,
            role=features.roles,
            paths=np.array(features.paths, np.str_),
            attributes=np.array(json.dumps(features.stored_attributes())),
        )


def _is_hdf5(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return "features" in file
    except OSError:
        return False


def _is_npz(path: Path) -> bool:
    try:
        with NpzFile(path) as file:
            return "features" in file.names
    except DataError:
        return False


class _Format(NamedTuple):
    """A format of features files.

    Attributes:
        recognises: whether an existing file is one of features, and may be replaced.
    """

    write: Callable[[Path, Features], None]
    recognises: Callable[[Path], bool]


FORMATS = {
    ".h5": _Format(_write_hdf5, _is_hdf5),
    ".npz": _Format(_write_npz, _is_npz),
    ".csv": _Format(write_csv, is_csv),
    ".parquet": _Format(write_parquet, is_parquet),
}
"""Formats by suffix. `.h5` and `.npz` can be read again; the others are for other tools."""
