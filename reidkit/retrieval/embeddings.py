"""Features with their labels, the input of all functions in `retrieval`."""

# N vectors, D embedding

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reidkit.errors import DataError
from reidkit.types import ROLES
from reidkit.vectors import checked_norms

PERSON, JUNK, DISTRACTOR = range(len(ROLES))
"""A role's code is its position in `ROLES`."""


@dataclass(frozen=True)
class Embeddings:
    """Features with identity, camera and role; they need not be L2-normalised.

    Attributes:
        features: float32 [N, D]; a tensor becomes an array (on the CPU without a copy).
        pids: int64 [N].
        camids: int64 [N]; zeros where there are no cameras (protocol "none").
        roles: uint8 [N], codes of `ROLES`; may be passed as names; default: all persons.
        name: of these vectors in error messages.
        norms: float64 [N], Euclidean lengths.
    Raises:
        DataError: shapes disagree, or there are NaN, infinite, zero or nearly zero vectors; the
            message gives their number and the first index.
    """

    features: NDArray[Any]
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    roles: NDArray[np.uint8] = None  # type: ignore[assignment]  # __post_init__ fills it
    name: str = "features"
    norms: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        features = _as_matrix(self.features, self.name)
        N = len(features)
        roles = _as_codes(self.roles, N, self.name)
        values = {
            "features": features,
            "pids": _as_labels(self.pids, N, "pids", self.name),
            "camids": _as_labels(self.camids, N, "camids", self.name),
            "roles": roles,
            "norms": checked_norms(features, self.name),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def without_labels(cls, features: ArrayLike | Tensor, name: str = "features") -> Embeddings:
        """Vectors [N, D] for search and re-ranking, which use no labels: pids and camids are 0."""
        matrix = _as_matrix(features, name)
        zeros = np.zeros(len(matrix), np.int64)
        return cls(matrix, zeros, zeros, name=name)

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        N, D = self.features.shape
        people = len(np.unique(self.pids[self.roles == PERSON]))
        return f"Embeddings({self.name[:40]}: {N} of {D}-d, {people} identities)"

    @property
    def dim(self) -> int:
        """D, the length of one vector."""
        return int(self.features.shape[1])

    def take(self, rows: ArrayLike) -> Embeddings:
        """A copy of the vectors at `rows` (indices or a bool mask)."""
        rows = np.asarray(rows)
        return Embeddings(
            self.features[rows], self.pids[rows], self.camids[rows], self.roles[rows], self.name
        )


def check_same_space(query: Embeddings, gallery: Embeddings) -> None:
    """Raises DataError unless both have vectors of one length, and no query is junk."""
    if query.dim != gallery.dim:
        raise DataError(
            f"{query.name} has vectors of length {query.dim}, {gallery.name} of length "
            f"{gallery.dim}: extract both with the same model"
        )
    junk = np.flatnonzero(query.roles == JUNK)
    if len(junk):
        raise DataError(
            f"{query.name}: {len(junk)} queries have the role junk, the first at index "
            f"{junk[0]}: only gallery items may be junk. Remove them"
        )


def _as_matrix(features: Any, name: str) -> NDArray[Any]:
    if isinstance(features, torch.Tensor):
        features = features.detach().float().cpu().numpy()  # NumPy has no bfloat16
    try:
        array = np.asarray(features)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"{name}: features are not one array [N, D]: {error}") from error
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{name}: features are {array.dtype} {list(array.shape)}, expected numbers [N, D]"
        )
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(
            f"{name}: features have shape {list(array.shape)}, expected [N, D] with at least "
            f"one vector{'. One vector is [1, D]: features[None]' if array.ndim == 1 else ''}"
        )
    with np.errstate(over="ignore"):  # overflow is reported below as infinity, with its index
        return np.ascontiguousarray(array.astype(np.float32, copy=False))


def _as_labels(values: Any, N: int, kind: str, name: str) -> NDArray[np.int64]:
    labels = np.asarray(values)
    if labels.shape != (N,):
        raise DataError(f"{name}: {kind} have shape {list(labels.shape)}, expected [{N}]")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}: {kind} are {labels.dtype}, expected integers")
    return labels.astype(np.int64, copy=False)


def _as_codes(roles: Any, N: int, name: str) -> NDArray[np.uint8]:
    if roles is None:
        return np.zeros(N, dtype=np.uint8)
    values = np.asarray(roles)
    if values.shape != (N,):
        raise DataError(f"{name}: roles have shape {list(values.shape)}, expected [{N}]")
    if np.issubdtype(values.dtype, np.integer):
        wrong = np.flatnonzero((values < 0) | (values >= len(ROLES)))
    else:
        # h5py gives names as bytes
        names = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
        values = np.array([ROLES.index(v) if v in ROLES else -1 for v in names], dtype=np.int64)
        wrong = np.flatnonzero(values < 0)
    if len(wrong):
        raise DataError(
            f"{name}: {len(wrong)} roles are unknown, the first at index {wrong[0]}: "
            f"expected {', '.join(ROLES)}"
        )
    return values.astype(np.uint8)
