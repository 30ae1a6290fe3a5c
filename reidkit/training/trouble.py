"""What is said when a step goes wrong: where a loss stopped being finite, which batch fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reidkit.errors import ReidkitError
from reidkit.types import Batch, ModelOutput


class NotFinite(ReidkitError):
    """A loss is NaN or infinite: the settings must change."""


class OutOfMemory(ReidkitError):
    """A batch does not fit the device."""


def not_finite_message(
    *, epoch: int, step: int, losses: dict[str, float], paths: Sequence[str], began: str
) -> str:
    values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return (
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1} ({values}); {began}. "
        f"The batch: {', '.join(paths[:3])}{more}. Lower optim.lr or train with --precision fp32"
    )


@torch.no_grad()
def first_nonfinite_layer(forward: Callable[[], ModelOutput], model: nn.Module) -> str:
    """Runs a batch again and names the first layer whose output is not finite, or whose weights
    are not."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                weights = all(torch.isfinite(p).all() for p in module.parameters())
                kind = type(module).__name__
                found.append(
                    f"it began in {name} ({kind})"
                    + ("" if weights else ", whose weights are not finite any more")
                )

        return hook

    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "every layer's output is finite, so it began in the loss"


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's and the CPU allocator's ways of saying so."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def fitting_batch(attempt: Callable[[int], None], batch: int, *, multiple: int) -> int | None:
    """The largest batch below `batch` that `attempt` gets through, found by halving: a multiple of
    `multiple`, or None."""
    size = batch // 2 // multiple * multiple
    while size >= multiple:
        try:
            attempt(size)
            return size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = size // 2 // multiple * multiple
    return None


def out_of_memory_message(batch: int, fits: int | None, lr: float, device: torch.device) -> str:
    advice = "Use a smaller --size, or a smaller arch.backbone"
    if fits is not None:
        scaled = lr * fits / batch
        advice = (
            f"A batch of {fits} fits: --batch {fits} --lr {scaled:.3g} (scaled with it; the "
            "published results belong to the larger one)"
        )
    return f"a batch of {batch} does not fit the memory of {device}. {advice}"


def first_rows(batch: Batch, count: int, device: torch.device) -> Batch:
    """The batch's first samples, on `device`."""
    masks = None if batch.masks is None else batch.masks[:count].to(device)
    images, labels, camids = (
        x[:count].to(device) for x in (batch.images, batch.labels, batch.camids)
    )
    return Batch(images, labels, camids, masks)
