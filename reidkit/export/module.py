"""The exported network: its input converted to the network's own, in one graph."""

# B batch, T frames, H W pixels, D embedding

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reidkit.choices import ExportInput
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess

if TYPE_CHECKING:
    from onnx import ModelProto

EXPORTER_OPSET = 18
"""The opset that torch's exporter writes by itself; others are converted from it."""


class ExportModule(nn.Module):
    """Images as a caller prepares them -> L2-normalised embeddings, and optionally the features
    before normalisation, each [B, D]. Averaging over mirrored images and clips needs the features.

    Args:
        preprocess: of the network.
        caller: what the caller applies: its channel order, and for "normalised" its mean and std.
        pixels: kind of the input: float32 [B, 3, H, W], or clips [B, T, 3, H, W], with values that
            are normalised, 0 to 1 or 0 to 255; or uint8 [B, H, W, 3] or [B, T, H, W, 3].
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: ReidModel,
        *,
        preprocess: Preprocess,
        caller: Preprocess,
        pixels: ExportInput = "normalised",
        features: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.pixels = pixels
        self.features = features
        self.reverses = caller.channels != preprocess.channels
        scale, shift = input_conversion(preprocess, caller, pixels)
        self.converts = not (torch.all(scale == 1) and torch.all(shift == 0))
        self.register_buffer("scale", scale.float())
        self.register_buffer("shift", shift.float())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.pixels == "uint8-nhwc":
            images = images.float().movedim(-1, -3)
        if self.reverses:
            images = torch.cat([images.narrow(-3, channel, 1) for channel in (2, 1, 0)], -3)
        if self.converts:
            images = images * self.scale + self.shift
        features = self.model.embed(images)
        # no F.normalize: it expands the norm, which some runtimes do not support
        norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        embeddings = features / norm.clamp_min(1e-12)
        return (embeddings, features) if self.features else (embeddings,)


def input_conversion(
    preprocess: Preprocess, caller: Preprocess, pixels: ExportInput
) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64 [3, 1, 1] in the network's channel order, from a caller's values to
    those the network takes. They are exactly 1 and 0 where the two are the same."""

    def channels(values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).view(3, 1, 1)

    mean, std = channels(preprocess.mean), channels(preprocess.std)
    if pixels == "normalised":
        given_mean, given_std = channels(caller.mean), channels(caller.std)
        if caller.channels != preprocess.channels:
            given_mean, given_std = given_mean.flip(0), given_std.flip(0)
    else:
        full = 1.0 if pixels == "0-1" else 255.0
        given_mean, given_std = torch.zeros_like(mean), torch.full_like(std, 1 / full)
    return given_std / std, (given_mean - mean) / std


def to_onnx(
    module: ExportModule,
    *,
    size: tuple[int, int],
    batch: int | None = None,
    clips: bool = False,
    frames: int | None = None,
    input_name: str = "images",
    output_names: tuple[str, ...] = ("embeddings", "features"),
) -> ModelProto:
    """The graph as torch's exporter writes it, of opset `EXPORTER_OPSET`.

    Args:
        batch, frames: fixed sizes; None for any.
        clips: whether the input has an axis of frames.
    """
    from onnxscript import opset18 as op

    def attention(query: Any, key: Any, value: Any, *, scale: float) -> Any:
        """[B, heads, N, D] without a mask; the exporter's own reshapes by computed sizes."""
        assert scale == 1.0, "the networks use no other"
        products = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
        return op.MatMul(op.Softmax(products, axis=-1), value)

    def floor_divide(index: Any, count: Any) -> Any:
        """Of indices, never negative; the exporter's own compares booleans, OpenCV 5 cannot."""
        return op.Div(index, count)

    last = (*size, 3) if module.pixels == "uint8-nhwc" else (3, *size)
    lengths = (frames or 3,) if clips else ()
    dtype = torch.uint8 if module.pixels == "uint8-nhwc" else torch.float32
    example = torch.zeros(batch or 2, *lengths, *last, dtype=dtype)
    free = {} if batch else {0: torch.export.Dim("batch", min=1)}
    if clips and not frames:
        free[1] = torch.export.Dim("frames", min=1)
    return trace(
        module,
        example,
        free,
        input_name=input_name,
        output_names=output_names,
        translations={
            torch.ops.aten.scaled_dot_product_attention.default: attention,
            torch.ops.aten.floor_divide.default: floor_divide,
        },
    )


def trace(
    module: nn.Module,
    example: Tensor,
    free: dict[int, Any],
    *,
    input_name: str,
    output_names: tuple[str, ...],
    translations: dict[Any, Any] | None = None,
) -> ModelProto:
    """The graph of a network of one input, of opset `EXPORTER_OPSET`.

    Args:
        example: of the input.
        free: axes of the input without a fixed size, with their `torch.export.Dim`.
        translations: of torch's operators, in place of the exporter's own.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _silence_exporter():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=EXPORTER_OPSET,
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_shapes=(free,),
            custom_translation_table=translations,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    return program.model_proto


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Silences the loggers that the exporter reports its progress through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
