"""Norms of vectors, and what vectors must be to be compared. Imports no torch."""

# N vectors, D embedding

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError

MAX_NORM = 1e18
"""Vectors must be shorter, so that squared distances fit float32."""

MIN_NORM = 1e-18
"""Vectors must be at least as long, so that their squares and the inverse of their norm fit."""

_CHUNK = 1024  # rows whose squares are summed in float64 at a time: 16 MiB at D = 2048


def checked_norms(features: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Euclidean norms [N] of vectors [N, D].

    Args:
        name: of the vectors, for messages.
    Raises:
        DataError: there are NaN, infinite, zero or nearly zero vectors, or some whose squares
            overflow; the message gives their number and the first index.
    """
    norms = np.empty(len(features))
    for start in range(0, len(features), _CHUNK):
        rows = features[start : start + _CHUNK].astype(np.float64)
        norms[start : start + _CHUNK] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise DataError(
            f"{name}: {len(bad)} of {len(norms)} vectors contain NaN or infinity, the first at "
            f"index {bad[0]}: extract them again (half precision overflows at 65504)"
        )
    too_long = np.flatnonzero(norms > MAX_NORM)
    if len(too_long):
        raise DataError(
            f"{name}: {len(too_long)} of {len(norms)} vectors are longer than {MAX_NORM:g}, the "
            f"first at index {too_long[0]}: their squares overflow float32. Scale them down"
        )
    short = np.flatnonzero(norms < MIN_NORM)
    if len(short):
        kind = "zero" if norms[short[0]] == 0 else f"shorter than {MIN_NORM:g}"
        raise DataError(
            f"{name}: {len(short)} of {len(norms)} vectors are {kind}, the first at index "
            f"{short[0]}: they have no direction. Check the model"
        )
    return norms


def unit_rows(features: NDArray[Any]) -> NDArray[np.float32]:
    """float32 [N, D] divided by their Euclidean norms, which must be finite and not zero."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    return np.asarray(features / norms[:, None], np.float32)
