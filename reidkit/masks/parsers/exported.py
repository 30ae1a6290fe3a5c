"""Parsers that reidkit exported to ONNX: the file states its test procedure."""

# B batch, C classes, h w of the network's input, n m of its scores

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reidkit.choices import ParserName
from reidkit.config.tables import from_table
from reidkit.errors import ConfigError
from reidkit.masks.labels import load_label_set
from reidkit.masks.parsers.base import Forward, ProcedureParser
from reidkit.masks.parsers.networks import ProcedureName, build_procedure
from reidkit.masks.parsers.onnx import run_session

METADATA = "reidkit_parser"
"""Key of the header, JSON, in the file's custom metadata."""
STRIDE = 8
"""JPPNet's inputs have sides of multiples of this; for others the padding in the file is wrong."""


@dataclass(frozen=True, kw_only=True)
class ParserHeader:
    """What an exported parser states of itself.

    Attributes:
        name: of the parser.
        procedure: its test procedure.
        label_set: name of its classes.
        size: side of the network's input at scale 1, in pixels.
        weights: digest of the network's weights.
        reidkit: version that exported it.
    """

    name: ParserName
    procedure: ProcedureName
    label_set: str
    size: int
    weights: str
    reidkit: str
    format: int = 1


def read_header(session: Any) -> ParserHeader | None:
    """The header of an ONNX Runtime session's file; None if reidkit did not export it as a parser.

    Raises:
        ConfigError: if it is malformed.
    """
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    if METADATA not in metadata:
        return None
    try:
        table = json.loads(metadata[METADATA])
    except ValueError:
        table = None
    if not isinstance(table, dict) or table.get("format") != 1:
        raise ConfigError(
            f"the parser's metadata {METADATA} is not what this version of reidkit writes. Export"
            " it again: reidkit masks export-parser"
        )
    return from_table(ParserHeader, table, where=f"the parser's metadata {METADATA}")


def open_exported(
    session: Any,
    header: ParserHeader,
    *,
    scales: tuple[float, ...] | None = None,
    mirror: bool | None = None,
    batch: int = 4,
) -> ProcedureParser:
    """The parser of an ONNX Runtime session whose file has this header.

    Args:
        scales, mirror: as in `open_parser`.
        batch: images per forward pass.

    Raises:
        ConfigError: if the options are impossible for this file.
    """
    labels = load_label_set(header.label_set)
    procedure = build_procedure(header.procedure, header.label_set, header.size)
    procedure = procedure.averaged(scales, mirror)
    side = session.get_inputs()[0].shape[2]
    for scale in procedure.scales:
        scaled = int(header.size * scale)
        if scaled % STRIDE if not isinstance(side, int) else scaled != side:
            expected = f"only {side}" if isinstance(side, int) else f"only multiples of {STRIDE}"
            raise ConfigError(
                f"this parser takes inputs of {expected} pixels a side; scale {scale:g} gives"
                f" {scaled}. Choose other --scales, or run the weights: --parser {header.name}"
            )
    return ProcedureParser(
        name=header.name,
        labels=labels,
        procedure=procedure,
        forward=session_forward(session),
        device=torch.device("cpu"),  # ONNX Runtime copies to its own device
        batch=batch,
        facts=(header.weights, "onnx"),
    )


def session_forward(session: Any) -> Forward:
    """A session of one input and one output as a function of tensors on the CPU."""

    def forward(images: Tensor) -> Tensor:
        (scores,) = run_session(session, None, images.contiguous().numpy())
        return torch.from_numpy(np.asarray(scores, np.float32))

    return forward
