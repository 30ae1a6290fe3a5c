"""Denormal numbers are zero while a model runs, and only then."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_models import SIZE, write_onnx

from reidkit.choices import RuntimeMode
from reidkit.runtime.denormals import denormals_as_zero
from reidkit.runtime.execution import Execution
from reidkit.runtime.onnx_runtime import OnnxEmbedder

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="only on x86-64 Linux"
)


def halved() -> float:
    """Half of the smallest normal number."""
    return float(np.full(64, np.finfo(np.float32).tiny) @ np.full(64, 0.5 / 64, np.float32))


def test_denormal_numbers_are_zero_within_the_block_alone() -> None:
    assert halved() > 0
    with denormals_as_zero():
        assert halved() == 0
        assert np.float32(3) * np.float32(0.5) == 1.5
    assert halved() > 0
    with pytest.raises(ZeroDivisionError), denormals_as_zero():
        _ = 1 / 0
    assert halved() > 0


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_model_computes_no_denormal_numbers_and_the_thread_that_loads_it_still_does(
    tmp_path: Path, mode: RuntimeMode
) -> None:
    """Channel means times 1e-41, divided by it again."""
    factors = {"a": 1e-30, "b": 1e-11, "c": 1e30, "d": 1e11}
    names = ["means", "ma", "mb", "mc", "y"]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
        *(
            helper.make_node("Mul", [before, factor], [after])
            for before, factor, after in zip(names, factors, names[1:], strict=False)
        ),
    ]
    constants = [
        numpy_helper.from_array(np.array([value], np.float32), name)
        for name, value in factors.items()
    ]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["n", 3, *SIZE], initializers=constants)
    execution = Execution(threads=2, mode=mode)
    model = OnnxEmbedder(path, device="cpu", execution=execution)
    assert halved() > 0
    assert not model.embed(np.full((64, *SIZE, 3), 255, np.uint8)).any()
    assert halved() > 0
