"""One checkpoint format: safetensors with a JSON header that rebuilds the network.

A checkpoint tells its architecture, preprocessing and origin, so no command that takes one needs
`--arch` or a size.
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
from reidkit.config.tables import from_table
from reidkit.errors import CheckpointError, ReidkitError
from reidkit.files import atomic
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch

if TYPE_CHECKING:
    from reidkit.models.base import ReidModel

FORMAT = 1


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
        arch_config: the options of the architecture, as a table.
        num_ids: training identities, the rows of the classifier (0: none).
        dataset, fingerprint: what it was trained on.
        synthetic: trained on drawn pedestrians.
        frames, stride: of the clips it was trained on; 0: it was trained on images.
        recipe: the whole run's settings, as a table.
        metrics: of its evaluation, with the epoch.
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


def save(path: Path, model: ReidModel, header: Header) -> None:
    """Writes weights and header, atomically.

    Raises:
        ReidkitError: if the file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    text = json.dumps(dataclasses.asdict(header))
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with atomic(path) as partial:
        # not save_file: its errors are its own and its files are readable by their owner alone
        partial.write_bytes(to_bytes(tensors, metadata={"reidkit": text}))


def read_header(path: Path) -> Header:
    """The header alone, without reading a weight.

    Raises:
        CheckpointError: if this is no reidkit checkpoint or one of another format version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("reidkit")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no such checkpoint: {path}. Train one: reidkit train --dataset NAME"
        ) from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}). Other projects' weights: "
            f"reidkit import {path} --from FORMAT --arch NAME -o model.safetensors"
        ) from error
    if text is None:
        raise CheckpointError(f"{path} has no reidkit header: it was not written by reidkit")
    try:
        table = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged header: {error}. Copy the file anew") from error
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
    """The network, rebuilt from the header, in evaluation mode on the CPU.

    Args:
        options: of the architecture, in place of the header's, such as {"embedding": "pre-bn"}.

    Raises:
        CheckpointError: if the file is not ours, or its tensors are not the network's.
        ConfigError: if the architecture has no such option.
    """
    from safetensors.torch import load_file

    header = read_header(path)
    header = dataclasses.replace(header, arch_config={**header.arch_config, **(options or {})})
    model = build(header)
    try:
        model.load_state_dict(load_file(path), strict=True)
    except RuntimeError as error:
        first, *rest = str(error).splitlines()[1:] or [str(error)]
        more = f" (and {len(rest)} more)" if rest else ""
        raise CheckpointError(
            f"{path} does not fit the {header.arch} of its header: {first.strip()}{more}"
        ) from error
    return model.eval(), header


def build(header: Header) -> ReidModel:
    """The network that a header describes, with fresh weights."""
    spec = get_arch(header.arch)
    config: Any = from_table(spec.config, header.arch_config, where=f"{header.arch} options")
    model: ReidModel = spec.build(config, num_ids=header.num_ids, input_size=header.preprocess.size)
    return model


def git_version() -> str:
    """Commit of the working directory's repository, with "+" if it has changes; "" outside one."""
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
