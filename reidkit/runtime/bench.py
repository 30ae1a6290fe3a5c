"""Speed, memory and agreement of models on every backend that there is.

Every backend runs in processes of its own (`bench_worker`), one for latency and one for throughput,
and the backends take turns in several rounds, so that other load on the machine affects all alike.
"""

# D embedding

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidkit.device import cuda_index

CROPS = (1, 8, 20)
"""Crops whose latency is measured: one person, a quiet scene, a crowd."""
BATCHES = (1, 8, 16, 32, 64)
"""Batch sizes that are tried for throughput."""
EXTRACTED = 64
"""Images whose extraction is measured, or a multiple: threads share them evenly."""
ROUNDS = 3
"""Turns of every backend; fewer where the time is over earlier."""

Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""


@dataclass(frozen=True)
class Backend:
    """How one model can run.

    Attributes:
        path: of the model.
        name: for tables: "PyTorch", "ONNX Runtime", "OpenVINO".
        device: cpu or cuda:N.
        precision: fp32 or bf16 for checkpoints; "" as exported.
        options: of `Runtime`.
    """

    path: Path
    name: str
    device: str
    precision: str
    options: Mapping[str, Any]


@dataclass
class BenchResult:
    """Measurements of one backend; times in seconds, rates in crops per second.

    Attributes:
        error: why there are no measurements; "" if there are.
        description: what `Runtime.describe` says.
        precision: of weights or arithmetic; "" where a file does not state it.
        network, total: times by the number of crops, of the network alone and from files on.
        network_rate: of the network alone, at `batch`, the best of `BATCHES`.
        total_rate: from files on, as `reidkit extract` does it.
        latency_memory, throughput_memory: peak resident memory in bytes.
        cosine: the lowest between its embeddings and those of the first backend; NaN where they
            have another length.
    """

    backend: Backend
    error: str = ""
    description: str = ""
    precision: str = ""
    network: dict[int, list[float]] = field(default_factory=dict)
    total: dict[int, list[float]] = field(default_factory=dict)
    batch: int = 0
    network_rate: float = 0.0
    total_rate: float = 0.0
    latency_memory: int = 0
    throughput_memory: int = 0
    cosine: float = float("nan")

    def percentiles(self, times: dict[int, list[float]], crops: int) -> tuple[float, float]:
        """p50 and p95; p95 of fewer than 20 calls is their maximum."""
        p50, p95 = np.percentile(times[crops], [50, 95], method="higher")
        return float(p50), float(p95)


def list_backends(path: Path, device: str, inputs: Mapping[str, Any]) -> list[Backend]:
    """The backends to try for a model. Those that are not there are found out by trying.

    Args:
        device: auto, cpu, cuda or cuda:N; auto: the CPU, and CUDA where there is a device.
        inputs: of `Runtime`, for ONNX files: `trust`, and the inputs of third-party ones.
    """
    index = cuda_index(device)
    devices = ["cpu"] if index is None else [f"cuda:{index}"]
    if device == "auto" and index is not None:
        devices.insert(0, "cpu")
    if path.suffix != ".onnx":
        return [
            Backend(path, "PyTorch", where, precision, {"device": where, "precision": precision})
            for where in devices
            for precision in ("fp32", "bf16")
        ]
    import onnxruntime

    backends = [
        Backend(path, "ONNX Runtime", where, "", {"device": where, **inputs}) for where in devices
    ]
    if "cpu" in devices and "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        options = {"device": "cpu", "provider": "openvino", **inputs}
        backends.append(Backend(path, "OpenVINO", "cpu", "", options))
    return backends


def run_bench(
    backends: Sequence[Backend],
    crops: Sequence[Path],
    *,
    seconds: float,
    on_progress: Progress = lambda stage, done, total: None,
) -> list[BenchResult]:
    """Measures all backends in turns.

    Args:
        crops: JPEG files, at least `max(CROPS)`.
        seconds: to measure in, shared by all backends; loading them comes on top. Everything is
            measured at least once, however long that takes.
    Returns:
        a result for each backend, in order; those that do not work have an `error`.
    """
    results = [BenchResult(backend) for backend in backends]
    with _workers(results, crops, "latency", on_progress) as workers:
        _measure_latency(workers, 0.4 * seconds, on_progress)
    working = [result for result in results if not result.error]
    if not working:
        return results
    with _workers(working, crops, "throughput", on_progress) as workers:
        _measure_throughput(workers, 0.3 * seconds, on_progress)
        _measure_extraction(workers, 0.3 * seconds, on_progress)
    return results


