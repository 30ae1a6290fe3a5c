"""Float32 matrix products, and the faster of the two that PyTorch offers on a CPU.

`torch.mm` runs MKL's kernel, which on some AMD processors reaches less than half of what oneDNN
does. PyTorch has no switch that sends a plain float32 product to oneDNN: `torch.backends.mkldnn`
and `set_float32_matmul_precision` do it only together with bfloat16 or TF32 arithmetic, which
costs three digits (an error of 3e-4 on unit vectors against 7e-8). A 1x1 convolution of the same
numbers, though, is oneDNN's by default, in full float32. `fastest_product` times both and takes
the convolution only where it wins clearly; on the Intel Xeon it was written on (AVX-512) it does
not: 308 GFLOP/s for `mm`, 220 to 300 for convolutions and for mkldnn tensors.
"""

# B rows, C columns, D embedding

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor, Tensor, Tensor], None]
"""product(rows [B, D], columns [C, D], out [B, C]) writes rows @ columns.T into `out`."""

WORTH_TIMING = 5 * 10**10
"""Multiply-adds from which the timing (about 50 ms) is repaid many times over."""

_CLEARLY = 1.5
_AT_A_TIME = 4096  # columns: the convolution copies them into a layout of its own


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in float32 proper, whatever `torch.set_float32_matmul_precision` allows.

    Training may allow "medium", which costs both kernels four digits, and ranks with them.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody set precision per backend, which this function cannot tell
        with _full_precision_of_backends():
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _full_precision_of_backends() -> Iterator[None]:
    mkldnn: Any = torch.backends.mkldnn
    switches = (torch.backends.cuda.matmul, mkldnn.matmul, mkldnn.conv)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


def multiply(rows: Tensor, columns: Tensor, out: Tensor) -> None:
    """The product by `torch.mm`: MKL on x86, cuBLAS on a GPU. In full float32, always."""
    with full_precision():
        torch.mm(rows, columns.T, out=out)


def convolve(rows: Tensor, columns: Tensor, out: Tensor) -> None:
    """The same by oneDNN: rows are pixels, D is channels, columns are 1x1 filters."""
    B, D = rows.shape
    image = rows.reshape(1, B, 1, D).permute(0, 3, 1, 2)  # [1, D, B, 1], channels last
    for start in range(0, len(columns), _AT_A_TIME):
        filters = columns[start : start + _AT_A_TIME].reshape(-1, D, 1, 1)
        with full_precision():
            made = functional.conv2d(image, filters)  # [1, C, B, 1]
        out[:, start : start + _AT_A_TIME] = made[0, :, :, 0].T


def pick_product(products: int, D: int, device: torch.device) -> Product:
    """The product to use for a job of so many multiply-adds on vectors of length D.

    The choice is the processor's and stays the same from run to run unless the two kernels are
    about `_CLEARLY` apart; they differ in the last bits of float32.
    """
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
    if device.type != "cpu" or products < WORTH_TIMING or not available:
        return multiply
    return fastest_product(D, torch.get_num_threads())


@lru_cache
def fastest_product(D: int, threads: int) -> Product:
    """`convolve` where it is at least 1.5 times as fast as `multiply`, which it is not otherwise.

    Args:
        threads: as torch has now; the answer may depend on it.
    """
    rows, columns, out = torch.ones(256, D), torch.ones(2048, D), torch.empty(256, 2048)
    best = {multiply: float("inf"), convolve: float("inf")}
    for _ in range(5):  # in turns: other work on the machine meets both
        for product in best:
            began = time.perf_counter()
            product(rows, columns, out)
            best[product] = min(best[product], time.perf_counter() - began)
    return convolve if best[multiply] > _CLEARLY * best[convolve] else multiply
