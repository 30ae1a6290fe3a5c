"""The features file: embeddings with their identities, cameras and paths, in HDF5.

Only `features`, `pids` and `camids` are required when reading, so that features of other tools
can be evaluated.
"""

# N images or tracklets, D embedding

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.files import atomic
from reidkit.types import ROLES

FORMAT = 1
JUNK = ROLES.index("junk")


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


def write_features(path: Path, features: Features) -> None:
    """Writes a features file, atomically.

    Raises:
        DataError: the path is another kind of file, which is not overwritten.
        ReidkitError: the file cannot be written.
    """
    if path.exists() and not _is_features_file(path):
        raise DataError(
            f"{path} exists and is not a features file, so it is not overwritten. "
            "Choose another name: -o FILE.h5"
        )
    with atomic(path) as partial, h5py.File(partial, "w") as file:
        file["features"] = features.features
        file["pids"] = features.pids
        file["camids"] = features.camids
        file["role"] = features.roles
        file["role"].attrs["names"] = list(ROLES)
        file.create_dataset("paths", data=list(features.paths), dtype=h5py.string_dtype())
        file.attrs["format"] = FORMAT
        for name, value in features.attributes.items():
            file.attrs[name] = value


def read_features(path: Path) -> Features:
    """Reads a features file of reidkit or of another tool.

    Raises:
        DataError: the file is missing or not HDF5, or a data set is missing or invalid.
    """
    if not path.is_file():
        raise DataError(
            f"no such features file: {path}. "
            f"Run: reidkit extract MODEL --dataset NAME --split query -o {path}"
        )
    try:
        with h5py.File(path, "r") as file:
            arrays = {name: _read(file, name, path) for name in ("features", "pids", "camids")}
            N = len(arrays["features"])
            names = (
                [text.decode() for text in _read(file, "paths", path)] if "paths" in file else []
            )
            stored_roles = _read(file, "role", path) if "role" in file else None
            attributes = dict(file.attrs)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    lengths = {name: len(values) for name, values in arrays.items()}
    if stored_roles is not None:
        lengths["role"] = len(stored_roles)
    if arrays["features"].ndim != 2 or set(lengths.values()) != {N}:
        shape = "x".join(map(str, arrays["features"].shape))
        raise DataError(
            f"{path}: features have shape {shape} and lengths are {lengths}, expected [N, D] and "
            "equal lengths"
        )
    for name in ("pids", "camids"):
        arrays[name] = _as_integers(arrays[name], name, path)
    # without roles, pid -1 is junk, as in Market-1501
    roles = np.where(arrays["pids"] == -1, JUNK, 0) if stored_roles is None else stored_roles
    if roles.max(initial=0) >= len(ROLES):
        raise DataError(f"{path}: found role {roles.max()}, expected 0 to {len(ROLES) - 1}")
    return Features(
        features=arrays["features"].astype(np.float32),
        pids=arrays["pids"],
        camids=arrays["camids"],
        paths=tuple(names) or ("",) * N,
        roles=roles.astype(np.uint8),
        attributes=attributes,
    )


def _as_integers(values: NDArray[Any], name: str, path: Path) -> NDArray[np.int64]:
    integral = values.dtype.kind in "iu" or (
        values.dtype.kind == "f" and bool((np.isfinite(values) & (values == np.rint(values))).all())
    )
    if not integral:
        raise DataError(f"{path}: {name} are {values.dtype}, expected integers")
    return values.astype(np.int64)


def _is_features_file(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return "features" in file
    except OSError:
        return False


def _read(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """Reads a data set stored in this file; links, virtual and external storage are refused."""
    link = file.get(name, getlink=True)
    if link is None:
        raise DataError(f"{path} has no data set {name!r}, only {', '.join(file) or 'none at all'}")
    data = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise DataError(f"{path}: {name!r} is not a data set stored in this file")
    array: NDArray[Any] = data[()]
    return array
