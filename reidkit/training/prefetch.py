"""Batches on their device before they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reidkit.data.loading import RawBatch, TrainImages
from reidkit.types import Batch


def on_device(
    raw_batches: Iterator[RawBatch], images: TrainImages, device: torch.device
) -> Iterator[tuple[RawBatch, Batch]]:
    """Every batch, normalised and erased on `device`, beside what the workers made.

    On CUDA the next batch is copied and finished on a stream of its own while the present one is
    trained on; the host waits for neither.
    """
    if device.type != "cuda":
        for raw in raw_batches:
            yield raw, images.finish(raw, device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stub

    def ahead() -> tuple[RawBatch, Batch] | None:
        raw = next(raw_batches, None)
        if raw is None:
            return None
        with torch.cuda.stream(stream):
            return raw, images.finish(raw, device)

    following = ahead()
    while following is not None:
        here = torch.cuda.current_stream(device)
        here.wait_stream(stream)
        raw, batch = following
        for tensor in (batch.images, batch.labels, batch.camids, batch.masks):
            if tensor is not None:
                tensor.record_stream(here)
        following = ahead()
        yield raw, batch
