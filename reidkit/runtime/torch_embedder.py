"""Embedding by a PyTorch network."""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reidkit.device import MIN_BF16_SIDE, full_float32, has_native_bf16, has_wrong_bf16
from reidkit.errors import ConfigError, RuntimeMissing
from reidkit.preprocess import Preprocess
from reidkit.runtime.execution import Execution

if TYPE_CHECKING:
    from reidkit.models.base import ReidModel

log = logging.getLogger(__name__)

MIN_COSINE = {"fp32": 0.9999, "bf16": 0.99}
"""Bounds on the cosine with plain float32, of the first batch, by precision."""

CHECKED_IMAGES = 8

CPU_IMAGES = 8
"""Images or frames that a CPU computes at once. 64 at once take ResNet-50 1.6 to 2.1 times as long:
the system hands out and takes back the memory of every layer."""


class TorchEmbedder:
    """A PyTorch network; it embeds in evaluation mode and returns to the mode it was in. See
    `embedder.Embedder`.

    With another precision than float32, or compiled, the first images are also embedded plainly and
    compared.

    Args:
        execution: precision and compilation; None: as evaluation during training, on channels-last
            images. With an `Execution`, images on the CPU are contiguous [B, 3, H, W]: oneDNN takes
            0.6 to 0.9 of the time, and L2-normalised embeddings differ by 2e-7. On CUDA the weights
            become channels-last as well.

    Raises:
        ConfigError: if the device is not right for the precision.
    """

    concurrency = 1  # PyTorch has threads of its own

    def __init__(
        self,
        model: ReidModel,
        *,
        preprocess: Preprocess,
        device: torch.device,
        name: str = "network",
        source_hash: str = "",
        frames: int = 0,
        execution: Execution | None = None,
    ) -> None:
        self._contiguous = execution is not None and device.type == "cpu"
        self.model = model.to(device)
        if execution is not None and device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)
        execution = execution or Execution()
        self.preprocess = preprocess
        self.device = device
        self.name = name
        self.source_hash = source_hash
        self.frames = frames
        self.precision = execution.precision
        self.checked = self.precision == "fp32" and not execution.compile
        if self.precision == "bf16":
            _check_bf16(device, preprocess.size)
        self._forward = torch.compile(model.embed) if execution.compile else None

    @property
    def dimension(self) -> int:
        """D."""
        return self.model.embedding_dim

    @property
    def description(self) -> str:
        """Device and precision in one line."""
        parts = [f"PyTorch {torch.__version__}", str(self.device)]
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            parts.append(f"{threads} thread{'s' if threads > 1 else ''}")
        parts.append(self.precision)
        if self._forward is not None:
            parts.append("compiled")
        return f"{self.name}: {', '.join(parts)}"

    def images(self, pixels: NDArray[np.uint8]) -> Tensor:
        """uint8 [B, H, W, 3], or clips [B, T, H, W, 3] -> normalised float32 [B, 3, H, W], or
        [B, T, 3, H, W], on the device."""
        flat = torch.from_numpy(pixels).flatten(0, -4)  # [B*T, H, W, 3]
        if self.device.type == "cuda":
            # From page-locked memory, that torch reuses: the copy needs no wait
            flat = flat.pin_memory().to(self.device, non_blocking=True)
        images = self.preprocess.normalise(flat)
        if self._contiguous:
            images = images.contiguous()
        return images.reshape(*pixels.shape[:-3], *images.shape[1:])

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [B, D] of normalised images or clips, compiled if that was chosen."""
        if self._forward is None:
            return self.model.embed(images)
        # Compiled once for all batch sizes and lengths of clips. torch.compile would compile again
        # for a batch of one, as for every dimension of size 1.
        B = len(images)
        images = images if B > 1 else torch.cat([images, images])
        for dimension in range(images.ndim - 3):
            torch._dynamo.maybe_mark_dynamic(images, dimension)
        return self._forward(images)[:B]

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The network in evaluation mode and in the chosen precision, without gradients."""
        was_training = self.model.training
        self.model.eval()
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        try:
            with torch.inference_mode(), bf16, full_float32():
                yield
        finally:
            self.model.train(was_training)

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `embedder.Embedder`.

        Raises:
            ConfigError: if the first embeddings are not those of plain float32.
            RuntimeMissing: if the network cannot be compiled.
        """
        if len(pixels) == 0:
            return np.empty((0, self.dimension), np.float32)
        with self.evaluating():
            rows = [self._embed(part) for part in np.array_split(pixels, self._parts(pixels))]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _parts(self, pixels: NDArray[np.uint8]) -> int:
        """The number of equal parts in which images or clips are computed."""
        if self.device.type != "cpu":
            return 1
        frames = math.prod(pixels.shape[:-3])
        return min(len(pixels), math.ceil(frames / CPU_IMAGES))

    def _embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = self.images(pixels)
        if not self.checked:
            self._check(images[:CHECKED_IMAGES])
        found: NDArray[np.float32] = self.forward(images).float().cpu().numpy()
        return found

    def _check(self, images: Tensor) -> None:
        """Compares with plain float32."""
        chosen = "--compile" if self.precision == "fp32" else f"--precision {self.precision}"
        try:
            found = self.forward(images).float()
        except Exception as error:  # torch._dynamo's and torch._inductor's share no base class
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().splitlines()[0]
            raise RuntimeMissing(
                f"--compile: torch.compile failed: {reason}. It needs a C++ compiler (g++) on the "
                "CPU. Leave --compile out"
            ) from error
        with torch.autocast(self.device.type, enabled=False):
            expected = self.model.embed(images)
        cosine = F.cosine_similarity(found, expected).min().item()
        bound = MIN_COSINE[self.precision]
        if not cosine >= bound:  # NaN is below every bound
            raise ConfigError(
                f"{chosen}: embeddings of the first images have cosine {cosine:.4f} with plain "
                f"float32's, expected at least {bound}. Leave {chosen} out"
            )
        log.info("%s: cosine with plain float32 at least %.5f", chosen, cosine)
        self.checked = True


def _check_bf16(device: torch.device, size: tuple[int, int]) -> None:
    if not has_native_bf16(device):
        raise ConfigError(f"--precision bf16: {device} has no bf16 instructions. Use fp32")
    if has_wrong_bf16(device, size):
        raise ConfigError(
            f"--precision bf16: oneDNN's bf16 convolutions are wrong on this CPU for images below "
            f"{MIN_BF16_SIDE} pixels. Use fp32"
        )
