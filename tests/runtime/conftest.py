"""Small ONNX models in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx_models import SIZE, export_metadata, mean_nodes, write_onnx


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes m.onnx, the mean of each channel of its input, with these changes to `write_onnx`."""

    def call(
        nodes: list[Any] | None = None, shape: list[Any] | None = None, **options: Any
    ) -> Path:
        shape = shape or ["n", 3, *SIZE]
        return write_onnx(tmp_path / "m.onnx", nodes or mean_nodes(), shape, **options)

    return call


@pytest.fixture
def exported(write: Callable[..., Path]) -> Path:
    """A file with reidkit's metadata whose embedding is the mean of each channel in [0, 1]."""
    return write(metadata=export_metadata())
