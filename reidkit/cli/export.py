"""reidkit export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import JsonOption
from reidkit.cli.output import print_json, stage_progress


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
    input_name: Annotated[str, typer.Option(help="Name of the image input.")] = "images",
    output_name: Annotated[str, typer.Option(help="Name of the first output.")] = "embeddings",
    json: JsonOption = False,
) -> None:
    """Export a checkpoint to ONNX.

    The file is written only after ONNX Runtime has given the same embeddings as PyTorch.

    \b
    Examples:
      reidkit export --onnx
      reidkit export model.safetensors --onnx -o model.onnx
    """
    from reidkit.cli.runs import find_model
    from reidkit.config import require

    require(
        model is None or model.suffix != ".onnx",
        f"{model} is an ONNX file already. Export the checkpoint that it was made from",
    )
    source = find_model(model)

    from reidkit.runtime.export import export_onnx

    target = out or source.with_name("model.onnx")
    with stage_progress() as on_progress:
        parities = export_onnx(
            source, target, input_name=input_name, output_name=output_name, on_progress=on_progress
        )
    if json:
        print_json({"file": str(target), "parity": [dataclasses.asdict(p) for p in parities]})
        return
    for parity in parities:
        clips = f" x {parity.frames} frames" if parity.frames else ""
        print(
            f"batch {parity.batch}{clips}: cosine >= {parity.cosine:.6f}, "
            f"absolute error <= {parity.error:.1e}"
        )
    print(target)
