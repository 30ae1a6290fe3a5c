"""Embeddings of image files and tracklets."""

# B batch, T frames, H W pixels of the network's input, N images or tracklets, D embedding

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import ClipRule, ImageBackend
from reidkit.data.clips import clip_weight, test_clips
from reidkit.data.pixels import pixel_batches, read_pixels
from reidkit.runtime.crops import Runtime, as_embedder
from reidkit.runtime.embedder import Embedder
from reidkit.runtime.onnx_runtime import OnnxEmbedder

Task = TypeVar("Task")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""on_progress(done, total), in images or tracklets of this process."""


def embed_images(
    embedder: Embedder | Runtime,
    paths: Sequence[Path],
    *,
    flip: bool = False,
    batch: int | None = None,
    image_backend: ImageBackend = "pillow",
    on_progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embeddings of image files, in order: float32 [N, D], not L2-normalised.

    Args:
        flip: add the embedding of the mirrored image.
        batch: batch size; None: `default_batch`.
        image_backend: what decodes and resizes images (`data.pixels.image_reader`).

    Raises:
        DataError: at the first image that cannot be read.
    """
    embedder = as_embedder(embedder)
    if embedder.frames:
        clips = [[path] for path in paths]
        return embed_tracklets(
            embedder,
            clips,
            flip=flip,
            batch=batch,
            image_backend=image_backend,
            on_progress=on_progress,
        )
    step = batch or default_batch(embedder)
    batches = (_Batch(paths[start : start + step]) for start in range(0, len(paths), step))
    rows = np.empty((len(paths), 0), np.float32)
    done = 0
    for embeddings in _embed_batches(embedder, batches, flip, image_backend):
        if done == 0:
            # Written to, so that memory which is too small fails now, not after the last image
            rows = np.full((len(paths), embeddings.shape[1]), np.nan, np.float32)
        rows[done : done + len(embeddings)] = embeddings
        done += len(embeddings)
        if on_progress is not None:
            on_progress(done, len(paths))
    return rows


class _Clip(NamedTuple):
    """A clip to embed: the row of its tracklet, its frames, and its weight in the mean."""

    row: int
    frames: tuple[Path, ...]
    weight: float


