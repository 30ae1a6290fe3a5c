"""Checkpoints: safetensors files with a JSON header from which the network is rebuilt.

The header contains architecture, preprocessing and origin, so that no command that takes a
checkpoint needs `--arch` or a size.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import reidkit
from reidkit.config import from_table
from reidkit.errors import CheckpointError, ConfigError, ReidkitError
from reidkit.files import atomic, check_regular
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch

if TYPE_CHECKING:
    from reidkit.models.base import ReidModel

FORMAT = 1
MAX_COUNT = 1 << 31
"""Upper bound of numbers of identities and frames in a header."""


@dataclass(frozen=True)
class Header:
    """Metadata of a checkpoint.

    Attributes:
        arch_config: options of the architecture, as a table.
        num_ids: number of training identities, the rows of the classifier (0: no classifier).
        dataset, fingerprint: of the training data.
        synthetic: trained on synthetic images.
        frames, stride: of training clips; 0 if it was trained on images.
        recipe: all settings of the run, as a table.
        metrics: evaluation results and their epoch.
        reidkit, git: versions that wrote the file.
    """

    arch: str
    arch_config: dict[str, Any]
    preprocess: Preprocess
    num_ids: int
    dataset: str = ""
    fingerprint: str = ""
    synthetic: bool = False
    frames: int = 0
    stride: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    reidkit: str = reidkit.__version__
    git: str = ""

    def __post_init__(self) -> None:
        for name in ("num_ids", "frames", "stride"):
            value = getattr(self, name)
            if not 0 <= value < MAX_COUNT:
                raise ConfigError(f"{name} is {value}, expected 0 to {MAX_COUNT - 1}")


def save(path: Path, model: ReidModel, header: Header) -> None:
    """Writes weights and header atomically.

    Raises:
        ReidkitError: if the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    text = json.dumps(dataclasses.asdict(header))
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with atomic(path) as partial:
        # save_file raises other errors, and only the owner can read its files
        partial.write_bytes(to_bytes(tensors, metadata={"reidkit": text}))


def read_header(path: Path) -> Header:
    """Reads the header without the weights.

    Raises:
        CheckpointError: if the file is missing or no reidkit checkpoint, or if its header is
            damaged or of another format version.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path, CheckpointError)
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("reidkit")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no such checkpoint: {path}. Train one: reidkit train --dataset NAME"
        ) from error
    except (SafetensorError, OSError) as error:
        advice = "It is truncated or damaged. Copy the file again"
        if path.suffix != ".safetensors":
            advice = (
                "Convert third-party weights with: "
                f"reidkit import {path} --from FORMAT --arch NAME -o model.safetensors"
            )
        raise CheckpointError(f"{path} is not a safetensors file. {advice}") from error
    if text is None:
        raise CheckpointError(f"{path} has no reidkit header: it was not written by reidkit")
    try:
        table = json.loads(text)
        if not isinstance(table, dict):
            raise ValueError(f"expected a JSON object, got {text[:20]}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged header: {error}. Copy the file again") from error
    if table.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {table.get('format')}, reidkit {reidkit.__version__} reads "
            f"format {FORMAT}. Use the reidkit that wrote it ({table.get('reidkit', 'unknown')})"
        )
    try:
        return from_table(Header, table, where=str(path))
    except ReidkitError as error:
        raise CheckpointError(f"{path}: damaged header: {error}") from error


def load(path: Path, *, options: Mapping[str, Any] | None = None) -> tuple[ReidModel, Header]:
    """The network rebuilt from the header, in evaluation mode on the CPU, and the header.

    Args:
        options: of the architecture, overriding the header's, such as {"embedding": "pre-bn"}.

    Raises:
        CheckpointError: as `read_header`, or if the tensors do not fit the network.
        ConfigError: if the architecture has no such option.
    """
    from safetensors.torch import load_file

    header = read_header(path)
    header = dataclasses.replace(header, arch_config={**header.arch_config, **(options or {})})
    _check_shapes(path, header)
    model = build(header)
    model.load_state_dict(load_file(path), strict=True)
    return model.eval(), header


def _check_shapes(path: Path, header: Header) -> None:
    """Compares the shapes in the file with those of the network, which is built without memory
    first: a header from a stranger may describe a network of any size.

    Raises:
        CheckpointError: they differ, or there can be no such network.
    """
    import torch
    from safetensors import safe_open

    try:
        with torch.device("meta"):
            expected = {k: list(v.shape) for k, v in build(header).state_dict().items()}
    except ReidkitError:
        raise
    except (RuntimeError, OverflowError, MemoryError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its header describes an impossible {header.arch}. Copy the file again"
        ) from error
    with safe_open(path, framework="numpy") as file:
        found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    wrong = [
        f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{path}: tensors do not fit {header.arch}, the architecture in the header: "
            f"{wrong[0]}{more}"
        )


def build(header: Header) -> ReidModel:
    """The network described by a header, with fresh weights."""
    return create_model(
        header.arch,
        num_ids=header.num_ids,
        input_size=header.preprocess.size,
        options=header.arch_config,
    )


def create_model(
    arch: str,
    *,
    num_ids: int = 0,
    input_size: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> ReidModel:
    """A network with fresh weights from torch's global generator.

    Args:
        arch: a name from `list_archs`.
        num_ids: training identities; 0: no classifier.
        input_size: (height, width) in pixels; default: the architecture's own.
        options: of the architecture, such as {"backbone": "resnet18"}.

    Raises:
        ConfigError: for an unknown architecture or option, a size it cannot take, or a negative
            number of identities.
    """
    if num_ids < 0:
        raise ConfigError(f"found num_ids={num_ids}, expected 0 (no classifier) or more")
    spec = get_arch(arch)
    config: Any = from_table(spec.config, options or {}, where=f"{arch} options")
    model: ReidModel = spec.build(config, num_ids=num_ids, input_size=input_size or spec.input_size)
    return model


def git_version() -> str:
    """Commit of the repository that reidkit is in, with "+" if it is modified; "" without one."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            cwd=Path(reidkit.__file__).parent,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
