"""One way to an index, whatever kind it is."""

from __future__ import annotations

from pathlib import Path

from reidkit.index.approximate import ApproximateDirectory
from reidkit.index.directory import IndexDirectory
from reidkit.index.qdrant import QdrantCollection, connect
from reidkit.index.records import Gallery, Header, is_qdrant


def open_index(address: str, *, exact: bool = False) -> Gallery:
    """The index in a directory or at qdrant://HOST:PORT/COLLECTION.

    Args:
        exact: search exactly, even if the directory has a FAISS index.

    Raises:
        DataError: there is none.
        ConfigError, RuntimeMissing: as `qdrant.connect`.
    """
    if is_qdrant(address):
        return QdrantCollection(*connect(address))
    return (IndexDirectory if exact else ApproximateDirectory)(Path(address))


def create_index(address: str, header: Header) -> Gallery:
    """A new, empty index; errors as in `open_index`, and if there is one already."""
    if is_qdrant(address):
        return QdrantCollection.create(*connect(address), header)
    return ApproximateDirectory.create(Path(address), header)
