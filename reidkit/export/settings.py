"""What is exported, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import Consumer, ExportInput, ExportOutputs, ExportPrecision
from reidkit.errors import ConfigError

OPSET = 16
"""The lowest opset that has all nodes of every network."""
MIN_OPSET, MAX_OPSET = 7, 30
MIN_IR, MAX_IR = 3, 20
"""Bounds of any use; which of them a network and the installed onnx can have is found on export."""

Feed = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""RGB crops of the network's size, uint8 [B, H, W, 3] or [B, T, H, W, 3] -> the graph's input."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Form of an exported file.

    Attributes:
        pixels: what the input contains (`module.ExportModule`).
        outputs: the L2-normalised embeddings alone, or the features before normalisation too, which
            averaging over mirrored images and clips needs.
        batch: fixed batch size; None: any.
        frames: fixed length of clips; None: any; 0: a network of clips takes single images.
        precision: of weights and arithmetic; the input and the outputs stay float32.
        opset: version of the operators.
        ir: version of the file format; None: the lowest one that `opset` needs, at least 8.
        input_name, output_name: of the images and the embeddings.
        consumer: the program that will load the file.
        tolerance: largest accepted change of mAP and rank-1, in points; None: `results.TOLERANCE`,
            for int8 `results.INT8_TOLERANCE` of mAP.

    Raises:
        ConfigError: a value is out of range.
    """

    pixels: ExportInput = "normalised"
    outputs: ExportOutputs = "embeddings,features"
    batch: int | None = None
    frames: int | None = None
    precision: ExportPrecision = "fp32"
    opset: int = OPSET
    ir: int | None = None
    input_name: str = "images"
    output_name: str = "embeddings"
    consumer: Consumer = "onnxruntime"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "frames"):
            value = getattr(self, name)
            least = 1 if name == "batch" else 0
            if value is not None and value < least:
                raise ConfigError(f"--{name}: found {value}, expected at least {least}")
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise ConfigError(
                f"--opset: found {self.opset}, expected {MIN_OPSET} to {MAX_OPSET}; {OPSET} has "
                "all that the networks need"
            )
        if self.ir is not None and not MIN_IR <= self.ir <= MAX_IR:
            raise ConfigError(f"--ir: found {self.ir}, expected {MIN_IR} to {MAX_IR}")
        names = [self.input_name, *self.output_names]
        if not all(name.strip() for name in names):
            raise ConfigError("--input-name and --output-name must not be empty")
        if len(set(names)) < len(names):
            raise ConfigError(f"input and outputs need different names, found {', '.join(names)}")

    @property
    def output_names(self) -> tuple[str, ...]:
        features = ("features",) if self.outputs == "embeddings,features" else ()
        return (self.output_name, *features)
