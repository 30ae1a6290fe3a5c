"""The Python examples in docs/runtime.md run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.runtime.onnx_contract import read_inputs

DOCUMENT = Path(__file__).parents[2] / "docs" / "runtime.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_python_examples_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.parent)
    exported.rename("model.onnx")
    Image.fromarray(np.full((20, 10, 3), 90, np.uint8)).save("person.jpg")
    names: dict[str, object] = {}
    for example in blocks("python"):
        exec(example, names)
    shapes = {name: np.shape(names[name]) for name in ("rows", "nobody", "features", "similarity")}  # type: ignore[arg-type]
    assert shapes == {"rows": (2, 3), "nobody": (0, 3), "features": (2, 3), "similarity": (1, 1)}


def test_the_toml_example_is_valid(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    (tmp_path / "theirs.toml").write_text(example)
    assert read_inputs(tmp_path / "theirs.toml")["output"] == "embedding"
