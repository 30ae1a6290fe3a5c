"""Export of a checkpoint to ONNX: the file is written only after it has been verified."""

# B batch, T frames, H W pixels, D embedding

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, checker, helper, load, save

import reidkit
from reidkit import checkpoint
from reidkit.checkpoint import Header
from reidkit.errors import ConfigError
from reidkit.export.consumers import CONSUMERS, WrittenModel, check_clips, check_target
from reidkit.export.graph import clean, set_ir, set_opset
from reidkit.export.module import ExportModule, to_onnx
from reidkit.export.precision import crop_batches, float16_graphs, to_int8
from reidkit.export.results import ResultComparison, check_results, compare_results
from reidkit.export.settings import ExportSettings
from reidkit.export.verification import (
    MIN_COSINE,
    Parity,
    Progress,
    SampleCosines,
    Verification,
    Verifier,
    check_verification,
    feed_for,
    parity_shapes,
    random_crops,
    sample_shapes,
)
from reidkit.files import atomic, check_regular, sha256
from reidkit.preprocess import Preprocess
from reidkit.types import Dataset

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of the metadata in exported files."""

MAX_BYTES = 2**31
"""Size of the largest ONNX file without external data."""

HELD_OUT = 8
"""Of the images for calibration, each 8th one is left out of it and verifies the int8 file."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported and how it was verified.

    Attributes:
        parities: comparison with PyTorch at each batch size.
        results: comparison of evaluation results, if one was requested.
        configuration: files for the consumer.
        float16_share: of the convolutions' work; 0 in other precisions.
        float16_sample: comparison of the float16 file with the float32 one; None in other
            precisions.
    """

    file: Path
    settings: ExportSettings
    parities: list[Parity]
    results: ResultComparison | None = None
    configuration: list[Path] = field(default_factory=list)
    float16_share: float = 0.0
    float16_sample: SampleCosines | None = None


def _silent(stage: str, done: int, total: int) -> None:
    pass


def export_onnx(
    source: Path,
    target: Path,
    settings: ExportSettings | None = None,
    *,
    calibration: Sequence[NDArray[np.uint8]] = (),
    dataset: Dataset | None = None,
    overwrite: bool = False,
    on_progress: Progress = _silent,
) -> ExportReport:
    """Exports the checkpoint `source` to `target` and verifies it before `target` is written.

    In float16, as many of the first layers stay float32 as the verification needs.

    Args:
        calibration: RGB crops of the network's size, each uint8 [H, W, 3], or clips [T, H, W, 3]
            of equal length, that the ranges for int8 are measured on.
        dataset: to evaluate checkpoint and file on; the file's metadata states the result.
        overwrite: replaces files that are there.
        on_progress: receives (stage, done, total).
    Raises:
        ConfigError: the settings do not fit the network or the consumer, there are no images for
            int8, or, without `overwrite`, `target` is there and is no export of `source` (beside
            it: of any checkpoint), or a file for the consumer is there and has other contents.
        ReidkitError: ONNX Runtime's embeddings, or results on `dataset`, differ from PyTorch's by
            more than is accepted. Nothing is written.
    """
    settings = settings or ExportSettings()
    check_target(settings.consumer, target)
    different = len({crop.tobytes() for crop in calibration})
    if settings.precision == "int8" and different < HELD_OUT:
        raise ConfigError(
            f"int8 needs at least {HELD_OUT} different images to measure ranges on, found "
            f"{different}. Pass --calibrate DATASET or --calibrate FOLDER"
        )
    model, header = checkpoint.load(source)
    clips = takes_clips(header, settings, source)
    check_clips(settings.consumer, clips=clips)
    spec = CONSUMERS[settings.consumer]
    written = WrittenModel(
        path=target,
        name=header.arch,
        size=header.preprocess.size,
        dimension=model.embedding_dim,
        clips=clips,
        settings=settings,
    )
    source_hash = sha256(source)
    if not overwrite:
        check_replaceable(written, source, source_hash)
    caller = caller_preprocess(header.preprocess, settings)
    module = ExportModule(
        model,
        preprocess=header.preprocess,
        caller=caller,
        pixels=settings.pixels,
        features="features" in settings.output_names,
    )
    on_progress("exporting", 0, 1)
    proto = to_onnx(
        module,
        size=header.preprocess.size,
        batch=settings.batch,
        clips=clips,
        frames=settings.frames,
        input_name=settings.input_name,
        output_names=settings.output_names,
    )
    clean(proto)
    set_opset(proto, settings.opset)
    set_ir(proto, settings.ir)
    metadata = describe(header, settings, caller, clips=clips) | {"source_sha256": source_hash}
    on_progress("exporting", 1, 1)
    feed = spec.feed or feed_for(caller, settings.pixels)
    graphs: Iterable[tuple[ModelProto, float]] = [(proto, 0.0)]
    with atomic(target) as partial:
        if settings.precision == "int8":
            crops = [crop for k, crop in enumerate(calibration) if k % HELD_OUT]
            graphs = [(to_int8(proto, crops, feed, batch=settings.batch), 0.0)]
            batches = list(crop_batches(calibration[::HELD_OUT], settings.batch or HELD_OUT))
        else:
            shapes = parity_shapes(
                batch=settings.batch,
                clips=clips,
                frames=settings.frames,
                trained_frames=header.frames,
            )
            batches = random_crops(shapes, header.preprocess.size)
        verifier = Verifier(
            model,
            preprocess=header.preprocess,
            feed=feed,
            batches=batches,
            least=MIN_COSINE[settings.precision],
            on_progress=on_progress,
        )
        if settings.precision == "fp16":
            graphs = float16_graphs(proto)
            frames = (settings.frames or header.frames) if clips else 0
            shapes = sample_shapes(batch=settings.batch, frames=frames)
            write(proto, partial, metadata)
            verifier.set_sample(partial, random_crops(shapes, header.preprocess.size))

        def verify(candidate: ModelProto) -> Verification:
            write(candidate, partial, metadata)
            return verifier.verify(partial)

        proto, float16_share, found = first_accepted(graphs, verify, least=verifier.least)
        check_verification(
            found, settings, source=source, target=target, results_decide=dataset is not None
        )
        results = None
        if dataset is not None:
            results = compare_results(source, partial, dataset, on_progress=on_progress)
            check_results(results, settings, target=target)
            write(proto, partial, metadata | {"results": results.to_dict()})
    configuration = write_configuration(written)
    return ExportReport(
        target,
        settings,
        found.parities,
        results=results,
        configuration=configuration,
        float16_share=float16_share,
        float16_sample=found.sample,
    )


def takes_clips(header: Header, settings: ExportSettings, source: Path) -> bool:
    """Whether the exported file takes clips.

    Raises:
        ConfigError: `settings.frames` is set for a network of single images.
    """
    if settings.frames and not header.frames:
        raise ConfigError(
            f"--frames {settings.frames}: {source} was trained on single images. Leave --frames out"
        )
    return header.frames > 0 and settings.frames != 0


def caller_preprocess(preprocess: Preprocess, settings: ExportSettings) -> Preprocess:
    """What the caller of the exported file does: the consumer's channel order and normalisation
    where it has its own, else the network's."""
    spec = CONSUMERS[settings.consumer]
    if spec.rgb and preprocess.channels == "bgr":
        preprocess = dataclasses.replace(
            preprocess, channels="rgb", mean=preprocess.mean[::-1], std=preprocess.std[::-1]
        )
    if spec.normalises is not None:
        preprocess = dataclasses.replace(
            preprocess, mean=spec.normalises.mean, std=spec.normalises.std
        )
    return preprocess


