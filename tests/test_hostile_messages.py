"""Messages about damaged and hostile files are one line in reidkit's words: neither torch's advice
to switch a check off, nor the texts of h5py, Pillow and safetensors."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.checkpoint import read_header
from reidkit.errors import DataError, ReidkitError
from reidkit.features import read_features
from reidkit.image import read_image
from reidkit.masks.store import MaskStore
from reidkit.models.weights import read_tensors
from reidkit.training.checkpoints import read_resume_point

OTHERS = ("weights_only", "Re-running", "GLOBAL", "miniz", "PytorchStream", "operand", "unpickl")
OTHERS += ("synchronously", "sblock", "signature", "HeaderTooLarge", "deserializ", "broken PNG")
"""Parts of other programs' texts."""


class Command:
    """An object whose unpickling would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["features"] = np.ones((100, 8), np.float32)
    return buffer.getvalue()


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, features=np.ones((4, 2)), pids=np.ones(4), camids=np.ones(4))
    return buffer.getvalue()


WEIGHTS = {
    "a command": saved({"a": Command()}),
    "a command in the old format": saved({"a": Command()}, _use_new_zipfile_serialization=False),
    "a plain pickle": pickle.dumps({"a": Command()}),
    "a plain pickle of protocol 4": pickle.dumps({"a": 1}, 4),
    "a module": saved(torch.nn.Linear(2, 2)),
    "a zip file of nothing": b"PK\x03\x04" + bytes(100),
    "text": b"text" * 100,
    "nothing": b"",
    "half a file": saved({"a": torch.zeros(1000)})[:2000],
}
OPEN: dict[str, Callable[[Path], object]] = {
    ".pth": read_tensors,
    ".safetensors": read_tensors,
    ".ckpt": read_header,
    ".h5": read_features,
    ".npz": read_features,
    ".masks": MaskStore.open,
    ".png": read_image,
    ".jpg": read_image,
    ".pt": lambda path: read_resume_point(path.parent),
}
WHOLE = {".h5": hdf5(), ".npz": npz(), ".masks": hdf5(), ".png": encoded("png")}
WHOLE |= {".jpg": encoded("jpeg"), ".pth": saved({"a": torch.zeros(1000)})}


def check(path: Path, open_file: Callable[[Path], object]) -> str:
    with pytest.raises(ReidkitError) as caught:
        open_file(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 400
    assert not [text for text in OTHERS if text in message], message
    return message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt", ".pt"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none_are_refused_in_our_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"resume{suffix}"
    path.write_bytes(WEIGHTS[name])
    message = check(path, OPEN[suffix])
    if name == "a module" and suffix == ".pth":
        assert "such as torch.nn.modules.linear.Linear; only weights are loaded" in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", WHOLE)
def test_files_that_are_cut_off_or_overwritten_are_refused_in_our_words(
    tmp_path: Path, suffix: str
) -> None:
    path, data = tmp_path / f"file{suffix}", WHOLE[suffix]
    for length in np.linspace(0, 0.9 * len(data), 12, dtype=int):
        path.write_bytes(data[:length])
        check(path, OPEN[suffix])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    check(path, OPEN[suffix])


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(DataError, match=r"loop\.png: too many levels of symbolic links"):
        read_image(tmp_path / "loop.png")
