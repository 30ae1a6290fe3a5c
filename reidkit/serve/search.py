"""The index of a server: searched in a thread of its own, as it is at that moment."""

# Q queries, D embedding

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reidkit.choices import MAX_CAMERA
from reidkit.errors import DataError, ReidkitError
from reidkit.index.opening import open_index
from reidkit.index.records import ANY, DATABASE, Filter, is_qdrant, parse_time
from reidkit.serve.batching import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from starlette.datastructures import QueryParams

    from reidkit.index.records import Hit
    from reidkit.runtime.embedder import Embedder

log = logging.getLogger(__name__)

DEFAULT_K = 10
MAX_K = 1000
"""Entries per query that a client may request."""
MAX_DISTANCE = 2
"""Of two L2-normalised embeddings: 1 - cosine."""
PARAMETERS = ("k", "camera", "person", "after", "before", "threshold")


class SearchFailed(Exception):
    """The index cannot be searched now; the log says why."""


@dataclass(frozen=True)
class SearchQuery:
    """What a client requests, as `reidkit search` does.

    Attributes:
        k: entries per query.
        condition: which entries may be found.
        threshold: largest distance of an entry; None: any.
    """

    k: int = DEFAULT_K
    condition: Filter = ANY
    threshold: float | None = None

    @classmethod
    def parse(cls, parameters: QueryParams) -> SearchQuery:
        """The query parameters of a URL; camera and person may be repeated.

        Raises:
            DataError: one is unknown or malformed.
        """
        check_names(parameters, PARAMETERS)
        for name in ("k", "after", "before", "threshold"):
            if len(parameters.getlist(name)) > 1:
                raise DataError(f"{name} is given more than once")
        cameras = [_number("camera", text, 0, MAX_CAMERA) for text in parameters.getlist("camera")]
        people = parameters.getlist("person")
        k = _number("k", parameters.get("k", str(DEFAULT_K)), 1, MAX_K)
        condition = Filter(
            frozenset(cameras) if cameras else None,
            frozenset(people) if people else None,
            *(
                parse_time(parameters[name], where=name) if name in parameters else None
                for name in ("after", "before")
            ),
        )
        return cls(k, condition, _distance(parameters.get("threshold")))


def check_names(parameters: QueryParams, known: Sequence[str]) -> None:
    """Refuses query parameters of other names than those `known`.

    Raises:
        DataError: one is unknown.
    """
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        expected = ", ".join(known) or "none"
        raise DataError(f"unknown query parameter {unknown[0][:40]!r}, expected {expected}")


class IndexSearch:
    """An open index of the served model's embeddings.

    Other processes may change it meanwhile: every search reads what is stored when it begins, and
    a directory that was replaced is opened again. Searches of concurrent requests follow one
    another in one thread, to which the database's connection belongs; the event loop and the
    network go on.
    """

    def __init__(self, address: str, embedder: Embedder, *, model: Path, max_queue: int) -> None:
        """
        Args:
            address: directory, or qdrant://HOST:PORT/COLLECTION.
            model: file of the embedder, for messages.
            max_queue: queries that may wait; more are refused.
        Raises:
            DataError: there is no index, another model made its vectors, or it cannot be searched.
            ConfigError, RuntimeMissing: as `open_index`.
        """
        self.address = address
        self.waiting = 0
        self.max_queue = max_queue
        self._thread = ThreadPoolExecutor(1, "search")
        self._identity = _identity(address)
        self._gallery = self._thread.submit(open_index, address).result()
        header = self._gallery.header
        header.check_model(embedder.source_hash, model=model, where=address)
        self.flip = header.flip
        self.header = replace(
            header,
            preprocess=embedder.preprocess.to_json(),
            dimension=_dimension(embedder),
        )
        """Of the vectors that can be compared with the model's."""
        header.check_same_model(self.header, where=address)
        direction = np.eye(1, header.dimension, dtype=np.float32)
        self._thread.submit(self._gallery.search, direction, 1).result()  # reports what is damaged
        log.info("index: %s", address)

    async def search(
        self,
        rows: NDArray[np.float32],
        query: SearchQuery,
        *,
        on_search: Callable[[float], None] = lambda seconds: None,
    ) -> list[list[Hit]]:
        """The nearest entries of L2-normalised embeddings [Q, D], nearest first.

        Args:
            on_search: receives the seconds of the search itself.
        Raises:
            QueueFull: too many queries wait.
            DataError: an embedding is zero or not finite.
            SearchFailed: the index is damaged or its server does not answer.
        """
        for number, norm in enumerate(np.linalg.norm(rows, axis=1), 1):
            if not norm > 0.5:  # NaN, or zero, which L2 normalisation leaves
                raise DataError(f"the embedding of query {number} is zero or not finite")
        if self.waiting + len(rows) > self.max_queue:
            raise QueueFull
        self.waiting += len(rows)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._search, rows, query, on_search)
        finally:
            self.waiting -= len(rows)

    def _search(
        self, rows: NDArray[np.float32], query: SearchQuery, on_search: Callable[[float], None]
    ) -> list[list[Hit]]:
        start = time.perf_counter()
        try:
            self._reopen_if_replaced()
            lists = self._gallery.search(rows, query.k, query.condition)
        except ReidkitError as error:
            log.error("%s", error)
            raise SearchFailed from error
        on_search(time.perf_counter() - start)
        if query.threshold is None:
            return lists
        return [[hit for hit in hits if hit.distance <= query.threshold] for hits in lists]

    def _reopen_if_replaced(self) -> None:
        found = _identity(self.address)
        if found == self._identity:
            return
        gallery = open_index(self.address)
        gallery.header.check_same_model(self.header, where=self.address)
        self._gallery, self._identity = gallery, found
        log.info("index: %s was replaced and opened again", self.address)

    def close(self) -> None:
        """Waits for the search under way."""
        self._thread.shutdown(cancel_futures=True)


def _identity(address: str) -> tuple[int, int] | None:
    """What tells an index directory from another one of the same name; None for a server, and
    while there is none."""
    try:
        status = None if is_qdrant(address) else (Path(address) / DATABASE).stat()
    except OSError:
        status = None
    return status and (status.st_dev, status.st_ino)


def _dimension(embedder: Embedder) -> int:
    frames = [1] if embedder.frames else []
    blank = np.zeros((1, *frames, *embedder.preprocess.size, 3), np.uint8)
    dimension: int = embedder.embed(blank).shape[1]
    return dimension


def _number(name: str, text: str, least: int, most: int) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1
    if not least <= value <= most:
        raise DataError(f"found {name}={text[:40]}, expected a whole number from {least} to {most}")
    return value


def _distance(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        distance = float(text)
    except ValueError:
        distance = math.nan
    if not 0 <= distance <= MAX_DISTANCE:  # nor is NaN
        raise DataError(
            f"found threshold={text[:40]}, expected a distance from 0 to {MAX_DISTANCE}"
        )
    return distance
