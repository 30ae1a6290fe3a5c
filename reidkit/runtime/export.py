"""Export to ONNX, verified: the file must give PyTorch's embeddings before it is written."""

# B batch, T frames, H W pixels, D embedding

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reidkit
from reidkit import checkpoint
from reidkit.errors import ReidkitError
from reidkit.files import atomic, sha256
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.runtime.onnx_session import open_session

OPSET = 20
MIN_COSINE = 0.9999
BATCHES = (1, 3, 8)


@dataclass(frozen=True)
class Parity:
    """How ONNX Runtime's embeddings compare with PyTorch's at one batch size, and, for networks
    that take clips, one number of frames (0: images)."""

    batch: int
    frames: int
    cosine: float  # the lowest over the batch
    error: float  # the largest absolute difference of L2-normalised embeddings

    @property
    def passed(self) -> bool:
        return self.cosine >= MIN_COSINE


class ExportModule(nn.Module):
    """The exported graph: L2-normalised embeddings, and the features before normalisation.

    images float32 [B, 3, H, W], or clips [B, T, 3, H, W] -> two outputs [B, D]. Averaging over
    mirrored images and clips needs the features.
    """

    def __init__(self, model: ReidModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.embed(images)
        return F.normalize(features), features


Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""


def _silent(stage: str, done: int, total: int) -> None:
    pass


def export_onnx(
    source: Path,
    target: Path,
    *,
    input_name: str = "images",
    output_name: str = "embeddings",
    batches: Sequence[int] = BATCHES,
    on_progress: Progress = _silent,
) -> list[Parity]:
    """Exports the checkpoint `source` to `target` and verifies it before `target` is written.

    Args:
        on_progress: receives (stage, done, total).
    Returns:
        the comparison with PyTorch at each batch size, all within `MIN_COSINE`.
    Raises:
        ReidkitError: if ONNX Runtime's embeddings differ from PyTorch's; nothing is written.
    """
    model, header = checkpoint.load(source)
    exported = ExportModule(model).eval()
    metadata = {
        "format": 2,
        "arch": header.arch,
        "arch_config": header.arch_config,
        "preprocess": dataclasses.asdict(header.preprocess),
        "input": "clips" if header.frames else "images",
        "frames": header.frames,
        "stride": header.stride,
        "pixels": "normalised",
        "outputs": [output_name, "features"],
        "features_output": "features",
        "precision": "fp32",
        "source_sha256": sha256(source),
        "dataset": header.dataset,
        "synthetic": header.synthetic,
        "reidkit": reidkit.__version__,
    }
    on_progress("exporting", 0, 1)
    with atomic(target) as partial:
        _write(exported, partial, header.preprocess, metadata, input_name, output_name)
        on_progress("exporting", 1, 1)
        shapes = [(batch, 0) for batch in batches]
        if header.frames:
            lengths = (header.frames, 1, header.frames + 3)
            shapes = list(zip(batches, itertools.cycle(lengths), strict=False))
        parities = compare(exported, partial, header.preprocess, shapes, on_progress=on_progress)
        failed = [parity for parity in parities if not parity.passed]
        if failed:
            worst = min(failed, key=lambda parity: parity.cosine)
            raise ReidkitError(
                f"the export of {source} failed its verification: at batch {worst.batch}"
                f"{f' of {worst.frames} frames' if worst.frames else ''} ONNX Runtime's "
                f"embeddings have cosine {worst.cosine:.6f} with PyTorch's, expected at least "
                f"{MIN_COSINE}. {target} was not written"
            )
    return parities


def compare(
    exported: nn.Module,
    path: Path,
    preprocess: Preprocess,
    shapes: Sequence[tuple[int, int]],
    *,
    on_progress: Progress = _silent,
) -> list[Parity]:
    """PyTorch and ONNX Runtime on the same normalised smooth random images, for each shape
    (batch, frames); 0 frames stands for images."""
    session = open_session(path, "cpu")
    name = session.get_inputs()[0].name
    generator = torch.Generator().manual_seed(0)
    parities: list[Parity] = []
    for batch, frames in shapes:
        coarse = torch.rand(batch * (frames or 1), 3, 16, 8, generator=generator)
        pixels = F.interpolate(coarse, preprocess.size, mode="bicubic").clamp(0, 1)
        noise = torch.rand(pixels.shape, generator=generator)
        pixels = ((0.8 * pixels + 0.2 * noise) * 255).round().to(torch.uint8)
        images = preprocess.normalise(pixels.permute(0, 2, 3, 1))
        if frames:
            images = images.reshape(batch, frames, *images.shape[1:])
        with torch.inference_mode():
            expected = exported(images)[0].double()
        found = torch.from_numpy(session.run(None, {name: images.numpy()})[0]).double()
        cosine = F.cosine_similarity(expected, found).min().item()
        on_progress("verifying", len(parities) + 1, len(shapes))
        parities.append(Parity(batch, frames, cosine, (expected - found).abs().max().item()))
    return parities


def _write(
    exported: nn.Module,
    path: Path,
    preprocess: Preprocess,
    metadata: dict[str, Any],
    input_name: str,
    output_name: str,
) -> None:
    import onnx

    example = torch.zeros(2, 3, *preprocess.size)
    dynamic = {0: torch.export.Dim("batch", min=1)}
    if metadata["frames"]:
        example = torch.zeros(2, 3, 3, *preprocess.size)
        dynamic[1] = torch.export.Dim("frames", min=1)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _silence_exporter():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            exported,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name, metadata["features_output"]],
            dynamic_shapes={"images": dynamic},
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    proto = program.model_proto
    _strip_source_info(proto)
    onnx.helper.set_model_props(proto, {"reidkit": json.dumps(metadata)})
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _strip_source_info(proto: Any) -> None:
    """Removes stack traces: an exported file contains no local paths or source lines."""
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        graph.doc_string = ""
        for entry in [*graph.node, *getattr(graph, "value_info", [])]:
            del entry.metadata_props[:]
            entry.doc_string = ""
    for entry in [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del entry.metadata_props[:]
        entry.doc_string = ""
    del proto.metadata_props[:]


@contextlib.contextmanager
def _silence_exporter() -> Any:
    """Silences the loggers that the exporter reports its progress through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
