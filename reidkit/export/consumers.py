"""Programs that load exported files: what each feeds a network, and the configuration it reads.

The facts come from their documentation and, for BoxMOT 25 and Ultralytics 8.4, from running them
(docs/commands/export.md). None of them is imported.
"""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import Consumer, ExportInput, ExportOutputs, ExportPrecision
from reidkit.errors import ConfigError
from reidkit.export.settings import ExportSettings, Feed
from reidkit.preprocess import Preprocess

IMAGENET = Preprocess()
"""Normalisation that BoxMOT applies to every network."""

DEEPSTREAM_SCALE, DEEPSTREAM_OFFSETS = 1.0, (0.0, 0.0, 0.0)
"""DeepStream feeds scale * (pixel - offset) with one scale for all channels, so the graph itself
normalises."""

TRITON_BATCH, TRITON_DELAY = 64, 2000
"""Largest batch that Triton collects, and how many microseconds it waits for one."""


@dataclass(frozen=True)
class WrittenModel:
    """What a consumer's configuration states about an exported file.

    Attributes:
        name: of the architecture.
        size: (height, width) of the input.
        dimension: D.
        clips: whether it takes clips.
    """

    path: Path
    name: str
    size: tuple[int, int]
    dimension: int
    clips: bool
    settings: ExportSettings


@dataclass(frozen=True)
class ConsumerSpec:
    """What a program needs of a file.

    Attributes:
        title: its name in messages.
        pixels: input that it feeds; None: any, as the caller prepares it.
        rgb: feeds RGB whatever the network's channel order.
        normalises: the normalisation that it applies itself, if it does.
        outputs: that it accepts; None: any.
        clips: accepts clips.
        fixed_batch: accepts a fixed batch size.
        precisions: that it runs.
        feed: its preprocessing of RGB crops of the network's size; None: the caller's own.
        configuration: the texts of the files it reads, by path.
    """

    title: str
    pixels: ExportInput | None = None
    rgb: bool = False
    normalises: Preprocess | None = None
    outputs: ExportOutputs | None = None
    clips: bool = False
    fixed_batch: bool = True
    precisions: tuple[ExportPrecision, ...] = ("fp32", "fp16", "int8")
    feed: Feed | None = None
    configuration: Callable[[WrittenModel], Mapping[Path, str]] = lambda model: {}


