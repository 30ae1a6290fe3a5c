"""An index in a collection of a Qdrant server (the extra `qdrant`)."""

# N vectors, Q queries, D embedding

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, ReidkitError, RuntimeMissing
from reidkit.index.records import ANY, Filter, Header, Hit, Record, check_vectors, new_rows

SCHEME = "qdrant://"
BATCH = 512
"""Points of one request."""

PAYLOAD_INDEXES = {"camera": "integer", "person": "keyword", "time": "float"}
"""Types of the fields by which searches are restricted."""

_SPACE = uuid.UUID("6f0a5d1e-6c0f-4c1f-9f43-1d5c3f1c7a10")
"""Point ids are name-based UUIDs of paths, so adding a path again is without effect."""
_HEADER_ID = str(uuid.uuid5(_SPACE, "\0header"))


class QdrantCollection:
    """A `Gallery` on a Qdrant server.

    The header is the payload of one point that no search finds.

    Args:
        client: a `qdrant_client.QdrantClient`.

    Raises:
        DataError: on opening, if there is no such collection, or it was not made by reidkit.
        ReidkitError: at any time, if the server does not answer.
    """

    def __init__(self, client: Any, collection: str) -> None:
        self.client = client
        self.collection = collection
        self.name = f"{SCHEME}…/{collection}"
        with self._errors():
            if not client.collection_exists(collection):
                raise DataError(
                    f"no collection {collection!r} on this Qdrant server. Build it: "
                    f"reidkit index build {SCHEME}HOST:PORT/{collection} IMAGES --model MODEL"
                )
            found = client.retrieve(collection, [_HEADER_ID])
        text = found[0].payload.get("header") if found else None
        self.header = Header.from_json(text, where=self.name)

    @classmethod
    def create(cls, client: Any, collection: str, header: Header) -> QdrantCollection:
        """A new, empty collection.

        Raises:
            DataError: it exists already.
        """
        from qdrant_client import models

        with _server_errors(collection):
            if client.collection_exists(collection):
                raise DataError(
                    f"the collection {collection!r} exists already. Add to it: "
                    f"reidkit index add {SCHEME}HOST:PORT/{collection} IMAGES"
                )
            size, cosine = header.dimension, models.Distance.COSINE
            client.create_collection(
                collection, vectors_config=models.VectorParams(size=size, distance=cosine)
            )
            if not _is_local(client):  # local mode has no payload indexes
                for field, kind in PAYLOAD_INDEXES.items():
                    client.create_payload_index(collection, field, field_schema=kind)
            vector = [1.0] + [0.0] * (size - 1)
            point = models.PointStruct(
                id=_HEADER_ID, vector=vector, payload={"header": header.to_json()}
            )
            client.upsert(collection, [point], wait=True)
        return cls(client, collection)

    def __len__(self) -> int:
        with self._errors():
            return int(self.client.count(self.collection, exact=True).count) - 1

    def known(self, paths: Iterable[str]) -> set[str]:
        names = {_point_id(path): path for path in paths}
        found: set[str] = set()
        ids = list(names)
        with self._errors():
            for start in range(0, len(ids), BATCH):
                points = self.client.retrieve(
                    self.collection, ids[start : start + BATCH], with_payload=False
                )
                found |= {names[point.id] for point in points}
        return found

    def add(self, vectors: NDArray[np.float32], records: Sequence[Record]) -> int:
        from qdrant_client import models

        unit = check_vectors(vectors, self.header, name=self.name)
        points = [
            models.PointStruct(
                id=_point_id(records[row].path),
                vector=unit[row].tolist(),
                payload=dataclasses.asdict(records[row]),
            )
            for row in new_rows(records, self.known(record.path for record in records))
        ]
        with self._errors():
            for start in range(0, len(points), BATCH):
                self.client.upsert(self.collection, points[start : start + BATCH], wait=True)
        return len(points)

    def remove(self, paths: Iterable[str]) -> int:
        known = self.known(paths)
        if known:
            with self._errors():
                self.client.delete(self.collection, [_point_id(path) for path in known], wait=True)
        return len(known)

    def expire(self, before: float) -> int:
        from qdrant_client import models

        condition = _as_filter(Filter(before=before))
        with self._errors():
            count = self.client.count(self.collection, count_filter=condition, exact=True).count
            selector = models.FilterSelector(filter=condition)
            self.client.delete(self.collection, selector, wait=True)
        return int(count)

    def search(
        self, queries: NDArray[np.float32], n: int, condition: Filter = ANY
    ) -> list[list[Hit]]:
        unit = check_vectors(queries, self.header, name=self.name)
        chosen = _as_filter(condition)
        lists = []
        with self._errors():
            for vector in unit:
                response = self.client.query_points(
                    self.collection, query=vector.tolist(), limit=n, query_filter=chosen
                )
                lists.append([_hit(point) for point in response.points])
        return lists

    def count(self, condition: Filter = ANY) -> int:
        with self._errors():
            chosen = _as_filter(condition)
            count = self.client.count(self.collection, count_filter=chosen, exact=True).count
        return int(count)

    def find(self, condition: Filter = ANY, *, limit: int | None = None) -> list[Record]:
        found: list[Record] = []
        following = None
        with self._errors():
            while limit is None or len(found) < limit:
                points, following = self.client.scroll(
                    self.collection,
                    scroll_filter=_as_filter(condition),
                    limit=BATCH if limit is None else min(BATCH, limit - len(found)),
                    offset=following,
                )
                found += [_record(point) for point in points]
                if following is None:
                    break
        return found

    def info(self) -> dict[str, Any]:
        return {
            "index": self.name,
            "vectors": len(self),
            "dimension": self.header.dimension,
            "model": self.header.model,
            "model_sha256": self.header.model_sha256,
            "flip": self.header.flip,
        }

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return _server_errors(self.collection)


