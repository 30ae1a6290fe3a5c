"""Weights of other projects, brought into our networks by name: the authors' own checkpoints,
torchreid's and torchvision's.

A file is used completely or not at all: a tensor
that has no place in our network, or a place in the embedding path that no tensor fills, is an
error that names it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from reidkit.config.tables import from_table
from reidkit.errors import CheckpointError, ConfigError, suggest
from reidkit.external_formats import LAYOUTS, TRUNK, Format, Layout
from reidkit.models.base import ReidModel
from reidkit.models.weights import read_tensors
from reidkit.preprocess import Preprocess
from reidkit.registry import ArchSpec, get_arch

COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Import:
    """What became of a file's tensors.

    Attributes:
        matched: names taken over, under the same name but for the trunk's prefix.
        renamed: foreign name to ours.
        ignored: foreign names left out on purpose.
        missing: ours that nothing filled; none is in the embedding path.
        preprocess: the project's own.
        has_clips: its convolutions run over time too, so it was trained on clips.
    """

    model: ReidModel
    arch: str
    config: Any
    has_clips: bool
    num_ids: int
    preprocess: Preprocess
    matched: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]


def import_weights(
    path: Path,
    *,
    format: str,
    arch: str,
    options: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] | None = None,
) -> Import:
    """Build `arch` and fill it from a foreign file.

    Args:
        path: .pth (only tensors and plain values are read) or .safetensors; with or without a
            `state_dict` wrapper and a `module.` prefix.
        format: one of `Format`.
        arch: our name of the network.
        options: settings of the network; they win over what the tensors tell.
        input_size: (height, width) in pixels; the architecture's own by default.
    Raises:
        ConfigError: for an unknown format, or an architecture that the format cannot fill.
        CheckpointError: if a tensor has no place, has another shape, or is missing from the
            embedding path; the message names them.
    """
    layout, spec = _find(format, arch)
    tensors = read_tensors(path)
    size = input_size or spec.input_size
    table = {k: v for k, v in layout.options(tensors).items() if k in _fields(spec)}
    config: Any = from_table(spec.config, table | dict(options or {}), where=f"{arch} options")
    rows = tensors.get(layout.classifier)
    num_ids = 0 if rows is None else rows.shape[0]
    model: ReidModel = spec.build(config, num_ids=num_ids, input_size=size)

    own = model.state_dict()
    filled: dict[str, Tensor] = {}
    matched, renamed, ignored, lost = [], [], [], []
    for name, tensor in tensors.items():
        ours = _translate(name, layout.rules)
        if ours == "":
            ignored.append(name)
        elif ours not in own:
            lost.append(name)
        else:
            filled[ours] = _shaped(tensor, own[ours], name=name, path=path)
            if ours.removeprefix(TRUNK) == name:
                matched.append(name)
            else:
                renamed.append((name, ours))
    if lost:
        raise CheckpointError(
            f"{path}: {arch} has no place for {_listed(lost)}. Is --from {format} right, and are "
            f"the options ({_told(table) or 'defaults'})?"
        )
    missing = [name for name in own if name not in filled and not name.endswith(COUNTER)]
    path_names = embedding_path(spec, config, num_ids=num_ids, input_size=size)
    needed = [name for name in missing if name.rpartition(".")[0] in path_names]
    if needed:
        raise CheckpointError(
            f"{path}: the embedding of {arch} is not complete, missing {_listed(needed)}. "
            f"Is it a file of {format}?"
        )
    model.load_state_dict(own | filled)
    return Import(
        model=model.eval(),
        arch=arch,
        config=config,
        has_clips=any(tensor.dim() == 5 for tensor in tensors.values()),
        num_ids=num_ids,
        preprocess=Preprocess(size=size, interpolation=layout.interpolation),
        matched=tuple(matched),
        renamed=tuple(renamed),
        ignored=tuple(ignored),
        missing=tuple(missing),
    )


def embedding_path(
    spec: ArchSpec, config: Any, *, num_ids: int, input_size: tuple[int, int]
) -> set[str]:
    """Names of the modules whose parameters `embed` uses, found by a backward pass without data."""
    with torch.device("meta"), torch.enable_grad():
        model: ReidModel = spec.build(config, num_ids=num_ids, input_size=input_size)
        total = model.eval().embed(torch.zeros(1, 3, *input_size)).sum()
        asked = {name: p for name, p in model.named_parameters() if p.requires_grad}
        used = torch.autograd.grad(total, list(asked.values()), allow_unused=True)
    return {
        name.rpartition(".")[0]
        for name, gradient in zip(asked, used, strict=True)
        if gradient is not None
    }


def _find(format: str, arch: str) -> tuple[Layout, ArchSpec]:
    if format not in get_args(Format):
        raise ConfigError(f"unknown format {format!r}. {suggest(format, get_args(Format))}")
    layout, spec = LAYOUTS[format], get_arch(arch)
    if arch not in layout.archs:
        raise ConfigError(
            f"{format} files fill {', '.join(layout.archs)}, not {arch}. Give one of them: --arch"
        )
    return layout, spec


def _translate(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, replacement in rules:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(replacement)
    return None


def _shaped(tensor: Tensor, own: Tensor, *, name: str, path: Path) -> Tensor:
    """A 1x1 convolution's weight may be a linear layer's here: trailing sizes of 1 are dropped."""

    def core(shape: torch.Size) -> tuple[int, ...]:
        sizes = tuple(shape)
        while sizes and sizes[-1] == 1:
            sizes = sizes[:-1]
        return sizes

    if core(tensor.shape) != core(own.shape):
        raise CheckpointError(
            f"{path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(own.shape)}. "
            "Check --size and the options"
        )
    return tensor.reshape(own.shape).to(own.dtype)


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + rest


def _told(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in table.items())


def _fields(spec: ArchSpec) -> set[str]:
    return {field.name for field in dataclasses.fields(spec.config)}
