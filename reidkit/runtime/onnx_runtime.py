"""Embedding models in ONNX files, exported by reidkit or by others, in ONNX Runtime."""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.config.tables import from_table, read_toml
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

    def __init__(self, path: Path, *, device: torch.device, inputs: Mapping[str, Any]) -> None:
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
        self.device = torch.device("cpu")  # ONNX Runtime copies to its own device

    def embed(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W], or clips [B, T, 3, H, W] -> float32 [B, D], the file's output
        as it is."""
        ordered = images.permute(0, 2, 3, 1) if self.channels_last else images
        array: NDArray[Any] = np.ascontiguousarray(ordered.numpy(), self.dtype)
        step = self.fixed_batch or len(array)
        rows = [
            self._run(array[start : start + step], step) for start in range(0, len(array), step)
        ]
        return torch.from_numpy(np.concatenate(rows))

    def _run(self, array: NDArray[Any], batch: int) -> NDArray[np.float32]:
        B = len(array)
        if batch > B:
            array = np.concatenate([array, np.repeat(array[-1:], batch - B, axis=0)])
        (found,) = self.session.run([self.output], {self.input: array})
        if len(found) != len(array) or found.size == 0:
            raise CheckpointError(
                f"{self.name}: output {self.output} has shape {list(found.shape)} for "
                f"{len(array)} images, expected one embedding per image"
            )
        rows: NDArray[np.float32] = found[:B].reshape(B, -1).astype(np.float32)
        return rows


def open_session(path: Path, device: torch.device) -> Any:
    """An ONNX Runtime session that really runs on `device`.

    Raises:
        CheckpointError: if the file is missing or cannot be loaded.
        RuntimeMissing: if ONNX Runtime fell back from CUDA to the CPU.
    """
    import onnxruntime as ort

    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Export a checkpoint: reidkit export --onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        with contextlib.redirect_stdout(io.StringIO()):  # it prints to stdout
            ort.preload_dlls()
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        if type(error).__module__.startswith("onnxruntime"):
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path}: ONNX Runtime cannot load it: {reason}") from error
        raise
    if device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
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
