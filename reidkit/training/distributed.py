"""Several processes, one training: started by torchrun, each with a slice of every batch.

    torchrun --nproc-per-node 4 -m reidkit train --dataset market1501

A recipe's batch is the global one. Batch norm sees all of it, hard triplets are mined in all of it,
and gradients are averaged, so that N processes compute what one would.
"""

# b local batch, C channels

from __future__ import annotations

import logging
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.runtime.distributed import ProcessGroup

log = logging.getLogger(__name__)
T = TypeVar("T")


def check_split(batch: int, samples_per_id: int, size: int) -> None:
    """Raises ConfigError unless `batch` falls into `size` equal parts of whole identities
    (`samples_per_id` is 1 where batches have none)."""
    if batch % (size * samples_per_id):
        groups = batch // samples_per_id
        fitting = [n for n in range(1, groups + 1) if groups % n == 0]
        raise ConfigError(
            f"a batch of {batch} in groups of {samples_per_id} cannot be split over {size} "
            f"processes. Start {', '.join(map(str, fitting))} processes, or take "
            f"--batch {size * samples_per_id * max(1, round(groups / size))}"
        )


def gather_rows(local: Tensor) -> Tensor:
    """The rows [b, ...] of all processes in the order of ranks: [size * b, ...]. The gradient of
    every process's loss flows back to the rows' owner."""
    gathered: Tensor = _GatherRows.apply(local)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, on any device; torch's own SyncBatchNorm is
    for CUDA alone. Batches are of equal size. Statistics are computed in float32."""

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() >= 2, "batch norm needs [b, C, ...]"

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x = input if input.dtype == torch.float64 else input.float()
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _sum(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(dims)) / count
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        return (normed * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def _sum(local: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(local)
    return total


def share_batch_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norms that see the whole batch; names and values of weights stay."""
    if device.type == "cuda":
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
        shared: nn.Module = convert(model)  # type: ignore[no-untyped-call]  # torch's stub
        return shared
    for name, child in model.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            assert child.affine and child.track_running_stats, "our networks have no others"
            norm = SharedBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            norm.weight, norm.bias = child.weight, child.bias
            norm.running_mean, norm.running_var = child.running_mean, child.running_var
            norm.num_batches_tracked = child.num_batches_tracked
            setattr(model, name, norm)
        else:
            share_batch_norms(child, device)
    return model


def wrap(model: nn.Module, device: torch.device, group: ProcessGroup) -> nn.Module:
    """The module to call in a training step: gradients are averaged over the group."""
    if group.size == 1:
        return model
    # not static_graph=True: it finds a network's outputs in tuples and dicts, not in ModelOutput,
    # and would leave the first step's gradients unaveraged
    ids = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids)
