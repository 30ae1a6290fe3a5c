"""Parsers by name: a published checkpoint, its network and its test procedure, on PyTorch."""

# B batch, H W pixels of an image

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from reidkit.choices import ParserName, ParserPrecision
from reidkit.device import has_native_bf16, torch_device
from reidkit.masks.labels import load_label_set
from reidkit.masks.parsers.base import Forward, Procedure, ProcedureParser
from reidkit.masks.parsers.jppnet import JppnetProcedure
from reidkit.masks.parsers.normalization import fold_batch_norm
from reidkit.masks.parsers.schp import SchpProcedure
from reidkit.masks.parsers.weights import load_jppnet, load_schp

log = logging.getLogger(__name__)

ProcedureName = Literal["schp", "jppnet"]
GPU_BATCHES = 4
"""A GPU gets this many times the batch of a CPU."""


@dataclass(frozen=True)
class PublishedParser:
    """What a parser's name stands for.

    Attributes:
        label_set: name of its classes.
        procedure: name of its test procedure.
        size: side of the network's input.
        batch: images per forward pass on a CPU.
        load: from the path of the authors' checkpoint to the network.
    """

    label_set: str
    procedure: ProcedureName
    size: int
    batch: int
    load: Callable[[Path], nn.Module]


PARSERS: dict[ParserName, PublishedParser] = {
    "jppnet": PublishedParser("lip", "jppnet", 384, 2, load_jppnet),
    "schp-lip": PublishedParser("lip", "schp", 473, 4, lambda path: load_schp(path, 20)),
    "schp-atr": PublishedParser("atr", "schp", 512, 4, lambda path: load_schp(path, 18)),
    "schp-pascal": PublishedParser(
        "pascal-person-part", "schp", 512, 4, lambda path: load_schp(path, 7)
    ),
}


def open_parser(
    name: ParserName,
    weights: Path,
    *,
    device: str = "auto",
    scales: tuple[float, ...] | None = None,
    mirror: bool | None = None,
    precision: ParserPrecision = "fp32",
    batch: int | None = None,
) -> ProcedureParser:
    """The parser `name` with the weights of a published checkpoint.

    Args:
        weights: SCHP: the .pth file. JPPNet: the folder JPPNet-s2, the .index file in it, or the
            prefix of its files.
        device: auto, cpu, cuda or cuda:N.
        scales: of the network's input size; scores are averaged over them. Default: the authors'.
        mirror: average with the mirrored image, left and right labels swapped. Default: the
            authors' choice.
        precision: of the network; fp32 is the authors', auto is bf16 where the device computes it
            natively.
        batch: images per forward pass. Default: by network and device.

    Raises:
        CheckpointError: if the file cannot be read, is damaged, or is of another network or label
            set.
        ConfigError: if scales or batch are impossible.
        RuntimeMissing: if the device is not available.
    """
    parser = PARSERS[name]
    procedure = build_procedure(parser.procedure, parser.label_set, parser.size)
    procedure = procedure.averaged(scales, mirror)
    found = torch_device(device)
    network = parser.load(weights)
    arithmetic = _resolve(precision, found)

    def exact() -> Forward:
        return torch_forward(parser.load(weights), found, "fp32")

    if batch is None:
        batch = parser.batch * (GPU_BATCHES if found.type == "cuda" else 1)
    return ProcedureParser(
        name=name,
        labels=load_label_set(parser.label_set),
        procedure=procedure,
        forward=torch_forward(network, found, arithmetic),
        device=found,
        batch=batch,
        facts=(weights_hash(network), arithmetic),
        exact=None if arithmetic == "fp32" else exact,
    )


def build_procedure(name: ProcedureName, label_set: str, size: int) -> Procedure:
    """The authors' test procedure.

    Args:
        label_set: name of the network's classes, whose left and right swap in a mirrored image.
        size: side of the network's input in pixels.
    """
    swap = tuple(load_label_set(label_set).mirrored)
    if name == "jppnet":
        return JppnetProcedure(swap=swap, size=size)
    return SchpProcedure(swap=swap, size=size)


def torch_forward(
    network: nn.Module, device: torch.device, precision: Literal["fp32", "bf16"]
) -> Forward:
    """A network as a function, made fast: batch normalisation folded into the convolutions,
    channels last in memory, and in bf16 if `precision` is. Its weights are copied."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    folded = fold_batch_norm(network).to(device, dtype)
    folded = folded.to(memory_format=torch.channels_last)

    def forward(images: Tensor) -> Tensor:
        scores: Tensor = folded(images.to(dtype, memory_format=torch.channels_last))
        return scores.float().contiguous()

    return forward


def weights_hash(network: nn.Module) -> str:
    """A digest of a network's tensors and their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {list(tensor.shape)} ".encode())
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _resolve(precision: ParserPrecision, device: torch.device) -> Literal["fp32", "bf16"]:
    if precision != "auto":
        return precision
    if not has_native_bf16(device):
        return "fp32"
    log.info("precision: bf16")
    return "bf16"
