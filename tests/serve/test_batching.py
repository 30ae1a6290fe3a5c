"""Micro-batching: a lone request is embedded at once, concurrent ones together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from fake_embedder import MeanColour
from numpy.typing import NDArray

from reidkit.serve.batching import Batcher, BatchLimits, QueueFull


def crops(count: int, value: int = 1, *, frames: int = 0) -> NDArray[np.uint8]:
    shape = (count, frames, 8, 4, 3) if frames else (count, 8, 4, 3)
    return np.full(shape, value, np.uint8)


def with_batcher(
    embedder: MeanColour, limits: BatchLimits, test: Callable[[Batcher], Awaitable[None]]
) -> None:
    """Runs `test` with a started batcher."""

    async def main() -> None:
        batcher = Batcher(embedder.embed, limits)
        batcher.start()
        try:
            await test(batcher)
        finally:
            embedder.release.set()
            await batcher.stop()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_lone_request_does_not_wait_for_others() -> None:
    async def test(batcher: Batcher) -> None:
        start = time.monotonic()
        rows = await batcher.embed(crops(1, 7))
        assert time.monotonic() - start < 30  # max_wait is a minute
        assert rows.tolist() == [[7, 7, 7]]

    with_batcher(MeanColour(), BatchLimits(max_wait=60), test)


def test_requests_that_arrive_during_a_batch_form_the_next_one() -> None:
    embedder = MeanColour()

    async def test(batcher: Batcher) -> None:
        embedder.release.clear()
        first = asyncio.create_task(batcher.embed(crops(1, 1)))
        await until(lambda: embedder.calls == 1)
        others = [asyncio.create_task(batcher.embed(crops(2, n))) for n in (2, 3, 4)]
        await until(lambda: batcher.waiting == 6)
        embedder.release.set()
        assert (await first).tolist() == [[1, 1, 1]]
        for n, task in zip((2, 3, 4), others, strict=True):
            assert (await task).tolist() == [[n, n, n]] * 2

    with_batcher(embedder, BatchLimits(), test)
    assert embedder.batches == [1, 6]


def test_a_batch_waits_for_requests_that_are_being_decoded() -> None:
    embedder = MeanColour()

    async def test(batcher: Batcher) -> None:
        with batcher.preparing():
            first = asyncio.create_task(batcher.embed(crops(1)))
            await asyncio.sleep(0.05)
            assert embedder.batches == []
            second = asyncio.create_task(batcher.embed(crops(2)))
            await asyncio.sleep(0)
        await asyncio.gather(first, second)

    with_batcher(embedder, BatchLimits(max_wait=60), test)
    assert embedder.batches == [3]


def test_a_batch_waits_no_longer_than_max_wait() -> None:
    embedder = MeanColour()

    async def test(batcher: Batcher) -> None:
        with batcher.preparing():
            await asyncio.wait_for(batcher.embed(crops(1)), 10)

    with_batcher(embedder, BatchLimits(max_wait=0.01), test)
    assert embedder.batches == [1]


def test_batches_never_exceed_their_limit_and_large_requests_are_divided() -> None:
    embedder = MeanColour()
    pixels = np.concatenate([crops(1, n) for n in range(10)])

    async def test(batcher: Batcher) -> None:
        rows = await batcher.embed(pixels)
        assert rows[:, 0].tolist() == list(range(10))

    with_batcher(embedder, BatchLimits(max_batch=4), test)
    assert embedder.batches == [4, 4, 2]


def test_clips_of_different_lengths_are_embedded_apart() -> None:
    embedder = MeanColour(frames=2)

    async def test(batcher: Batcher) -> None:
        embedder.release.clear()
        tasks = [
            asyncio.create_task(batcher.embed(crops(1, n, frames=frames)))
            for n, frames in ((1, 2), (2, 3), (3, 2))
        ]
        await until(lambda: embedder.calls == 1)
        embedder.release.set()
        assert [rows[0, 0] for rows in await asyncio.gather(*tasks)] == [1, 2, 3]

    with_batcher(embedder, BatchLimits(), test)
    assert sorted(embedder.batches) == [1, 2]


def test_a_full_queue_is_refused() -> None:
    embedder = MeanColour()

    async def test(batcher: Batcher) -> None:
        embedder.release.clear()
        first = asyncio.create_task(batcher.embed(crops(1)))
        await until(lambda: embedder.calls == 1)
        second = asyncio.create_task(batcher.embed(crops(3)))
        await until(lambda: batcher.waiting == 3)
        with pytest.raises(QueueFull):
            await batcher.embed(crops(2))
        embedder.release.set()
        await asyncio.gather(first, second)

    with_batcher(embedder, BatchLimits(max_queue=4), test)


def test_cancelled_requests_are_not_embedded() -> None:
    embedder = MeanColour()

    async def test(batcher: Batcher) -> None:
        embedder.release.clear()
        first = asyncio.create_task(batcher.embed(crops(1)))
        await until(lambda: embedder.calls == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.embed(crops(3)), 0.01)
        embedder.release.set()
        await first
        await batcher.embed(crops(2))

    with_batcher(embedder, BatchLimits(), test)
    assert embedder.batches == [1, 2]


def test_an_error_of_the_network_belongs_to_its_requests_only() -> None:
    embedder = MeanColour()

    async def test(batcher: Batcher) -> None:
        with pytest.raises(AssertionError):
            await batcher.embed(np.zeros((1, 9, 9, 3), np.uint8))
        assert (await batcher.embed(crops(1))).shape == (1, 3)

    with_batcher(embedder, BatchLimits(), test)