def describe(
    header: Header, settings: ExportSettings, caller: Preprocess, *, clips: bool
) -> dict[str, Any]:
    """The metadata of an exported file, except the hash of its checkpoint.

    `pixels` is what the input contains: "normalised" with the mean and std of `preprocess`, "0-1",
    "0-255", or "uint8" [.., H, W, 3]; otherwise the graph normalises. `assumes` repeats the mean
    and std of a consumer that normalises every network's input in the same way.
    """
    assumes = None
    if CONSUMERS[settings.consumer].normalises is not None:
        assumes = {"mean": caller.mean, "std": caller.std}
    return {
        "format": FORMAT,
        "arch": header.arch,
        "arch_config": header.arch_config,
        "preprocess": dataclasses.asdict(caller),
        "pixels": "uint8" if settings.pixels == "uint8-nhwc" else settings.pixels,
        "assumes": assumes,
        "input": "clips" if clips else "images",
        "frames": (settings.frames or header.frames) if clips else 0,
        "stride": header.stride if clips else 0,
        "outputs": list(settings.output_names),
        "features_output": "features" if "features" in settings.output_names else "",
        "precision": settings.precision,
        "consumer": settings.consumer,
        "dataset": header.dataset,
        "synthetic": header.synthetic,
        "reidkit": reidkit.__version__,
    }