def _planes(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[..., H, W, 3] -> float32 [..., 3, H, W]."""
    return np.ascontiguousarray(np.moveaxis(crops, -1, -3), np.float32)


def feed_boxmot(crops: NDArray[np.uint8]) -> NDArray[Any]:
    """RGB / 255, normalised with ImageNet's mean and standard deviation (reid/core/crops.py)."""
    mean, std = (
        np.array(value, np.float32)[:, None, None] for value in (IMAGENET.mean, IMAGENET.std)
    )
    return (_planes(crops) / 255 - mean) / std


def feed_ultralytics(crops: NDArray[np.uint8]) -> NDArray[Any]:
    """RGB / 255 (trackers/utils/reid.py)."""
    return _planes(crops) / 255


def feed_deepstream(crops: NDArray[np.uint8]) -> NDArray[Any]:
    """RGB planes minus offsets, times one scale (Gst-nvtracker, section ReID)."""
    offsets = np.array(DEEPSTREAM_OFFSETS, np.float32)[:, None, None]
    return (_planes(crops) - offsets) * np.float32(DEEPSTREAM_SCALE)


def feed_opencv(crops: NDArray[np.uint8]) -> NDArray[Any]:
    """`blobFromImages` of BGR images with swapRB and its default scale and mean: RGB planes."""
    return _planes(crops)


def configure_ultralytics(model: WrittenModel) -> Mapping[Path, str]:
    """A tracker for `yolo track tracker=FILE`: BoT-SORT's settings with this network."""
    lines = (
        "# For Ultralytics 8.4.182 or newer; earlier ones of 8.4 feed BGR or a square crop.",
        "tracker_type: botsort",
        "track_high_thresh: 0.25",
        "track_low_thresh: 0.1",
        "new_track_thresh: 0.25",
        "track_buffer: 30",
        "match_thresh: 0.8",
        "fuse_score: True",
        "gmc_method: sparseOptFlow",
        "proximity_thresh: 0.5",
        "appearance_thresh: 0.8",
        "with_reid: True",
        "# On the machine that exported; change it where the model is moved.",
        f"model: {json.dumps(str(model.path.resolve()))}",
    )
    return {model.path.with_suffix(".botsort.yaml"): "\n".join(lines) + "\n"}


def configure_deepstream(model: WrittenModel) -> Mapping[Path, str]:
    """The section ReID of a Gst-nvtracker configuration."""
    height, width = model.size
    offsets = ", ".join(f"{value:g}" for value in DEEPSTREAM_OFFSETS)
    lines = (
        "# The section ReID, in place of that of Gst-nvtracker's low-level configuration, such as",
        "# config_tracker_NvDCF_accuracy.yml or config_tracker_NvDeepSORT.yml.",
        "ReID:",
        "  reidType: 2  # 1: association (NvDeepSORT), 2: re-association, 3: both",
        f"  batchSize: {model.settings.batch or 100}",
        "  workspaceSize: 1000",
        f"  reidFeatureSize: {model.dimension}",
        "  reidHistorySize: 100",
        f"  inferDims: [3, {height}, {width}]",
        "  networkMode: 0  # 0: float32, 1: float16",
        "  inputOrder: 0  # NCHW",
        "  colorFormat: 0  # RGB",
        f"  offsets: [{offsets}]",
        f"  netScaleFactor: {DEEPSTREAM_SCALE}",
        "  keepAspc: 0  # crops are stretched to the input, as in training",
        "  addFeatureNormalization: 0  # the network normalises",
        "  # Paths on the machine that exported; change them where the model is moved.",
        f"  onnxFile: {json.dumps(str(model.path.resolve()))}",
        f"  modelEngineFile: {json.dumps(str(model.path.resolve()) + '.engine')}",
    )
    return {model.path.with_suffix(".nvtracker.yml"): "\n".join(lines) + "\n"}


def configure_triton(model: WrittenModel) -> Mapping[Path, str]:
    """config.pbtxt of the repository that the file was written into, with dynamic batching."""
    uint8 = model.settings.pixels == "uint8-nhwc"
    sizes = [*model.size, 3] if uint8 else [3, *model.size]
    if model.clips:
        sizes = [model.settings.frames or -1, *sizes]

    def tensor(name: str, kind: str, dims: list[int]) -> str:
        return f'  {{ name: "{name}" data_type: {kind} dims: {dims} }}'

    outputs = ",\n".join(
        tensor(name, "TYPE_FP32", [model.dimension]) for name in model.settings.output_names
    )
    image = tensor(model.settings.input_name, "TYPE_UINT8" if uint8 else "TYPE_FP32", sizes)
    text = (
        f'name: "{model.path.parent.parent.name}"\n'
        'platform: "onnxruntime_onnx"\n'
        f"max_batch_size: {TRITON_BATCH}\n"
        f"input [\n{image}\n]\n"
        f"output [\n{outputs}\n]\n"
        f"dynamic_batching {{ max_queue_delay_microseconds: {TRITON_DELAY} }}\n"
    )
    return {model.path.parent.parent / "config.pbtxt": text}


def configure_openvino(model: WrittenModel) -> Mapping[Path, str]:
    """Properties for `benchmark_app -load_config`: on CPUs with bfloat16 OpenVINO computes in it
    unless told otherwise, which changes results."""
    hint = "f16" if model.settings.precision == "fp16" else "f32"
    text = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": hint}}, indent=1) + "\n"
    return {model.path.with_suffix(".openvino.json"): text}


CONSUMERS: dict[Consumer, ConsumerSpec] = {
    "onnxruntime": ConsumerSpec("ONNX Runtime", clips=True),
    "boxmot": ConsumerSpec(
        "BoxMOT",
        pixels="normalised",
        rgb=True,
        normalises=IMAGENET,
        outputs="embeddings",
        feed=feed_boxmot,
    ),
    "ultralytics": ConsumerSpec(
        "Ultralytics",
        pixels="0-1",
        rgb=True,
        outputs="embeddings",
        feed=feed_ultralytics,
        configuration=configure_ultralytics,
    ),
    "deepstream": ConsumerSpec(
        "DeepStream",
        pixels="0-255",
        rgb=True,
        outputs="embeddings",
        precisions=("fp32",),
        feed=feed_deepstream,
        configuration=configure_deepstream,
    ),
    "triton": ConsumerSpec(
        "Triton",
        pixels="uint8-nhwc",
        rgb=True,
        clips=True,
        fixed_batch=False,
        feed=np.ascontiguousarray,
        configuration=configure_triton,
    ),
    "openvino": ConsumerSpec("OpenVINO", clips=True, configuration=configure_openvino),
    "opencv": ConsumerSpec(
        "OpenCV",
        pixels="0-255",
        rgb=True,
        outputs="embeddings",
        clips=True,
        precisions=("fp32",),
        feed=feed_opencv,
    ),
}


def settings_for(
    consumer: Consumer,
    *,
    pixels: ExportInput | None = None,
    outputs: ExportOutputs | None = None,
    **others: Any,
) -> ExportSettings:
    """Settings with what `consumer` needs in place of what is None.

    Args:
        others: further fields of `ExportSettings`.
    Raises:
        ConfigError: a value is one that the consumer does not take.
    """
    spec = CONSUMERS[consumer]
    for option, value, needed in (
        ("--input", pixels, spec.pixels),
        ("--outputs", outputs, spec.outputs),
    ):
        if None not in (value, needed) and value != needed:
            raise ConfigError(
                f"{option} {value}: {spec.title} needs {needed}. Leave {option} out, or export "
                "without --for"
            )
    settings = ExportSettings(
        consumer=consumer,
        pixels=pixels or spec.pixels or "normalised",
        outputs=outputs or spec.outputs or "embeddings,features",
        **others,
    )
    if settings.precision not in spec.precisions:
        raise ConfigError(
            f"--precision {settings.precision}: {spec.title} takes "
            f"{' or '.join(spec.precisions)} and converts it itself. Leave --precision out"
        )
    if settings.batch and not spec.fixed_batch:
        raise ConfigError(
            f"--batch {settings.batch}: {spec.title} collects batches of any size. Leave --batch "
            "out"
        )
    return settings


def check_clips(consumer: Consumer, *, clips: bool) -> None:
    """Raises ConfigError if the file takes clips and the consumer feeds single images."""
    spec = CONSUMERS[consumer]
    if clips and not spec.clips:
        raise ConfigError(
            f"the network takes clips and {spec.title} feeds single images. Write --frames 0 to "
            "export it for images"
        )


def default_target(consumer: Consumer, source: Path, arch: str) -> Path:
    """Where the file is written without -o: beside the checkpoint, for Triton in a repository."""
    if consumer == "triton":
        name = arch.replace("/", "-")
        return source.parent / "model_repository" / name / "1" / "model.onnx"
    return source.with_name("model.onnx")


def check_target(consumer: Consumer, target: Path) -> None:
    """Raises ConfigError if the name is not that of an ONNX file, by which programs recognise it,
    or if Triton would not find the file in its repository."""
    if target.suffix != ".onnx":
        raise ConfigError(f"-o {target}: expected a name that ends in .onnx")
    found = target.parent.name.isdigit() and target.name == "model.onnx"
    if consumer == "triton" and not found:
        raise ConfigError(
            f"-o {target}: Triton reads REPOSITORY/NAME/VERSION/model.onnx. Write for example "
            f"-o {target.parent / 'model_repository/reid/1/model.onnx'}"
        )
