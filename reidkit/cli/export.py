"""reidkit export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.choices import Consumer, ExportInput, ExportOutputs, ExportPrecision
from reidkit.cli.options import DataRootOption, JsonOption, open_data
from reidkit.cli.output import print_json, stage_progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reidkit.checkpoint import Header
    from reidkit.export.exporter import ExportReport
    from reidkit.export.settings import ExportSettings

PANELS = {
    "File": ("out", "overwrite", "consumer", "input_name", "output_name", "json"),
    "Graph": ("input", "outputs", "batch", "frames", "opset", "ir"),
    "Precision and verification": ("precision", "calibrate", "verify", "tolerance", "data_root"),
}


def export(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint or run folder.", show_default="the newest run")
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Export to ONNX.", show_default=False)
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="ONNX file.", show_default="model.onnx beside the checkpoint"
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a file that is no export of this checkpoint."),
    ] = False,
    consumer: Annotated[
        Consumer,
        typer.Option(
            "--for", help="Program that will load the file; also writes its configuration."
        ),
    ] = "onnxruntime",
    input: Annotated[
        ExportInput | None,
        typer.Option(
            help="Values of the input; the graph normalises all but normalised.",
            show_default="normalised, or what --for needs",
        ),
    ] = None,
    outputs: Annotated[
        ExportOutputs | None,
        typer.Option(
            help="Outputs: L2-normalised embeddings, and the features before normalisation.",
            show_default="embeddings,features, or what --for needs",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fixed batch size.", show_default="any")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Fixed number of frames of a clip; 0 takes single images.",
            show_default="any",
        ),
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set.")] = 16,
    ir: Annotated[
        int | None,
        typer.Option("--ir", help="ONNX IR version.", show_default="8 or what is needed"),
    ] = None,
    precision: Annotated[
        ExportPrecision, typer.Option(help="Precision of weights and arithmetic.")
    ] = "fp32",
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Images to measure the ranges for int8 on: a data set, or a folder.",
            show_default="the training images of --verify",
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            help="Data set to evaluate checkpoint and file on, and refuse the file if they differ."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest change of mAP and rank-1 that --verify accepts, in points.",
            show_default="0.1; int8: mAP 0.5 lower",
        ),
    ] = None,
    input_name: Annotated[str, typer.Option(help="Name of the image input.")] = "images",
    output_name: Annotated[str, typer.Option(help="Name of the first output.")] = "embeddings",
    data_root: DataRootOption = None,
    json: JsonOption = False,
) -> None:
    """Export a checkpoint to ONNX.

    The file is written only after ONNX Runtime has given the same embeddings as PyTorch.

    \b
    Examples:
      reidkit export --onnx
      reidkit export model.safetensors --onnx -o model.onnx
      reidkit export --onnx --for ultralytics
      reidkit export --onnx --verify market1501
      reidkit export --onnx --precision int8 --verify market1501
    """
    from reidkit.cli.runs import find_model
    from reidkit.config import require
    from reidkit.export.consumers import default_target, settings_for

    require(
        model is None or model.suffix != ".onnx",
        f"{model} is an ONNX file already. Export the checkpoint that it was made from",
    )
    require(
        precision != "int8" or calibrate is not None or verify is not None,
        "--precision int8 needs images to measure ranges on: add --calibrate DATASET, --calibrate "
        "FOLDER, or --verify DATASET, which also evaluates the file",
    )
    require(
        calibrate is None or precision == "int8",
        f"--calibrate {calibrate}: only int8 is calibrated. Add --precision int8",
    )
    require(
        tolerance is None or verify is not None,
        f"--tolerance {tolerance}: it bounds the change that --verify finds. Add --verify DATASET",
    )
    settings = settings_for(
        consumer,
        pixels=input,
        outputs=outputs,
        batch=batch,
        frames=frames,
        precision=precision,
        opset=opset,
        ir=ir,
        input_name=input_name,
        output_name=output_name,
        tolerance=tolerance,
    )
    source = find_model(model)
    images = None
    if precision == "int8":
        images = calibrate or verify
    datasets = [verify] if images is None or is_image_folder(images) else [verify, images]
    for dataset in filter(None, datasets):
        from reidkit.data.manifest import locate

        locate(dataset, data_root)

    from reidkit.checkpoint import read_header
    from reidkit.export.exporter import export_onnx

    header = read_header(source)
    crops = [] if images is None else calibration_crops(images, header, settings, data_root)
    with stage_progress() as on_progress:
        report = export_onnx(
            source,
            out or default_target(consumer, source, header.arch),
            settings,
            calibration=crops,
            dataset=None if verify is None else open_data(verify, data_root),
            overwrite=overwrite,
            on_progress=on_progress,
        )
    if json:
        print_json(report_document(report))
    else:
        print_report(report)


def is_image_folder(name: str) -> bool:
    """Whether `name` is a folder of images, not a data set's name, manifest or folder."""
    return Path(name).is_dir() and not (Path(name) / "manifest.toml").is_file()


def calibration_crops(
    name: str, header: Header, settings: ExportSettings, data_root: Path | None
) -> list[NDArray[np.uint8]]:
    """Crops of the training images of a data set, or of the images in a folder."""
    from reidkit.cli.extract import find_images
    from reidkit.errors import ConfigError
    from reidkit.export.calibration import image_crops, training_crops

    frames = header.frames if settings.frames is None else settings.frames
    if not is_image_folder(name):
        return training_crops(open_data(name, data_root), header.preprocess, frames=frames)
    if frames:
        raise ConfigError(
            f"--calibrate {name}: the network takes clips and this is a folder of images. Pass a "
            "data set of tracklets"
        )
    return image_crops(find_images(name), header.preprocess)


def report_document(report: ExportReport) -> dict[str, Any]:
    return {
        "file": str(report.file),
        "for": report.settings.consumer,
        "precision": report.settings.precision,
        "float16_share": report.float16_share,
        "float16_sample": dataclasses.asdict(sample) if (sample := report.float16_sample) else None,
        "parity": [dataclasses.asdict(parity) for parity in report.parities],
        "results": report.results.to_dict() if report.results else None,
        "configuration": [str(path) for path in report.configuration],
    }


def print_report(report: ExportReport) -> None:
    from reidkit.export.consumers import CONSUMERS

    consumer = CONSUMERS[report.settings.consumer]
    fed = f", fed as {consumer.title} does" if consumer.feed else ""
    for parity in report.parities:
        clips = f" x {parity.frames} frames" if parity.frames else ""
        print(
            f"batch {parity.batch}{clips}: cosine >= {parity.cosine:.6f}, "
            f"absolute error <= {parity.error:.1e}{fed}"
        )
    if report.settings.precision == "fp16":
        print(f"float16: {report.float16_share:.0%} of the convolutions' work")
    if sample := report.float16_sample:
        print(
            f"cosine with float32 >= {sample.lowest:.6f} on {sample.count} random inputs, >= "
            f"{sample.rare:.6f} in 999 of 1,000 (estimate)"
        )
    if report.results:
        print(f"{report.results.dataset}: {report.results.summary()}")
    for path in (report.file, *report.configuration):
        print(path)
