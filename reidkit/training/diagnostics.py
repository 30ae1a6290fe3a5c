"""What went wrong in a training step: where a loss stopped being finite, and which batch fits."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reidkit.data.sampler import SampleKey
from reidkit.errors import ReidkitError
from reidkit.types import Batch, ModelOutput

if TYPE_CHECKING:
    from reidkit.training.trainer import Trainer


class NonFiniteLoss(ReidkitError):
    """A loss is NaN or infinite: the settings must change."""


class OutOfMemory(ReidkitError):
    """A batch does not fit the device."""


class LostWorker(ReidkitError):
    """A data loading process ended before the run."""


class NonFiniteStep(Exception):
    """The loss of a step was not finite; `explain_failures` finds out why."""

    def __init__(self, step: int, losses: dict[str, float]) -> None:
        super().__init__(step)
        self.step = step
        self.losses = losses


@contextmanager
def explain_failures(trainer: Trainer, epoch: int) -> Iterator[None]:
    """Turns a non-finite loss and a lack of memory within an epoch into messages that say what to
    change.

    Raises:
        NonFiniteLoss, OutOfMemory
    """
    try:
        yield
    except NonFiniteStep as failed:
        keys = _local_keys(trainer, epoch, failed.step)
        raise NonFiniteLoss(
            non_finite_message(
                epoch=epoch,
                step=failed.step,
                losses=failed.losses,
                paths=[trainer.images.path(key) for key in keys],
                origin=_find_origin(trainer, keys),
            )
        ) from failed
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # frees the failed step's tensors
        fits = _find_batch_that_fits(trainer, epoch)
        batch, lr = trainer.config.sampler.batch, trainer.config.optim.lr
        raise OutOfMemory(out_of_memory_message(batch, fits, lr, trainer.device)) from error


def check_finite(losses: dict[str, Tensor], step: int) -> None:
    """Raises NonFiniteStep if the total loss of a step is not finite."""
    if not torch.isfinite(losses["total"]):
        raise NonFiniteStep(step, {name: value.item() for name, value in losses.items()})


def _local_keys(trainer: Trainer, epoch: int, step: int) -> list[SampleKey]:
    return list(trainer.group.shard(trainer.batches().epoch(epoch)[step]))


def _find_origin(trainer: Trainer, keys: list[SampleKey]) -> str:
    if trainer.group.size > 1:
        return "its origin was not searched for, because the other processes are waiting"
    batch = trainer.images.finish(trainer.images.batch(keys), trainer.device)
    model = trainer.state.model.train()
    return first_nonfinite_layer(lambda: trainer.forward(batch.images), model)


def _find_batch_that_fits(trainer: Trainer, epoch: int) -> int | None:
    if trainer.group.size > 1:
        return None
    sampler = trainer.config.sampler
    trainer.state.optimizer.zero_grad(set_to_none=True)
    raw = trainer.images.batch(_local_keys(trainer, epoch, 0))
    host = trainer.images.finish(raw, torch.device("cpu"))

    def attempt(count: int) -> None:
        try:
            _, losses = trainer.losses(first_rows(host, count, trainer.device))
            losses["total"].backward()  # type: ignore[no-untyped-call]  # torch's stub
        finally:
            trainer.state.optimizer.zero_grad(set_to_none=True)

    multiple = 2 if sampler.kind == "shuffle" else sampler.samples_per_id
    return fitting_batch(attempt, sampler.batch, multiple=multiple)


def non_finite_message(
    *, epoch: int, step: int, losses: dict[str, float], paths: Sequence[str], origin: str
) -> str:
    values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return (
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1} ({values}); {origin}. "
        f"Images: {', '.join(paths[:3])}{more}. Lower the learning rate (--lr), or use "
        "--precision fp32"
    )


@torch.no_grad()
def first_nonfinite_layer(forward: Callable[[], ModelOutput], model: nn.Module) -> str:
    """Repeats a forward pass and names the first layer whose output is not finite, and whether its
    weights are."""
    found: list[str] = []

    def check(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
            finite_weights = all(torch.isfinite(p).all() for p in module.parameters())
            found.append(
                f"the first non-finite output is that of {name} ({type(module).__name__})"
                + ("" if finite_weights else ", whose weights are not finite")
            )

    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(partial(check, name)) for name, module in leaves]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "every layer's output is finite, so the loss itself is the cause"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is CUDA's or the CPU allocator's lack of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def is_lost_worker(error: RuntimeError) -> bool:
    """Whether an error is torch's about a data loading process that has ended."""
    return str(error).startswith("DataLoader worker")


def lost_worker_message(folder: Path) -> str:
    return (
        "a data loading process was killed, which the system does when memory runs out. Resume, "
        f"with fewer of them if it happens again: reidkit train --resume -o "
        f"{shlex.quote(str(folder))} --workers 1"
    )


def fitting_batch(attempt: Callable[[int], None], batch: int, *, multiple: int) -> int | None:
    """The largest batch size below `batch` for which `attempt` succeeds, found by halving: a
    multiple of `multiple`, or None."""
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
            f"A batch of {fits} fits: --batch {fits} --lr {scaled:.3g} (the learning rate scaled "
            "in proportion; published results belong to the larger batch)"
        )
    return f"a batch of {batch} does not fit the memory of {device}. {advice}"


def first_rows(batch: Batch, count: int, device: torch.device) -> Batch:
    """The batch's first samples, on `device`."""
    masks = None if batch.masks is None else batch.masks[:count].to(device)
    sizes = None if batch.mask_sizes is None else batch.mask_sizes[:count]
    images, labels, camids = (
        x[:count].to(device) for x in (batch.images, batch.labels, batch.camids)
    )
    return Batch(images, labels, camids, masks, sizes)


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: of tensors on a CUDA device, or of this process (0 where the system does
    not report it)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
