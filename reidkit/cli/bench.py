"""reidkit bench."""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import (
    THIRD_PARTY,
    DeviceOption,
    JsonOption,
    TrustOption,
    third_party_options,
)
from reidkit.cli.output import print_json, print_table, stage_progress

if TYPE_CHECKING:
    from reidkit.runtime.bench import BenchResult

log = logging.getLogger(__name__)

MIB = 2**20
PANELS = {
    "Measurement": ("images", "device", "seconds", "json"),
    "Third-party ONNX models": THIRD_PARTY,
}


@third_party_options
def bench(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints, run folders or ONNX files.")],
    images: Annotated[
        str | None,
        typer.Option(
            help="Your own crops: a folder, a file or a glob.", show_default="synthetic, 128x64"
        ),
    ] = None,
    device: DeviceOption = "auto",
    seconds: Annotated[
        float, typer.Option(min=1, help="Measure for this long; loading comes on top.")
    ] = 60.0,
    json: JsonOption = False,
    trust: TrustOption = False,
    *,
    inputs: dict[str, Any],
) -> None:
    """Measure speed and memory of models on every backend.

    Backends are PyTorch in float32 and bfloat16 for checkpoints, ONNX Runtime and OpenVINO for ONNX
    files, on the CPU and, where there is one, the GPU. Each runs in processes of its own, and they
    take turns.

    \b
    Examples:
      reidkit bench runs/one model.onnx
      reidkit bench model.onnx --seconds 300 --images crops/ --json
    """
    from reidkit.cli.extract import find_images
    from reidkit.cli.runs import find_model
    from reidkit.errors import RuntimeMissing

    paths = [find_model(model) for model in models]
    files = None if images is None else find_images(images)

    from reidkit.runtime.bench import CROPS, list_backends, run_bench, write_crops

    backends = [
        backend
        for path in paths
        for backend in list_backends(
            path, device, inputs | {"trust": trust} if path.suffix == ".onnx" else {}
        )
    ]
    with tempfile.TemporaryDirectory() as folder, stage_progress() as on_progress:
        crops = write_crops(Path(folder), 64) if files is None else files
        crops = [crops[number % len(crops)] for number in range(max(len(crops), *CROPS))]
        results = run_bench(backends, crops, seconds=seconds, on_progress=on_progress)
    working = [result for result in results if not result.error]
    if json:
        print_json([_document(result) for result in results])
    elif working:
        _print_results(working)
    for result in results:
        if result.error:
            log.warning("%s: %s", _label(result), result.error)
    if not working:
        raise RuntimeMissing("no backend could run a model. Run: reidkit doctor")


def _label(result: BenchResult) -> str:
    backend = result.backend
    file = backend.path
    short = file.name if file.stem != "model" else str(Path(file.parent.name, file.name))
    return " ".join(filter(None, (short, backend.name, backend.device, backend.precision)))


def _print_results(results: list[BenchResult]) -> None:
    from reidkit.runtime.bench import CROPS

    header = ["", *map(str, CROPS), "batch", "network/s", "total/s", "MiB", "MiB", "cosine"]
    rows = []
    for result in results:
        cells = [_label(result)]
        for count in CROPS:
            p50, p95 = result.percentiles(result.total, count)
            cells.append(f"{1000 * p50:.1f}/{1000 * p95:.1f}")
        cells += [str(result.batch), f"{result.network_rate:.1f}", f"{result.total_rate:.1f}"]
        for memory in (result.latency_memory, result.throughput_memory):
            cells.append(f"{memory / MIB:.0f}")
        cells.append("-" if math.isnan(result.cosine) else f"{result.cosine:.5f}")
        rows.append(cells)
    crops = ", ".join(map(str, CROPS[:-1]))
    title = f"milliseconds for {crops} and {CROPS[-1]} crops, from files to embeddings: p50/p95"
    print_table(header, rows, title=title)
    print(
        "batch: the fastest batch size; then crops per second of the network alone and from files\n"
        "on; peak memory of the process for latency and of the one for throughput; the lowest\n"
        "cosine between its embeddings and those of the first row"
    )


def _document(result: BenchResult) -> dict[str, Any]:
    """One backend's results for JSON: milliseconds, crops per second, bytes."""
    backend = result.backend
    document: dict[str, Any] = {
        "model": str(backend.path),
        "backend": backend.name,
        "device": backend.device,
        "precision": result.precision or None,
    }
    if result.error:
        return document | {"error": result.error}
    latency = {}
    for crops in result.total:
        cell: dict[str, float] = {"calls": len(result.total[crops])}
        for name, times in (("network", result.network), ("total", result.total)):
            p50, p95 = result.percentiles(times, crops)
            cell |= {f"{name}_p50_ms": 1000 * p50, f"{name}_p95_ms": 1000 * p95}
        latency[str(crops)] = cell
    return document | {
        "description": result.description,
        "latency": latency,
        "batch": result.batch,
        "network_per_second": result.network_rate,
        "total_per_second": result.total_rate,
        "latency_peak_bytes": result.latency_memory,
        "throughput_peak_bytes": result.throughput_memory,
        "cosine": None if math.isnan(result.cosine) else result.cosine,
    }
