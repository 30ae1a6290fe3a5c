"""What an ONNX file takes and gives: its input, its embedding output, and its preprocessing, from
reidkit's own metadata or, for third-party files, from options and a TOML file beside it.

Everything that is read from a file is validated before it is used.
"""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reidkit.config.tables import field_types, from_table, partial, read_toml
from reidkit.errors import CheckpointError, ConfigError
from reidkit.preprocess import Preprocess

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of the metadata of reidkit's exports."""

MAX_FRAMES = 1024
MAX_BATCH = 4096
MAX_DIMENSION = 1 << 16
"""Bounds on what a file may ask for."""

InputRange = Literal["normalised", "0-1", "0-255", "uint8"]

_FLOATS = ("tensor(float)", "tensor(float16)")


@dataclass(frozen=True)
class Normalised:
    """Mean and standard deviation that the caller applies before a file that normalises itself."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class ExportMetadata:
    """The part of an export's metadata that running it needs.

    Attributes:
        arch: name of the architecture.
        preprocess: size, interpolation, channel order; the network's normalisation.
        features_output: output before L2 normalisation; "": there is none.
        outputs: names of all outputs.
        frames: length of the clips the network was trained on; 0: it takes images.
        pixels: what the input contains.
        precision: of the weights.
        assumes: the normalisation of the consumer it was exported for, if not the network's.
    """

    arch: str
    preprocess: Preprocess
    outputs: tuple[str, ...]
    features_output: str = ""
    frames: int = 0
    pixels: InputRange = "normalised"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    assumes: Normalised | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.frames <= MAX_FRAMES:
            raise ConfigError(f"frames must be between 0 and {MAX_FRAMES}, got {self.frames}")
        if not self.outputs:
            raise ConfigError("outputs must name at least one output")


@dataclass(frozen=True)
class OnnxContract:
    """How images enter an ONNX file and where its embeddings leave it.

    Attributes:
        name: of the model, for tables and messages.
        input, input_type: name and ONNX Runtime type of the input.
        channels_last: whether the input is [B, H, W, 3].
        fixed_batch: the only batch size it takes; 0: any.
        fixed_frames: the only length of clips it takes; 0: any, or it takes images.
        output: name of the embedding output.
        preprocess: how its images are made.
        normalisation: how pixels are normalised for the input; None: they are not.
        frames: length of the clips the network was trained on; 0: it takes images.
        precision: of the weights, as the export states it; "" where a file states nothing.
    """

    name: str
    input: str
    input_type: str
    channels_last: bool
    fixed_batch: int
    fixed_frames: int
    output: str
    preprocess: Preprocess
    normalisation: Preprocess | None
    frames: int = 0
    precision: str = ""


def read_contract(session: Any, path: Path, inputs: Mapping[str, Any]) -> OnnxContract:
    """The contract of a loaded ONNX file.

    Args:
        inputs: for third-party files, fields of `Preprocess` and "output", the name of the output.
    Raises:
        CheckpointError: if the file is not an embedding model, or its metadata is invalid.
        ConfigError: if `inputs` contradict the file.
    """
    from_table(_inputs_schema(), dict(inputs), where=str(path))
    image, shape = _image_input(session, path)
    channels_last = shape[-1] == 3 and shape[-3] != 3
    size = shape[-3:-1] if channels_last else shape[-2:]
    if shape[0] > MAX_BATCH:
        raise CheckpointError(
            f"{path} takes batches of {shape[0]:,} images, expected at most {MAX_BATCH:,}"
        )
    contract = functools.partial(
        OnnxContract,
        input=image.name,
        input_type=image.type,
        channels_last=channels_last,
        fixed_batch=shape[0],
        fixed_frames=shape[1] if len(shape) == 5 else 0,
    )
    stored = session.get_modelmeta().custom_metadata_map.get("reidkit")
    if stored is None:
        if len(shape) == 5:
            raise CheckpointError(
                f"{path} takes clips and was not exported by reidkit, so that their composition is "
                "unknown. Export it for single images, [batch, 3, height, width]"
            )
        output, preprocess = _stated(session, path, size, inputs)
        return contract(
            name=path.stem,
            output=output,
            preprocess=preprocess,
            normalisation=None if image.type == "tensor(uint8)" else preprocess,
        )
    if inputs:
        raise ConfigError(
            f"{path} states its own preprocessing; leave out {', '.join(inputs)}, given by options "
            "or --preprocess"
        )
    metadata = _metadata(stored, path)
    _check_metadata(metadata, session, path, size=size, dimensions=len(shape))
    if not metadata.features_output:
        log.info(
            "%s gives L2-normalised embeddings only; averages over mirrored images and clips are "
            "averages of those",
            path,
        )
    return contract(
        name=f"{metadata.arch} (ONNX)",
        output=metadata.features_output or metadata.outputs[0],
        preprocess=metadata.preprocess,
        normalisation=_normalisation(metadata),
        frames=metadata.frames,
        precision=metadata.precision,
    )


def read_inputs(path: Path) -> dict[str, Any]:
    """What a TOML file states about a third-party model: fields of `Preprocess`, and "output".

    Raises:
        ConfigError: if it is missing or is not TOML, or has other keys or types.
    """
    table = read_toml(path)
    from_table(_inputs_schema(), table, where=str(path))
    return table


@functools.cache
def _inputs_schema() -> type:
    return partial("Preprocess", {**field_types(Preprocess), "output": str})


def describe_values(values: Any) -> str:
    """Names, types and shapes of a session's inputs or outputs."""
    return ", ".join(f"{value.name} {value.type} {value.shape}" for value in values) or "nothing"


