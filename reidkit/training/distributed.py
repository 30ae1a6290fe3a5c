"""Data-parallel training under torchrun: N processes compute what one would.

The configured batch size is the global one. Batch norm sees the whole batch, triplets are mined in
the whole batch, and gradients are averaged.
"""

# b local batch, C channels

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.runtime.distributed import ProcessGroup


def check_divisible(batch: int, samples_per_id: int, size: int) -> None:
    """Raises ConfigError unless `batch` splits into `size` equal parts of whole identities
    (`samples_per_id` is 1 where batches are not grouped by identity)."""
    if batch % (size * samples_per_id):
        identities = batch // samples_per_id
        divisors = [n for n in range(1, identities + 1) if identities % n == 0]
        raise ConfigError(
            f"a batch of {batch} with {samples_per_id} samples per identity cannot be split over "
            f"{size} processes. Use {', '.join(map(str, divisors))} processes, or "
            f"--batch {size * samples_per_id * max(1, round(identities / size))}"
        )


def gather_rows(local: Tensor) -> Tensor:
    """Rows [b, ...] of all processes in order of rank: [size * b, ...]. The gradient of every
    process's loss flows back to the process that owns the rows."""
    gathered = dist_nn.all_gather(local.contiguous())  # type: ignore[no-untyped-call]  # torch's
    return torch.cat(gathered)


def _sum(local: Tensor) -> Tensor:
    """The sum over all processes, with its gradient."""
    total: Tensor = dist_nn.all_reduce(local)  # type: ignore[no-untyped-call]  # torch's
    return total


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, on any device; torch's SyncBatchNorm runs on
    CUDA only. Local batches have equal size. Statistics are computed in float32."""

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
        self._update_running_stats(mean.detach(), variance.detach() * count / (count - 1))
        return (normed * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def convert_batch_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms over the global batch; names and values of weights stay."""
    if device.type == "cuda":
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
        converted: nn.Module = convert(model)  # type: ignore[no-untyped-call]  # torch's stub
        return converted
    for name, child in model.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            assert child.affine and child.track_running_stats, "our networks have no others"
            norm = GlobalBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            norm.weight, norm.bias = child.weight, child.bias
            norm.running_mean, norm.running_var = child.running_mean, child.running_var
            norm.num_batches_tracked = child.num_batches_tracked
            setattr(model, name, norm)
        else:
            convert_batch_norms(child, device)
    return model


def wrap(model: nn.Module, device: torch.device, group: ProcessGroup) -> nn.Module:
    """The module that a training step calls; gradients are averaged over the group."""
    if group.size == 1:
        return model
    # not static_graph=True: it finds outputs in tuples and dicts only, not in ModelOutput, and
    # would leave the first step's gradients unaveraged
    ids = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids)
