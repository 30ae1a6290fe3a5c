"""Pipes, sockets, devices and folders in place of files are refused at once: none is waited for."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_onnx import write_mean_channels

from reidkit.cli import app
from reidkit.errors import ReidkitError
from reidkit.files import atomic, check_regular, exclusive_lock, sha256

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such files")

SECONDS = 30
"""A reader that waits for a pipe is interrupted after this time."""


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"it still waited after {SECONDS} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, earlier)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run commands in, and a model `tiny.onnx`."""
    monkeypatch.chdir(tmp_path)
    write_mean_channels(tmp_path / "tiny.onnx")
    return tmp_path


COMMANDS = [
    "eval PIPE.onnx --dataset MARKET",
    "eval PIPE.safetensors --dataset MARKET",
    "eval tiny.onnx --dataset PIPE.toml",
    "eval --query-features PIPE.h5 --gallery-features PIPE.npz --protocol market",
    "eval --query-features PIPE.npz --gallery-features PIPE.h5 --protocol market",
    "extract PIPE.onnx --images MARKET/query -o f.h5",
    "extract tiny.onnx --images PIPE.jpg -o f.h5",
    "extract tiny.onnx --images PIPES -o f.h5",
    "extract tiny.onnx --images MARKET/query --preprocess PIPE.toml -o f.h5",
    "serve PIPE.onnx",
    "bench PIPE.onnx",
    "export PIPE.safetensors --onnx",
    "import PIPE.pth --from torchvision --arch baseline -o m.safetensors",
    "train --dataset PIPE.toml",
    "train --dataset PIPES",
    "train --dataset MARKET --config PIPE.toml",
    "train --dataset MARKET --weights PIPE.pth",
    "train --dataset MARKET --masks PIPE.h5",
    "train --resume --out PIPES",
    "compare PIPE.json PIPE.json",
    "compare PIPES PIPES",
    "search --query PIPE.jpg --gallery MARKET/query tiny.onnx",
    "search --query PIPE.h5 --gallery PIPE.h5",
    "index build new --model tiny.onnx PIPES",
    "index build new --model tiny.onnx MARKET/query --metadata PIPE.csv",
    "index build new --model PIPE.onnx MARKET/query",
    "masks show PIPE.h5",
    "masks stats PIPE.h5",
    "prepare-masks --dataset MARKET --parser PIPE.onnx",
    "prepare-masks --dataset MARKET --parser schp-lip --parser-weights PIPE.pth",
    "prepare-masks --dataset MARKET --parser jppnet --parser-weights PIPE.index",
    "prepare-masks --dataset MARKET --labels PIPES",
    "datasets verify PIPE.toml",
    "datasets init PIPE.csv",
    "report PIPE.safetensors",
    "visualize ranks PIPE.onnx --dataset MARKET",
    "visualize embedding PIPE.h5",
    "visualize attention PIPE.safetensors --dataset MARKET",
    "attention PIPE.safetensors --dataset MARKET --masks PIPE.h5",
]
"""Commands with a pipe in place of every kind of file that they read."""


@pytest.mark.parametrize("line", COMMANDS)
def test_a_pipe_is_refused_and_not_waited_for(folder: Path, market: Path, line: str) -> None:
    (folder / "PIPES").mkdir()
    names = {word.rpartition("/")[2] for word in line.split() if word.startswith("PIPE.")}
    labels = [path.with_suffix(".png").name for path in (market / "query").glob("*.jpg")]
    inner = ["image.jpg", "config.toml", "manifest.toml", "metrics.json", "resume.pt", *labels]
    for path in [*map(Path, names), *(Path("PIPES", name) for name in inner)]:
        os.mkfifo(folder / path)
    arguments = line.replace("MARKET", str(market)).split()
    with pytest.raises(ReidkitError) as caught:
        app(arguments)
    assert "PIPE" in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "link"])
def test_the_kind_of_a_special_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.h5"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    named = "device" if kind == "link" else kind
    with pytest.raises(ReidkitError, match=f"x.h5 is a {named}, expected a file"):
        check_regular(path)
    with pytest.raises(ReidkitError):
        sha256(path)


def test_standard_input_and_process_substitution_are_refused() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(ReidkitError, match=r"is a pipe.* Save its contents in a file first"):
            check_regular(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
        os.close(writing)


def test_links_to_regular_files_and_missing_files_pass(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link", "missing", "null\0character"):
        check_regular(tmp_path / name)


def test_a_device_is_not_replaced_by_an_output(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/null")
    with pytest.raises(ReidkitError, match="is a device"), atomic(tmp_path / "out"):
        raise AssertionError("it was to be written")
    assert (tmp_path / "out").is_char_device()


def test_a_pipe_as_the_journal_of_masks_is_not_waited_for(
    folder: Path, market: Path, tmp_path: Path
) -> None:
    os.mkfifo(folder / "m.h5.journal")
    with exclusive_lock(folder / "m.h5.journal"):
        pass
    arguments = ["--dataset", str(market), "--labels", str(market / "labels"), "-o", "m.h5"]
    with pytest.raises(ReidkitError):
        app(["prepare-masks", *arguments])


def test_a_pipe_as_the_vectors_of_an_index_is_not_waited_for(folder: Path, market: Path) -> None:
    images = str(market / "query")
    app(["index", "build", "gallery", images, "--model", "tiny.onnx"], standalone_mode=False)
    shutil.move("gallery/vectors-1.f32", "saved")
    os.mkfifo("gallery/vectors-1.f32")
    image = str(next((market / "query").glob("*.jpg")))
    with pytest.raises(ReidkitError, match=r"vectors-1\.f32 is a pipe"):
        app(["search", "--query", image, "--gallery", "gallery", "tiny.onnx"])
