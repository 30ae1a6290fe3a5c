"""Embedding models in ONNX files, exported by reidkit or by others, in ONNX Runtime."""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.config.tables import from_table, read_toml
from reidkit.device import cuda_index
from reidkit.errors import CheckpointError, ConfigError, RuntimeMissing
from reidkit.files import sha256
from reidkit.preprocess import Preprocess

log = logging.getLogger(__name__)

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxEmbedder:
    """An ONNX file with one image input [B, 3, H, W] (or [B, H, W, 3]) and an embedding output.

    A file exported by reidkit states its preprocessing. For a third-party file it comes from
    `inputs`, else from `<model>.toml` beside it (keys of `Preprocess`), else it is ImageNet's at
    the size of the input. Where the batch size is fixed in the file, batches are padded to it.
    reidkit's exports of video networks take clips [B, T, 3, H, W] and have `frames`.

    Raises:
        CheckpointError: if the file is not such a model.
        ConfigError: if `inputs` contradict the file.
        RuntimeMissing: if the device is not available.
    """

    concurrency = 1  # ONNX Runtime has threads of its own

    def __init__(self, path: Path, *, device: str, inputs: Mapping[str, Any]) -> None:
        self.session = open_session(path, device)
        self.input, self.dtype, shape = _image_input(self.session, path)
        self.channels_last = shape[-1] == 3 and shape[-3] != 3
        self.fixed_batch = shape[0]
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "reidkit" in metadata:
            header = json.loads(metadata["reidkit"])
            if inputs:
                raise ConfigError(
                    f"{path} states its own preprocessing: remove the options {', '.join(inputs)}"
                )
            self.preprocess = from_table(Preprocess, header["preprocess"], where=str(path))
            self.output, self.name = header["features_output"], f"{header['arch']} (ONNX)"
            self.frames = int(header.get("frames", 0))
        else:
            self.frames = 0
            if len(shape) == 5:
                raise CheckpointError(
                    f"{path} takes clips and was not exported by reidkit: only its own exports may"
                )
            size = shape[1:3] if self.channels_last else shape[2:4]
            self.preprocess = _stated_preprocess(path, size, inputs)
            self.output, self.name = _embedding_output(self.session, path), path.stem
        self.source_hash = sha256(path)
        self.buffers = threading.local()

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [B, H, W, 3], or clips [B, T, H, W, 3] -> float32 [B, D], the file's output as it
        is."""
        if len(pixels) == 0:
            return np.empty((0, self._dimension(pixels.shape)), np.float32)
        step = self.fixed_batch or len(pixels)
        rows = [
            self._run(pixels[start : start + step], step) for start in range(0, len(pixels), step)
        ]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _dimension(self, shape: tuple[int, ...]) -> int:
        """D, by embedding one black image (or clip) of this shape."""
        return int(self.embed(np.zeros((1, *shape[1:]), np.uint8)).shape[1])

    def _run(self, pixels: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
        B = len(pixels)
        array = self._buffer((batch, *pixels.shape[1:]))
        flat = array.reshape(-1, *array.shape[-3:])
        images = flat.transpose(0, 3, 1, 2) if self.channels_last else flat  # [B*T, 3, H, W]
        source = pixels.reshape(-1, *pixels.shape[-3:])
        self.preprocess.normalise_into(source, images[: len(source)])
        images[len(source) :] = images[len(source) - 1]  # up to a fixed batch size
        (found,) = self.session.run(
            [self.output], {self.input: array.astype(self.dtype, copy=False)}
        )
        if len(found) != batch or found.size == 0:
            raise CheckpointError(
                f"{self.name}: output {self.output} has shape {list(found.shape)} for "
                f"{batch} images, expected one embedding per image"
            )
        rows: NDArray[np.float32] = found[:B].reshape(B, -1).astype(np.float32)
        return rows

    def _buffer(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """This thread's input buffer for pixels [B, ..., H, W, 3] in the layout of the file."""
        if not self.channels_last:
            shape = (*shape[:-3], shape[-1], *shape[-3:-1])
        buffer = getattr(self.buffers, "input", None)
        if buffer is None or buffer.shape[1:] != shape[1:] or len(buffer) < shape[0]:
            buffer = self.buffers.input = np.empty(shape, np.float32)
        found: NDArray[np.float32] = buffer[: shape[0]]
        return found


def open_session(path: Path, device: str = "cpu") -> Any:
    """An ONNX Runtime session that really runs on `device`.

    Args:
        device: auto, cpu, cuda or cuda:N.
    Raises:
        CheckpointError: if the file is missing or cannot be loaded.
        ConfigError: if the device is unknown.
        RuntimeMissing: if ONNX Runtime fell back from CUDA to the CPU.
    """
    import onnxruntime as ort

    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Export a checkpoint: reidkit export --onnx")
    cuda = cuda_index(device)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints to stdout
            ort.preload_dlls()
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": cuda}))
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        if type(error).__module__.startswith("onnxruntime"):
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path}: ONNX Runtime cannot load it: {reason}") from error
        raise
    if cuda is not None and "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeMissing(
            "--device cuda: ONNX Runtime could not load its CUDA provider and fell back to the "
            "CPU. Install onnxruntime-gpu[cuda,cudnn] and remove onnxruntime, or use --device cpu"
        )
    return session


def _image_input(session: Any, path: Path) -> tuple[str, type, list[int]]:
    """Name, numpy type and shape of the one input; 0 where a size is dynamic."""
    inputs = session.get_inputs()
    described = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
    shape = [size if isinstance(size, int) and size > 0 else 0 for size in inputs[0].shape]
    image = len(shape) in (4, 5) and (shape[-3] in (0, 3) or shape[-1] == 3)
    if len(inputs) != 1 or not image or inputs[0].type not in _TYPES:
        raise CheckpointError(
            f"{path} takes {described}; expected one image input, float [batch, 3, height, width]"
        )
    return inputs[0].name, _TYPES[inputs[0].type], shape


def _embedding_output(session: Any, path: Path) -> str:
    """Name of the one output with the shape of an embedding: [batch, D], or [batch, D, 1, 1]."""
    outputs = session.get_outputs()
    flat = [o for o in outputs if len(o.shape) == 2 or list(o.shape[2:]) == [1, 1]]
    if len(flat) != 1 and len(outputs) > 1:
        described = ", ".join(f"{o.name} {o.shape}" for o in outputs)
        raise CheckpointError(
            f"{path} has the outputs {described}; expected exactly one of shape [batch, D]"
        )
    name: str = (flat or outputs)[0].name
    return name


def _stated_preprocess(path: Path, size: list[int], inputs: Mapping[str, Any]) -> Preprocess:
    sidecar = path.with_suffix(".toml")
    table = dict(read_toml(sidecar)) if sidecar.is_file() else {}
    table |= inputs
    fixed = all(size)
    if "size" not in table and fixed:
        table["size"] = size
    preprocess = from_table(Preprocess, table, where=str(sidecar if not inputs else path))
    if fixed and list(preprocess.size) != size:
        found = "x".join(map(str, preprocess.size))
        raise ConfigError(f"{path} only takes images of {size[0]}x{size[1]}, not of {found}")
    if not (inputs or sidecar.is_file()):
        log.warning(
            "%s has no preprocessing metadata; assuming %dx%d, %s, mean %s, std %s, %s. "
            "Override with --size, --resize, --mean, --std and --channels",
            *(path, *preprocess.size, preprocess.interpolation),
            *(list(preprocess.mean), list(preprocess.std), preprocess.channels.upper()),
        )
    return preprocess