class _Worker:
    """The process of one backend, seen from here, and the result that it fills in."""

    def __init__(self, result: BenchResult, crops: Sequence[Path], mode: str) -> None:
        self.result = result
        self.rates: dict[int, float] = {}  # crops per second of the network, by batch size
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from reidkit.runtime.bench_worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        loaded = self._exchange(
            {
                "path": str(result.backend.path),
                "crops": [str(path) for path in crops],
                "options": {"mode": mode, **result.backend.options},
            }
        )
        result.description = loaded.get("description", "")
        result.precision = loaded.get("precision", result.backend.precision)
        self.embeddings = np.array(loaded.get("embeddings", []), np.float32)

    def ask(self, command: str, *arguments: Any) -> dict[str, Any]:
        """Calls a method of `BenchWorker`; {} if the backend does not work (any more), and then
        `result.error` says why."""
        return {} if self.result.error else self._exchange([command, *arguments])

    def _exchange(self, message: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {}
        if not line:
            status = self._process.wait()
            reason = self._last_line() if status > 0 else ""  # of an exception, not of a signal
            self.result.error = f"its process ended with status {status}{reason}"
        elif "error" in reply:
            self.result.error = reply.pop("error")
        return reply

    def _last_line(self) -> str:
        """What the process wrote to standard error last, after a colon; "" if it wrote nothing."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        written = [line.strip() for line in lines if line.strip()]
        return f": {written[-1]}" if written else ""

    def stop(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._log.close()


@contextlib.contextmanager
def _workers(
    results: Sequence[BenchResult], crops: Sequence[Path], mode: str, on_progress: Progress
) -> Iterator[list[_Worker]]:
    """A loaded worker for each backend; those that cannot load get their `error`."""
    workers: list[_Worker] = []
    try:
        for done, result in enumerate(results, 1):
            workers.append(_Worker(result, crops, mode))
            on_progress(f"loading for {mode}", done, len(results))
        working = [worker for worker in workers if not worker.result.error]
        for worker in working:
            first = working[0].embeddings
            if worker.embeddings.shape == first.shape:
                cosines = (worker.embeddings * first).sum(1)
                worker.result.cosine = min(1.0, float(cosines.min()))
        yield working
    finally:
        for worker in workers:
            worker.stop()


def _measure_latency(workers: list[_Worker], seconds: float, on_progress: Progress) -> None:
    """Fills in times by the number of crops, in turns, until the time is over."""
    share = seconds / max(1, len(workers) * len(CROPS) * ROUNDS)
    end = time.monotonic() + seconds
    for turn in range(ROUNDS):
        if turn and time.monotonic() > end:
            break
        for count in CROPS:
            for worker in workers:
                times = worker.ask("latency", count, share)
                worker.result.network.setdefault(count, []).extend(times.get("network", []))
                worker.result.total.setdefault(count, []).extend(times.get("total", []))
        on_progress("latency", turn + 1, turn + 1 if time.monotonic() > end else ROUNDS)
    for worker in workers:
        worker.result.latency_memory = worker.ask("memory").get("peak", 0)


def _measure_throughput(workers: list[_Worker], seconds: float, on_progress: Progress) -> None:
    """Fills in the best batch size and its rate. A batch that would take several times its share
    of the time is not tried."""
    share = seconds / max(1, len(workers) * len(BATCHES))
    for done, batch in enumerate(BATCHES, 1):
        for worker in workers:
            fastest = max(worker.rates.values(), default=math.inf)
            if batch <= 3 * share * fastest:
                worker.rates[batch] = worker.ask("throughput", batch, share).get("rate", 0.0)
        on_progress("throughput", done, len(BATCHES))
    for worker in workers:
        result, rates = worker.result, worker.rates
        result.batch = max(rates, key=lambda batch: rates[batch])
        result.network_rate = rates[result.batch]


def _measure_extraction(workers: list[_Worker], seconds: float, on_progress: Progress) -> None:
    """Fills in the median rate of extraction and memory."""
    share = seconds / max(1, len(workers) * ROUNDS)
    end = time.monotonic() + seconds
    rates: list[list[float]] = [[] for _ in workers]
    for turn in range(ROUNDS):
        if turn and time.monotonic() > end:
            break
        for worker, found in zip(workers, rates, strict=True):
            batches = max(1, round(share * worker.result.network_rate / EXTRACTED))
            found.append(worker.ask("extraction", batches * EXTRACTED).get("rate", 0.0))
        on_progress("extraction", turn + 1, turn + 1 if time.monotonic() > end else ROUNDS)
    for worker, found in zip(workers, rates, strict=True):
        worker.result.total_rate = float(np.median(found))
        worker.result.throughput_memory = worker.ask("memory").get("peak", 0)


def write_crops(folder: Path, count: int) -> list[Path]:
    """JPEG crops of Market-1501's size, 128x64: smooth colours with noise."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        colours = Image.fromarray(generator.integers(0, 256, (8, 4, 3), np.uint8))
        smooth = np.asarray(colours.resize((64, 128), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + generator.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=90)
    return paths