def connect(address: str) -> tuple[Any, str]:
    """Client and collection of qdrant://HOST[:PORT]/COLLECTION; qdrants:// is HTTPS. The
    environment variable QDRANT_API_KEY is passed on.

    Raises:
        ConfigError: the address is malformed.
        RuntimeMissing: qdrant-client is not installed.
    """
    parts = urlsplit(address)
    collection = parts.path.strip("/")
    try:
        host, port = parts.hostname, parts.port or 6333
    except ValueError:
        host = None
    if not host or not collection or "/" in collection:
        raise ConfigError(f"{address}: expected {SCHEME}HOST:6333/COLLECTION")
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise RuntimeMissing(
            "a Qdrant index needs its client. Run: pip install 'reidkit[qdrant]'"
        ) from error
    scheme = "https" if parts.scheme == "qdrants" else "http"
    client = QdrantClient(
        url=f"{scheme}://{host}:{port}",
        api_key=os.environ.get("QDRANT_API_KEY"),
        check_compatibility=False,
        timeout=30,
    )
    return client, collection


def _point_id(path: str) -> str:
    return str(uuid.uuid5(_SPACE, path))


def _as_filter(condition: Filter) -> Any:
    from qdrant_client import models

    must: list[Any] = []
    wanted: dict[str, frozenset[Any] | None] = {
        "camera": condition.cameras,
        "person": condition.people,
    }
    for key, values in wanted.items():
        if values is not None:
            match = models.MatchAny(any=sorted(values))
            must.append(models.FieldCondition(key=key, match=match))
    if condition.after is not None or condition.before is not None:
        span = models.Range(gte=condition.after, lt=condition.before)
        must.append(models.FieldCondition(key="time", range=span))
    return models.Filter(must=must, must_not=[models.HasIdCondition(has_id=[_HEADER_ID])])


def _record(point: Any) -> Record:
    payload = point.payload
    return Record(payload["path"], payload["person"], payload["camera"], payload["time"])


def _hit(point: Any) -> Hit:
    return Hit(_record(point), 1 - float(point.score))


def _is_local(client: Any) -> bool:
    return type(getattr(client, "_client", None)).__name__ == "QdrantLocal"


@contextlib.contextmanager
def _server_errors(collection: str) -> Iterator[None]:
    """Errors of the client as one of ours, with the server's own words."""
    try:
        yield
    except ReidkitError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("qdrant_client", "httpx", "httpcore"):
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ReidkitError(
                f"Qdrant, collection {collection!r}: {reason}. Is the server running?"
            ) from error
        raise
