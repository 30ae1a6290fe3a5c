"""Networks ready to embed: an `Embedder` from a checkpoint or an ONNX file. Imports torch only for
checkpoints."""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.device import cuda_index
from reidkit.errors import ConfigError, RuntimeMissing
from reidkit.files import sha256
from reidkit.preprocess import Preprocess
from reidkit.runtime.execution import Execution
from reidkit.runtime.onnx_runtime import OnnxEmbedder
from reidkit.runtime.onnx_session import check_model_file
from reidkit.runtime.onnx_trial import try_model

if TYPE_CHECKING:
    from reidkit.runtime.torch_embedder import TorchEmbedder

log = logging.getLogger(__name__)


class Embedder(Protocol):
    """A network ready to embed.

    Attributes:
        name: for tables and messages.
        preprocess: how its images are made.
        source_hash: sha256 of the file it was read from, "" for a network in memory.
        frames: length of the clips it was trained on; 0: it takes single images.
        concurrency: number of threads that may call `embed` at once.
    """

    name: str
    preprocess: Preprocess
    source_hash: str
    frames: int
    concurrency: int

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [B, H, W, 3], or clips [B, T, H, W, 3], as `Preprocess.pixels` gives them ->
        float32 [B, D], not L2-normalised; [0, D] for an empty batch."""
        ...


def load_embedder(
    path: Path,
    *,
    device: str = "auto",
    inputs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
    trust: bool = False,
) -> OnnxEmbedder | TorchEmbedder:
    """The embedder in a checkpoint (.safetensors), a run folder, or an .onnx file.

    Args:
        device: auto, cpu, cuda or cuda:N.
        inputs: for a third-party ONNX file, which does not state its own: fields of `Preprocess`,
            and "output", the name of its embedding output.
        options: of a checkpoint's architecture, in place of its own.
        execution: threads, provider, precision; what was chosen is logged in one line.
        trust: an .onnx file is run without a trial (`onnx_trial`).

    Raises:
        CheckpointError, RuntimeMissing: as the embedders and `checkpoint.load` do.
        ConfigError: if the device is unknown, if `inputs` are given for a file that states its own
            preprocessing, `options` for an ONNX file, or an `execution` that does not apply.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    execution = execution or Execution()
    if path.suffix == ".onnx":
        if options:
            raise ConfigError(
                f"{path} is exported with fixed options: {', '.join(options)} can only be set for "
                "a checkpoint"
            )
        if execution.precision != "fp32":
            raise ConfigError(
                f"precision {execution.precision}: {path} is exported with a fixed precision. "
                "Leave --precision out, or export again with another one"
            )
        if execution.compile:
            raise ConfigError(
                f"--compile: {path} is run by ONNX Runtime, which compiles nothing. Leave it out"
            )
        check_model_file(path)
        if not trust:
            on_cpu = execution.provider == "cpu" or cuda_index(device) is None
            try_model(path, "embedder", inputs=inputs, on_cpu=on_cpu)
        onnx = OnnxEmbedder(path, device=device, inputs=inputs, execution=execution)
        log.info("%s", onnx.description)
        return onnx
    if inputs:
        raise ConfigError(
            f"{path} states its own preprocessing; leave out {', '.join(inputs)}, given by options "
            "or --preprocess"
        )
    if execution.provider is not None:
        raise ConfigError(
            f"provider {execution.provider}: {path} is a checkpoint, which PyTorch runs. Leave "
            "--provider out, or export it (reidkit export --onnx)"
        )
    if execution.threads is not None:
        raise ConfigError(
            f"threads {execution.threads}: {path} is a checkpoint, which PyTorch runs. Set "
            f"OMP_NUM_THREADS={execution.threads} instead of --threads"
        )
    if find_spec("torch") is None:
        raise RuntimeMissing(
            f"{path} is a checkpoint, which needs PyTorch, and torch is not installed. Export it "
            f"where PyTorch is: reidkit export {path} --onnx"
        )
    from reidkit import checkpoint
    from reidkit.device import torch_device
    from reidkit.runtime.torch_embedder import TorchEmbedder

    target = torch_device(device)
    model, header = checkpoint.load(path, options=options)
    embedder = TorchEmbedder(
        model,
        preprocess=header.preprocess,
        device=target,
        name=header.arch,
        source_hash=sha256(path),
        frames=header.frames,
        execution=execution,
    )
    log.info("%s", embedder.description)
    return embedder
