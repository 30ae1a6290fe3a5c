"""One way to an index, whatever kind it is."""

from __future__ import annotations

from pathlib import Path

from reidkit.index.approximate import ApproximateDirectory
from reidkit.index.directory import DATABASE, IndexDirectory
from reidkit.index.qdrant import QdrantCollection, connect
from reidkit.index.records import Gallery, Header


def is_index(address: str) -> bool:
    """Whether `address` names an index: a directory with one, or a Qdrant collection."""
    return is_qdrant(address) or (Path(address) / DATABASE).is_file()


def is_qdrant(address: str) -> bool:
    """Whether `address` is qdrant://HOST:PORT/COLLECTION."""
    return address.startswith(("qdrant://", "qdrants://"))


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