def embed_tracklets(
    embedder: Embedder | Runtime,
    tracklets: Sequence[Sequence[Path]],
    *,
    clips: ClipRule = "tclnet",
    flip: bool = False,
    batch: int | None = None,
    image_backend: ImageBackend = "pillow",
    on_progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embeddings of tracklets, in order: float32 [N, D], the mean over their clips.

    Clips of all tracklets fill batches together, so memory depends on `batch` only and short
    tracklets waste nothing. The mean over embeddings equals the authors' mean over the vectors
    before the head's batch norm, which is affine in evaluation mode.

    Args:
        tracklets: paths of the frames of each one in order; an image is a tracklet of one frame.
        clips: how tracklets are divided (`data.clips.test_clips`); an image network embeds every
            frame on its own.
        batch: frames per batch; None: `default_batch`.
        image_backend: what decodes and resizes images (`data.pixels.image_reader`).

    Raises:
        DataError: at the first image that cannot be read.
    """
    embedder = as_embedder(embedder)
    T = embedder.frames or 1
    rule: ClipRule = clips
    if not embedder.frames and rule == "ap3d":
        rule = "tclnet"  # the mean over frames is the same

    def all_clips() -> Iterator[_Clip]:
        for row, tracklet in enumerate(tracklets):
            for clip in test_clips(len(tracklet), T=T, rule=rule):
                yield _Clip(row, tuple(tracklet[k] for k in clip), clip_weight(clip, rule))

    planned: deque[list[_Clip]] = deque()

    def clip_batches() -> Iterator[_Batch]:
        step = max(batch or default_batch(embedder), T)
        for group in _equal_lengths(all_clips(), frames=step):
            planned.append(group)
            frames = [path for clip in group for path in clip.frames]
            yield _Batch(frames, clips=len(group) if embedder.frames else None)

    sums: NDArray[np.float32] | None = None
    weights = np.zeros(len(tracklets), np.float32)
    for rows in _embed_batches(embedder, clip_batches(), flip, image_backend):
        group = planned.popleft()
        if sums is None:
            sums = np.full((len(tracklets), rows.shape[1]), 0, np.float32)  # as in embed_images
        owners = np.array([clip.row for clip in group])
        shares = np.array([clip.weight for clip in group], np.float32)
        np.add.at(sums, owners, rows * shares[:, None])
        np.add.at(weights, owners, shares)
        if on_progress is not None:
            on_progress(int(owners.max()), len(tracklets))
    if on_progress is not None:
        on_progress(len(tracklets), len(tracklets))
    return np.empty((0, 0), np.float32) if sums is None else sums / weights[:, None]


def _equal_lengths(clips: Iterable[_Clip], *, frames: int) -> Iterator[list[_Clip]]:
    """Groups of clips of equal length, each of at most `frames` frames."""
    waiting: dict[int, list[_Clip]] = {}
    for clip in clips:
        T = len(clip.frames)
        group = waiting.setdefault(T, [])
        group.append(clip)
        if (len(group) + 1) * T > frames:
            yield waiting.pop(T)
    yield from waiting.values()


class _Batch(NamedTuple):
    """Images to embed together: their paths in order, and the number of clips they form, if any."""

    paths: Sequence[Path]
    clips: int | None = None

    def arrange(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[B*T, H, W, 3] -> [B, T, H, W, 3] for clips; images stay."""
        return pixels if self.clips is None else pixels.reshape(self.clips, -1, *pixels.shape[1:])


def default_batch(embedder: Embedder) -> int:
    """Images or frames per batch: 64, or 16 where each thread decodes and embeds whole batches."""
    return 64 if embedder.concurrency == 1 or _has_binding(embedder) else 16


def _has_binding(embedder: Embedder) -> bool:
    """Whether a device computes, by ONNX Runtime, so that all cores are free to decode."""
    return isinstance(embedder, OnnxEmbedder) and embedder.binding is not None


def _embed_batches(
    embedder: Embedder, batches: Iterable[_Batch], flip: bool, image_backend: ImageBackend
) -> Iterator[NDArray[np.float32]]:
    """float32 [B, D] of each batch, in order, whatever the number of threads.

    Where several threads may call `embed` and the CPU computes, each of them decodes and embeds
    whole batches: no thread waits for another one, and at most one batch per thread is in memory.
    Otherwise all cores decode, for one thread or several that embed.
    """
    if embedder.concurrency > 1 and not _has_binding(embedder):

        def read_and_embed(batch: _Batch) -> NDArray[np.float32]:
            pixels = read_pixels(batch.paths, embedder.preprocess, image_backend)
            return _embed(embedder, batch.arrange(pixels), flip)

        yield from map_in_threads(read_and_embed, batches, embedder.concurrency)
        return
    planned: deque[_Batch] = deque()

    def paths() -> Iterator[Sequence[Path]]:
        for batch in batches:
            planned.append(batch)
            yield batch.paths

    def embed(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return _embed(embedder, pixels, flip)

    decoded = pixel_batches(paths(), embedder.preprocess, image_backend)
    arranged = (planned.popleft().arrange(pixels) for pixels in decoded)
    if embedder.concurrency == 1:
        yield from map(embed, arranged)
    else:
        yield from map_in_threads(embed, arranged, embedder.concurrency)


def map_in_threads(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int
) -> Iterator[Result]:
    """`work` on each task, in order, by several threads; at most two tasks of each are waiting."""
    in_flight: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for task in tasks:
            in_flight.append(pool.submit(work, task))
            if len(in_flight) > 2 * threads:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _embed(embedder: Embedder, pixels: NDArray[np.uint8], flip: bool) -> NDArray[np.float32]:
    embeddings = embedder.embed(pixels)
    if not flip:
        return embeddings
    return embeddings + embedder.embed(np.ascontiguousarray(pixels[..., ::-1, :]))
