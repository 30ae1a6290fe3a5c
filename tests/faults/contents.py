"""What files contain: whether one is whole, and whether two are of equal content."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

TEMPORARY = (".partial", ".journal", "-journal")
"""In names of files and folders that are not results."""
MEASURED = ("seconds", "memory")
"""Entries of histories that differ between runs."""


def is_temporary(path: Path) -> bool:
    """Whether a path, relative to the working directory, is of an unfinished file."""
    return any(mark in part for part in path.parts for mark in TEMPORARY)


def files(folder: Path) -> dict[str, Path]:
    """All files below a folder, by relative path."""
    return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}


def content(path: Path) -> Any:
    """What a file contains, without times. Whole files only.

    Raises:
        Exception: any, if it is half-written.
    """
    return _READERS.get(path.suffix, _bytes)(path)


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _history(path: Path) -> list[Any]:
    return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]


def _without_times(document: Any) -> Any:
    if isinstance(document, dict):
        items = document.items()
        return {name: _without_times(value) for name, value in items if name not in MEASURED}
    return [_without_times(v) for v in document] if isinstance(document, list) else document


def _table(path: Path) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(path.read_text(), newline=""))
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def _picture(path: Path) -> bytes:
    with Image.open(path) as image:
        return bytes(image.convert("RGB").tobytes())


def _hdf5(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r", locking=False) as file:
        found = {name: np.asarray(file[name]).tolist() for name in file}
        return {**found, "": {name: str(value) for name, value in file.attrs.items()}}


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name].tolist() for name in file.files}


def _tensors(path: Path) -> tuple[dict[str, bytes], Any]:
    """Tensors and header, without the version of the program."""
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["reidkit"])
    return {n: t.tobytes() for n, t in load_file(path).items()}, {**header, "git": ""}


def _torch_file(path: Path) -> str:
    torch.load(path, weights_only=True)
    return "whole"


def _onnx(path: Path) -> bytes:
    onnx.checker.check_model(onnx.load(path))
    return path.read_bytes()


def _page(path: Path) -> str:
    text = path.read_text()
    assert text.rstrip().endswith("</html>"), "the page is cut off"
    return text


def _database(path: Path) -> list[str]:
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return list(database.iterdump())


def _log(path: Path) -> str:
    return "any"


_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _table,
    ".h5": _hdf5,
    ".html": _page,
    ".jpg": _picture,
    ".json": lambda path: _without_times(json.loads(path.read_text())),
    ".jsonl": _history,
    ".log": _log,
    ".npz": _npz,
    ".onnx": _onnx,
    ".png": _picture,
    ".pt": _torch_file,
    ".safetensors": _tensors,
    ".sqlite": _database,
    ".toml": lambda path: tomllib.loads(path.read_text()),
}
