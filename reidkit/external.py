"""Third-party weights: the authors' checkpoints, torchreid's and torchvision's, mapped to our
networks by parameter name.

A file is imported completely or not at all: a tensor without a counterpart in our network, or a
parameter of the embedding that the file lacks, is an error that names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidkit.choices import ExternalFormat
from reidkit.config.tables import from_table
from reidkit.errors import CheckpointError, ConfigError, suggest
from reidkit.external_formats import FORMATS, TRUNK, KeyMapping
from reidkit.models.base import ReidModel
from reidkit.models.weights import read_tensors
from reidkit.preprocess import Preprocess
from reidkit.registry import ArchSpec, get_arch


@dataclass(frozen=True)
class KeyMatch:
    """Names of a file's tensors and of our parameters.

    Attributes:
        matched: names in the file that are also ours, apart from the prefix of the backbone.
        renamed: (name in the file, our name).
        ignored: names in the file that are not imported, because our network does not use them.
        missing: our names without a tensor in the file; none is part of the embedding.
    """

    matched: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class ImportedModel:
    """A network with third-party weights, in evaluation mode.

    Attributes:
        has_clips: its convolutions are three-dimensional in the file, so it was trained on clips.
        preprocess: preprocessing of the other project.
        keys: how the names in the file were matched.
    """

    model: ReidModel
    arch: str
    config: Any
    num_ids: int
    has_clips: bool
    preprocess: Preprocess
    keys: KeyMatch


def import_weights(
    path: Path,
    *,
    format: ExternalFormat,
    arch: str,
    options: Mapping[str, Any] | None = None,
    input_size: tuple[int, int] | None = None,
) -> ImportedModel:
    """Build `arch` and load third-party weights.

    Args:
        path: .pth (only tensors and plain values are read) or .safetensors; with or without a
            `state_dict` wrapper and a `module.` prefix.
        format: naming scheme of the file.
        arch: architecture to build.
        options: options of the architecture; they override those inferred from the tensors.
        input_size: (height, width) in pixels; default: the architecture's.
    Raises:
        ConfigError: if the format is unknown or does not fit the architecture.
        CheckpointError: if a tensor has no counterpart or another shape, or if one of the embedding
            is missing; the message names them.
    """
    mapping, spec = _find(format, arch)
    tensors = read_tensors(path)
    size = input_size or spec.input_size
    known = {field.name for field in dataclasses.fields(spec.config)}
    inferred = {name: v for name, v in mapping.options(tensors).items() if name in known}
    config: Any = from_table(spec.config, {**inferred, **(options or {})}, where=f"{arch} options")
    classifier = tensors.get(mapping.classifier)
    num_ids = 0 if classifier is None else classifier.shape[0]
    model: ReidModel = spec.build(config, num_ids=num_ids, input_size=size)

    own = model.state_dict()
    names = {name: mapping.rename(name) for name in tensors}
    unknown = [name for name, ours in names.items() if ours != "" and ours not in own]
    if unknown:
        used = ", ".join(f"{name}={value}" for name, value in inferred.items()) or "defaults"
        raise CheckpointError(
            f"{path}: {arch} with {used} has no parameters for {_listed(unknown)}. "
            f"Check --from {format} and the options (--set arch.KEY=VALUE)"
        )
    keys = _match(names, own)
    used_by_embedding = embedding_modules(spec, config, num_ids=num_ids, input_size=size)
    _check_complete(keys, used_by_embedding, path=path, format=format)
    for name, ours in names.items():
        if ours:
            own[ours] = _reshaped(tensors[name], own[ours], name=name, path=path)
    model.load_state_dict(own)
    return ImportedModel(
        model=model.eval(),
        arch=arch,
        config=config,
        num_ids=num_ids,
        has_clips=any(tensor.dim() == 5 for tensor in tensors.values()),
        preprocess=Preprocess(size=size, interpolation=mapping.interpolation),
        keys=keys,
    )


def embedding_modules(
    spec: ArchSpec, config: Any, *, num_ids: int, input_size: tuple[int, int]
) -> set[str]:
    """Names of the modules whose parameters `embed` uses, by a backward pass on meta tensors."""
    with torch.device("meta"), torch.enable_grad():
        model: ReidModel = spec.build(config, num_ids=num_ids, input_size=input_size)
        total = model.eval().embed(torch.zeros(1, 3, *input_size)).sum()
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(total, list(trainable.values()), allow_unused=True)
    return {
        name.rpartition(".")[0]
        for name, gradient in zip(trainable, gradients, strict=True)
        if gradient is not None
    }


def _find(format: ExternalFormat, arch: str) -> tuple[KeyMapping, ArchSpec]:
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}. {suggest(format, FORMATS)}")
    mapping, spec = FORMATS[format], get_arch(arch)
    if arch not in mapping.archs:
        raise ConfigError(
            f"{format} weights fit {', '.join(mapping.archs)}, not {arch}. "
            f"Pass --arch {mapping.archs[0]}"
        )
    return mapping, spec


def _match(names: Mapping[str, str | None], own: Iterable[str]) -> KeyMatch:
    used = {name: ours for name, ours in names.items() if ours}
    same = {name for name, ours in used.items() if ours.removeprefix(TRUNK) == name}
    filled = set(used.values())
    return KeyMatch(
        matched=tuple(name for name in used if name in same),
        renamed=tuple((name, ours) for name, ours in used.items() if name not in same),
        ignored=tuple(name for name, ours in names.items() if ours == ""),
        missing=tuple(
            name for name in own if name not in filled and not name.endswith("num_batches_tracked")
        ),
    )


def _check_complete(
    keys: KeyMatch, used_by_embedding: set[str], *, path: Path, format: ExternalFormat
) -> None:
    needed = [name for name in keys.missing if name.rpartition(".")[0] in used_by_embedding]
    if needed:
        raise CheckpointError(
            f"{path}: the embedding needs {_listed(needed)}, which the file does not contain. "
            f"Check --from {format}"
        )


def _reshaped(tensor: Tensor, own: Tensor, *, name: str, path: Path) -> Tensor:
    """The tensor in our shape: a 1x1 convolution's weight may be a linear layer's here."""

    def without_trailing_ones(shape: torch.Size) -> tuple[int, ...]:
        sizes = tuple(shape)
        while sizes and sizes[-1] == 1:
            sizes = sizes[:-1]
        return sizes

    if without_trailing_ones(tensor.shape) != without_trailing_ones(own.shape):
        raise CheckpointError(
            f"{path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(own.shape)}. "
            "Check --size and the options (--set arch.KEY=VALUE)"
        )
    return tensor.reshape(own.shape).to(own.dtype)


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + rest
