"""Export of a human parser to ONNX, verified: the file must give PyTorch's scores before it is
written."""

# B batch, C classes, N side of the network's input, n of its scores

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from onnx import ModelProto, checker, helper, save
from torch import nn

import reidkit
from reidkit.choices import ParserName
from reidkit.errors import ReidkitError
from reidkit.export.graph import clean, set_ir
from reidkit.export.module import trace
from reidkit.files import atomic
from reidkit.masks.parsers.exported import METADATA, STRIDE, ParserHeader, session_forward
from reidkit.masks.parsers.networks import PARSERS, weights_hash
from reidkit.masks.parsers.normalization import fold_batch_norm
from reidkit.runtime.onnx_session import open_session

MAX_ERROR = 1e-3
"""Of a score, relative to the largest."""

Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""


@dataclass(frozen=True)
class ParserParity:
    """How ONNX Runtime's scores compare with PyTorch's at one shape of the input.

    Attributes:
        batch: size of the batch.
        side: of the input in pixels.
        error: the largest absolute difference over the largest absolute score.
        agreement: share of cells whose highest score has the same label.
    """

    batch: int
    side: int
    error: float
    agreement: float

    @property
    def passed(self) -> bool:
        return self.error <= MAX_ERROR


def export_parser_onnx(
    name: ParserName,
    weights: Path,
    target: Path,
    *,
    on_progress: Progress = lambda stage, done, total: None,
) -> list[ParserParity]:
    """Exports a parser with the weights of a published checkpoint to `target`, and verifies it
    before `target` is written.

    The file holds the network, float32, from the normalised input `images` [batch, 3, N, N] to
    `scores` [batch, C, n, n], and states its test procedure, which `--parser FILE.onnx` follows.
    SCHP's input has a fixed size; JPPNet's sides are any multiples of 8.

    Args:
        weights: as for `open_parser`.
        on_progress: receives (stage, done, total).
    Returns:
        the comparison with PyTorch at several shapes, all within `MAX_ERROR`.
    Raises:
        CheckpointError: as `open_parser`.
        ReidkitError: if ONNX Runtime's scores differ from PyTorch's, or `target` cannot be written;
            nothing is written then.
    """
    parser = PARSERS[name]
    network = parser.load(weights)
    header = ParserHeader(
        name=name,
        procedure=parser.procedure,
        label_set=parser.label_set,
        size=parser.size,
        weights=weights_hash(network),
        reidkit=reidkit.__version__,
    )
    return export_network(network, header, target, on_progress=on_progress)


def export_network(
    network: nn.Module,
    header: ParserHeader,
    target: Path,
    *,
    on_progress: Progress = lambda stage, done, total: None,
) -> list[ParserParity]:
    """As `export_parser_onnx`, of a network [B, 3, N, N] -> [B, C, n, n]."""
    has_one_size = header.procedure == "schp"
    folded = fold_batch_norm(network)
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if not has_one_size:
        for axis, side in ((2, "height"), (3, "width")):
            dynamic[axis] = STRIDE * torch.export.Dim(f"{side}_{STRIDE}th", min=4, max=512)
    on_progress("exporting", 0, 1)
    with atomic(target) as partial:
        proto = _exported(folded, torch.zeros(2, 3, header.size, header.size), dynamic)
        helper.set_model_props(proto, {METADATA: json.dumps(dataclasses.asdict(header))})
        checker.check_model(proto)
        save(proto, partial)
        on_progress("exporting", 1, 1)
        smaller = header.size if has_one_size else header.size * 3 // 4 // STRIDE * STRIDE
        parities = _compare(folded, partial, [(1, header.size), (3, smaller)], on_progress)
        for parity in parities:
            if not parity.passed:
                raise ReidkitError(
                    f"the export of {header.name} failed its verification: for a batch of"
                    f" {parity.batch} at {parity.side}x{parity.side} pixels a score differs by"
                    f" {parity.error:.1e} of the largest, expected at most {MAX_ERROR:.0e}."
                    f" {target} was not written"
                )
    return parities


def _exported(network: nn.Module, example: torch.Tensor, dynamic: dict[int, Any]) -> ModelProto:
    proto = trace(network, example, dynamic, input_name="images", output_names=("scores",))
    clean(proto)
    set_ir(proto, None)
    return proto


def _compare(
    network: nn.Module, path: Path, shapes: list[tuple[int, int]], on_progress: Progress
) -> list[ParserParity]:
    """PyTorch and ONNX Runtime on the same smooth random images, for each shape (batch, side)."""
    forward = session_forward(open_session(path, "cpu"))
    generator = torch.Generator().manual_seed(0)
    parities: list[ParserParity] = []
    for batch, side in shapes:
        on_progress("verifying", len(parities), len(shapes))
        coarse = torch.randn(batch, 3, 24, 24, generator=generator)
        images = F.interpolate(coarse, (side, side), mode="bicubic")
        with torch.inference_mode():
            expected = network(images)
        found = forward(images)
        parities.append(
            ParserParity(
                batch=batch,
                side=side,
                error=((found - expected).abs().max() / expected.abs().max()).item(),
                agreement=(found.argmax(1) == expected.argmax(1)).double().mean().item(),
            )
        )
    on_progress("verifying", len(shapes), len(shapes))
    return parities