def write(proto: ModelProto, path: Path, metadata: Mapping[str, Any]) -> None:
    helper.set_model_props(proto, {"reidkit": json.dumps(metadata)})
    checker.check_model(proto, full_check=True)
    save(proto, path)


def check_replaceable(model: WrittenModel, source: Path, source_hash: str) -> None:
    """Raises ConfigError if a file that the export would replace is not its own: one at
    `model.path` that was not exported from this checkpoint or, beside it, from an earlier one; or
    an edited configuration. One for another consumer is a warning."""
    advice = "Add --overwrite to replace it, or choose another file with -o"
    check_regular(model.path, ConfigError)
    if model.path.exists():
        earlier = _metadata_of(model.path)
        exported_from = earlier.get("source_sha256")
        beside = exported_from is not None and model.path.parent.samefile(source.parent)
        if exported_from != source_hash and not beside:
            raise ConfigError(
                f"{model.path} exists and was not exported from the present {source}. {advice}"
            )
        if earlier.get("consumer") not in (None, model.settings.consumer):
            log.warning(
                "%s was exported for %s and is replaced: files that were written for that no "
                "longer fit it. Keep both with -o",
                *(model.path, earlier["consumer"]),
            )
    for path, text in configuration_texts(model).items():
        if path.exists() and path.read_bytes() != text.encode():
            raise ConfigError(f"{path} exists and has other contents. {advice}")


def _metadata_of(path: Path) -> Mapping[str, Any]:
    """What `describe` wrote into a file; empty if it is no export."""
    if path.stat().st_size > MAX_BYTES:
        return {}
    try:
        proto = load(path, load_external_data=False)
        (stored,) = (entry.value for entry in proto.metadata_props if entry.key == "reidkit")
        metadata = json.loads(stored)
    except (OSError, ValueError, DecodeError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def configuration_texts(model: WrittenModel) -> Mapping[Path, str]:
    """The files that the consumer reads, by path."""
    return CONSUMERS[model.settings.consumer].configuration(model)


def write_configuration(model: WrittenModel) -> list[Path]:
    """Writes the files that the consumer reads; returns their paths."""
    texts = configuration_texts(model)
    for path, text in texts.items():
        with atomic(path) as partial:
            partial.write_text(text)
    return list(texts)


def first_accepted(
    graphs: Iterable[tuple[ModelProto, float]],
    verify: Callable[[ModelProto], Verification],
    *,
    least: float,
) -> tuple[ModelProto, float, Verification]:
    """The first graph whose cosines are at least `least`, with its number and verification; else
    the last one."""
    for proto, share in graphs:
        found = proto, share, verify(proto)
        if found[2].accepts(least):
            break
    return found
