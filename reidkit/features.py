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
from reidkit.hdf5 import open_hdf5, read_array, read_attributes, read_strings
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
    with open_hdf5(path, DataError, "features file") as file:
        return _load(file)


def _load(file: h5py.File) -> Features:
    features = read_array(file, "features", kinds="fiu", ndim=2)
    N = len(features)
    pids, camids = _integers(file, "pids"), _integers(file, "camids")
    paths = read_strings(file, "paths") if "paths" in file else [""] * N
    # without roles, pid -1 is junk, as in Market-1501
    roles = _integers(file, "role") if "role" in file else np.where(pids == -1, JUNK, 0)
    lengths = [len(values) for values in (features, pids, camids, paths, roles)]
    if lengths != [N] * len(lengths):
        raise DataError(
            f"lengths of features, pids, camids, paths and role are {lengths}, expected equal ones"
        )
    if N and not 0 <= roles.min() <= roles.max() < len(ROLES):
        raise DataError(f"found role {roles.max()}, expected 0 to {len(ROLES) - 1}")
    return Features(
        features=features.astype(np.float32, copy=False),
        pids=pids,
        camids=camids,
        paths=tuple(paths),
        roles=roles.astype(np.uint8),
        attributes=read_attributes(file),
    )


def _integers(file: h5py.File, name: str) -> NDArray[np.int64]:
    """int64 [N] from integers, or from floats that are whole numbers."""
    values = read_array(file, name, kinds="iuf", ndim=1)
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise DataError(f"{name} are {values.dtype}, expected integers")
    return values.astype(np.int64)


def _is_features_file(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return "features" in file
    except OSError:
        return False
