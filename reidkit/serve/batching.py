"""Micro-batching: crops of concurrent requests are embedded together, a lone one at once."""

# n crops of one request, B crops of a batch, T frames, H W pixels of the network's input,
# D embedding

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class QueueFull(Exception):
    """More crops are waiting than the queue may hold."""


@dataclass(frozen=True)
class BatchLimits:
    """How batches are collected.

    Attributes:
        max_batch: crops of a batch.
        max_wait: seconds that a batch waits for requests whose images are being decoded.
        max_queue: crops that may wait; more are refused.
        workers: batches that are embedded at the same time.
    """

    max_batch: int = 32
    max_wait: float = 0.005
    max_queue: int = 1024
    workers: int = 1


@dataclass(eq=False)
class _Item:
    """Crops of one request that wait: uint8 [n, H, W, 3] or clips [n, T, H, W, 3]."""

    pixels: NDArray[np.uint8]
    rows: asyncio.Future[NDArray[np.float32]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher:
    """Collects crops of concurrent requests into batches.

    While a batch is embedded, the requests that arrive wait and form the next batch. A worker that
    is free takes what waits at once, unless further requests are being decoded (`preparing`): for
    those it waits, at most `max_wait`. So a lone request never waits.

    Use it in one event loop: `start`, any number of `embed`, `stop`.
    """

    def __init__(
        self,
        embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        limits: BatchLimits,
        *,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """`embed` maps uint8 [B, H, W, 3] to float32 [B, D] and is called in threads; `on_batch`
        receives the size of every batch."""
        self._embed = embed
        self._on_batch = on_batch
        self.limits = limits
        self._items: deque[_Item] = deque()
        self._preparing = 0
        self._changed = asyncio.Event()
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix="embed")
        self._workers: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        """The number of crops in the queue."""
        return sum(len(item.pixels) for item in self._items if not item.rows.done())

    def start(self) -> None:
        """Starts the workers."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(self.limits.workers)]

    async def stop(self) -> None:
        """Stops the workers; requests that still wait are cancelled."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for item in self._items:
            item.rows.cancel()
        self._threads.shutdown()

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """While a request is decoded: batches may wait for it."""
        self._preparing += 1
        try:
            yield
        finally:
            self._preparing -= 1
            self._changed.set()

    async def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [n, H, W, 3], or clips [n, T, H, W, 3] -> float32 [n, D].

        Raises:
            QueueFull: if there is no room in the queue.
        """
        if self.waiting + len(pixels) > self.limits.max_queue:
            raise QueueFull
        step = self.limits.max_batch
        items = [_Item(pixels[n : n + step]) for n in range(0, len(pixels), step)]
        self._items.extend(items)
        self._changed.set()
        try:
            return np.concatenate([await item.rows for item in items])
        except BaseException:  # cancelled by a timeout: what still waits is not embedded
            for item in items:
                item.rows.cancel()
            raise

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            if not batch:
                continue
            try:
                pixels = np.concatenate([item.pixels for item in batch])
                self._on_batch(len(pixels))
                rows = await loop.run_in_executor(self._threads, self._embed, pixels)
            except Exception as error:  # whatever the network raises belongs to these requests
                for item in batch:
                    if not item.rows.done():
                        item.rows.set_exception(error)
                continue
            start = 0
            for item in batch:
                end = start + len(item.pixels)
                if not item.rows.done():
                    item.rows.set_result(rows[start:end])
                start = end

    async def _collect(self) -> list[_Item]:
        """The next batch: waits for the first crops, then for those that are being decoded."""
        while not self._items:
            await self._change()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.max_wait):
                while self._preparing and 0 < self.waiting < self.limits.max_batch:
                    await self._change()
        batch: list[_Item] = []
        later: list[_Item] = []
        size = 0
        while self._items and size < self.limits.max_batch:
            item = self._items.popleft()
            if item.rows.done():  # cancelled
                continue
            fits = size + len(item.pixels) <= self.limits.max_batch
            if fits and (not batch or batch[0].pixels.shape[1:] == item.pixels.shape[1:]):
                batch.append(item)
                size += len(item.pixels)
            else:
                later.append(item)
        self._items.extendleft(reversed(later))
        return batch

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