def _image_input(session: Any, path: Path) -> tuple[Any, list[int]]:
    """The one input, and its shape with 0 where a size is dynamic."""
    inputs = session.get_inputs()
    found = inputs[0] if len(inputs) == 1 else None
    shape = [s if isinstance(s, int) and s > 0 else 0 for s in found.shape] if found else []
    image = len(shape) in (4, 5) and (shape[-3] in (0, 3) or shape[-1] == 3)
    if found is None or not image or found.type not in (*_FLOATS, "tensor(uint8)"):
        raise CheckpointError(
            f"{path} takes {describe_values(inputs)}; expected one image input, float or uint8 "
            "[batch, 3, height, width]"
        )
    return found, shape


def _embedding_output(session: Any, path: Path, name: str | None) -> str:
    """The output called `name`, or else the one with the shape of an embedding: [batch, D], or
    [batch, D, 1, 1]."""
    outputs = session.get_outputs()
    names = [output.name for output in outputs]
    if name is not None:
        if name not in names:
            raise ConfigError(f"{path} has no output {name!r}. Known: {', '.join(names)}")
        return name
    flat = [o.name for o in outputs if len(o.shape) == 2 or list(o.shape[2:]) == [1, 1]]
    candidates = flat or names
    if not candidates:
        raise CheckpointError(f"{path} has no outputs, expected one of shape [batch, D]")
    if len(candidates) > 1:
        raise CheckpointError(
            f"{path} has the outputs {describe_values(outputs)}; expected exactly one of shape "
            f"[batch, D]. Choose one: --output {candidates[0]}"
        )
    return str(candidates[0])


def _metadata(stored: str, path: Path) -> ExportMetadata:
    try:
        header = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its reidkit metadata is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path}: its reidkit metadata is {type(header).__name__}, expected a JSON object"
        )
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: its metadata has format {header.get('format')!r}, this reidkit reads "
            f"{FORMAT}. Export it again: reidkit export CHECKPOINT --onnx"
        )
    names = {field.name for field in dataclasses.fields(ExportMetadata)}
    known = {name: value for name, value in header.items() if name in names}
    try:
        return from_table(ExportMetadata, known, where=f"{path}: metadata")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _check_metadata(
    metadata: ExportMetadata, session: Any, path: Path, *, size: list[int], dimensions: int
) -> None:
    """The metadata and the graph agree."""
    names = [output.name for output in session.get_outputs()]
    chosen = metadata.features_output or metadata.outputs[0]
    if chosen not in names:
        raise CheckpointError(
            f"{path}: its metadata names the output {chosen!r}, it has {', '.join(names)}"
        )
    if (dimensions == 5) != bool(metadata.frames):
        raise CheckpointError(
            f"{path}: its metadata says clips of {metadata.frames} frames, its input has "
            f"{dimensions} dimensions"
        )
    _check_size(path, list(metadata.preprocess.size), size)


def _check_size(path: Path, wanted: list[int], size: list[int]) -> None:
    if any(fixed and fixed != side for fixed, side in zip(size, wanted, strict=True)):
        takes = "x".join(str(side) if side else "any" for side in size)
        raise ConfigError(f"{path} only takes images of {takes}, not of {wanted[0]}x{wanted[1]}")


def _normalisation(metadata: ExportMetadata) -> Preprocess | None:
    preprocess = metadata.preprocess
    if metadata.pixels in ("0-255", "uint8"):
        return None
    if metadata.pixels == "0-1":
        return dataclasses.replace(preprocess, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if metadata.assumes is not None:
        mean, std = metadata.assumes.mean, metadata.assumes.std
        return dataclasses.replace(preprocess, mean=mean, std=std)
    return preprocess


def _stated(
    session: Any, path: Path, size: list[int], inputs: Mapping[str, Any]
) -> tuple[str, Preprocess]:
    """The output and the preprocessing of a third-party file: `inputs`, else the TOML file beside
    it, else ImageNet's at the size of its input."""
    sidecar = path.with_suffix(".toml")
    table = (read_inputs(sidecar) if sidecar.is_file() else {}) | dict(inputs)
    output = _embedding_output(session, path, table.pop("output", None))
    if "size" not in table and all(size):
        table["size"] = size
    if session.get_inputs()[0].type == "tensor(uint8)" and {"mean", "std"} & set(table):
        raise ConfigError(f"{path} takes uint8 pixels: it normalises them. Remove mean and std")
    preprocess = from_table(Preprocess, table, where=str(sidecar if not inputs else path))
    if max(*map(abs, preprocess.mean), *preprocess.std) > 1:
        raise ConfigError(
            f"{path}: mean {list(preprocess.mean)} and std {list(preprocess.std)} are for values "
            "in [0, 1]. Divide those for 0 to 255 by 255"
        )
    _check_size(path, list(preprocess.size), size)
    if not (inputs or sidecar.is_file()):
        height, width = preprocess.size
        is_uint8 = session.get_inputs()[0].type == "tensor(uint8)"
        assumed = "" if is_uint8 else ", ImageNet mean and std"
        options = "" if is_uint8 else "--mean, --std, "
        log.warning(
            "%s has no preprocessing metadata; assuming %dx%d, %s%s, %s. Override with --size, "
            "--resize, %s--channels, or --preprocess FILE",
            *(path, height, width, preprocess.interpolation, assumed, preprocess.channels.upper()),
            options,
        )
    return output, preprocess
