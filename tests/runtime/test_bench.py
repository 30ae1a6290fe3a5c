"""reidkit bench: every backend in a process of its own; one that fails does not end the others."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_onnx import write_mean_channels

from reidkit.cli import main
from reidkit.runtime.bench import (
    Backend,
    BenchResult,
    _Worker,
    list_backends,
    run_bench,
    write_crops,
)
from reidkit.runtime.bench_worker import BenchWorker, peak_memory

STATED = {"size": [8, 4], "mean": [0, 0, 0], "std": [1, 1, 1]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mean_channels(tmp_path_factory.mktemp("bench") / "means.onnx")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_crops(tmp_path_factory.mktemp("crops"), 20)


def backend(path: Path, **options: object) -> Backend:
    return Backend(path, "ONNX Runtime", "cpu", "", {"device": "cpu", **STATED, **options})


def test_synthetic_crops_have_the_size_of_market1501_and_differ(crops: list[Path]) -> None:
    images = [np.asarray(Image.open(path)) for path in crops]
    assert {image.shape for image in images} == {(128, 64, 3)}
    assert len({image.tobytes() for image in images}) == 20


def test_checkpoints_run_in_two_precisions_and_exports_as_they_are(model: Path) -> None:
    found = list_backends(Path("model.safetensors"), "cpu", {})
    assert [(b.name, b.device, b.precision) for b in found] == [
        ("PyTorch", "cpu", "fp32"),
        ("PyTorch", "cpu", "bf16"),
    ]
    (first, *others) = list_backends(model, "cpu", STATED)
    assert (first.name, first.device) == ("ONNX Runtime", "cpu")
    assert [b.name for b in others] in ([], ["OpenVINO"])
    assert {b.device for b in list_backends(Path("m.safetensors"), "cuda:1", {})} == {"cuda:1"}


@pytest.fixture(scope="module")
def results(model: Path, crops: list[Path]) -> list[BenchResult]:
    """A backend, one that fails, and one with other means."""
    backends = [backend(model), backend(model, size=[9, 9]), backend(model, mean=[0.5] * 3)]
    return run_bench(backends, crops, seconds=1)


def test_a_working_backend_is_measured_beside_one_that_fails(results: list[BenchResult]) -> None:
    first, failed, second = results
    assert "only takes images of 8x4" in failed.error and not failed.total
    for result in (first, second):
        assert not result.error and result.description
        assert set(result.total) == set(result.network) == {1, 8, 20}
        p50, p95 = result.percentiles(result.total, 20)
        assert 0 < p50 <= p95
        assert result.batch >= 1 and result.network_rate > 0 and result.total_rate > 0
        assert min(result.latency_memory, result.throughput_memory) > 2**24


def test_the_cosine_is_that_of_embeddings_with_the_first_backend(
    results: list[BenchResult], crops: list[Path]
) -> None:
    means = [np.asarray(Image.open(path).resize((4, 8), 3)).mean((0, 1)) / 255 for path in crops]
    rows = [np.stack(means[:8]), np.stack(means[:8]) - 0.5]
    unit = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    assert results[0].cosine == pytest.approx(1)
    assert results[2].cosine == pytest.approx((unit[0] * unit[1]).sum(1).min(), abs=1e-5)


def test_a_process_that_fails_is_an_error_with_its_last_message(
    model: Path, crops: list[Path]
) -> None:
    worker = _Worker(BenchResult(backend(model)), crops, "latency")
    assert worker.ask("no_such_command") == {}
    assert worker.result.error == (
        "its process ended with status 1: "
        "AttributeError: 'BenchWorker' object has no attribute 'no_such_command'"
    )
    worker.stop()


def test_a_process_that_is_killed_is_an_error_of_its_backend(
    model: Path, crops: list[Path]
) -> None:
    worker = _Worker(BenchResult(backend(model)), crops, "latency")
    assert worker.ask("latency", 1, 0.01)["total"]
    worker._process.kill()
    assert worker.ask("latency", 1, 0.01) == {}
    assert worker.result.error == "its process ended with status -9"
    assert worker.ask("memory") == {}
    worker.stop()


def test_p95_of_a_few_calls_is_their_maximum() -> None:
    result = BenchResult(backend(Path("m.onnx")))
    assert result.percentiles({1: [3.0, 1.0, 2.0]}, 1) == (2.0, 3.0)
    assert result.percentiles({1: [float(n) for n in range(1, 101)]}, 1)[1] == 96.0
    assert math.isnan(result.cosine)


def test_a_worker_measures_the_network_and_the_whole_way(model: Path, crops: list[Path]) -> None:
    options = {"device": "cpu", "mode": "throughput", **STATED}
    worker = BenchWorker(model, crops, options)
    assert np.shape(worker.reply["embeddings"]) == (8, 3)
    times = worker.latency(8, 0.01)
    assert len(times["network"]) == len(times["total"]) >= 1
    assert worker.throughput(16, 0.01)["rate"] > 0
    assert worker.throughput(16, 0.0)["rate"] > 0
    assert worker.extraction(50)["rate"] > 0
    assert worker.memory()["peak"] <= peak_memory()


def bench(*arguments: object) -> object:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *map(str, arguments), "--seconds", "1", "--device", "cpu"])
    return stopped.value.code


def test_the_command_prints_one_table_or_one_document(
    model: Path,
    results: list[BenchResult],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reidkit.runtime.bench.run_bench", lambda *args, **options: results)
    assert bench(model, "--size", "8x4") == 0
    title, header, row, *_ = capsys.readouterr().out.splitlines()
    assert title.startswith("milliseconds for 1, 8 and 20 crops") and "network/s" in header
    assert row.startswith("  means.onnx ONNX Runtime cpu ") and row.endswith("1.00000")
    assert "means.onnx only takes images of 8x4" in caplog.text
    assert bench(model, "--size", "8x4", "--json") == 0
    first, failed, _ = json.loads(capsys.readouterr().out)
    assert first["backend"] == "ONNX Runtime" and first["cosine"] == pytest.approx(1)
    cell = first["latency"]["20"]
    assert cell["calls"] >= 1 and 0 < cell["total_p50_ms"] <= cell["total_p95_ms"]
    assert "only takes images" in failed["error"]


def test_the_command_fails_when_no_backend_works(
    model: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert bench(model, "--size", "9x9") == 2
    assert "only takes images of 8x4" in caplog.text
    assert "Run: reidkit doctor" in capsys.readouterr().err
