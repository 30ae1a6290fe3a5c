"""reidkit serve as a process: a real socket, real signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_embedder import encoded
from server_process import serving
from tiny_onnx import write_mean_channels

from reidkit.cli import main
from reidkit.index.directory import IndexDirectory
from reidkit.index.records import Header, Record
from reidkit.runtime import Runtime
from reidkit.runtime.embedder import load_embedder

for package in ("prometheus_client", "python_multipart", "starlette", "uvicorn"):
    pytest.importorskip(package)


NOWHERE = ("--host", "no.such.host.invalid", "--token", "x" * 16)
"""Options of a server that cannot start: a test of a refusal ends even where there is none."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third-party ONNX file: the mean of each normalised channel, [B, 3]."""
    return write_mean_channels(tmp_path_factory.mktemp("serve") / "means.onnx")


@pytest.fixture(scope="module")
def index(model: Path) -> Path:
    """An index of two images and their embeddings by `model`."""
    embedder = load_embedder(model, device="cpu")
    preprocess = embedder.preprocess.to_json()
    header = Header(str(model), embedder.source_hash, preprocess, flip=False, dimension=3)
    path = model.parent / "people.index"
    records = [Record("green.png"), Record("red.png")]
    vectors = np.array([[-2, 2, -2], [2, -2, -2]], np.float32)
    IndexDirectory.create(path, header).add(vectors, records)
    return path


def post_image(address: str, path: str = "/embed") -> dict[str, Any]:
    request = urllib.request.Request(
        f"{address}{path}", encoded((255, 0, 0)), {"Content-Type": "image/png"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def test_the_process_serves_the_local_embedding_and_ends_by_a_signal_with_status_0(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encoded((255, 0, 0)))
    local = Runtime(model, "cpu", size=[8, 4]).embed(tmp_path / "a.png")[0]
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(str(model), "--size", "8x4", "--device", "cpu") as (process, address):
            assert address.startswith("http://127.0.0.1:")
            (row,) = post_image(address)["embeddings"]
            assert row == pytest.approx(local, abs=1e-7)
            process.send_signal(number)
            assert process.wait(30) == 0


def test_answers_after_the_signal_end_their_connections_and_say_so(model: Path) -> None:
    image = encoded((255, 0, 0))
    with serving(str(model), "--size", "8x4", "--device", "cpu") as (process, address):
        with (
            closing(begin_upload(address, image)) as sooner,
            closing(begin_upload(address, image)) as later,
        ):
            process.send_signal(signal.SIGTERM)
            sooner.sendall(image)
            assert_last_answer(sooner)
            wait_until_refused(address)
            later.sendall(image)
            assert_last_answer(later)
        assert process.wait(30) == 0


def begin_upload(address: str, image: bytes) -> socket.socket:
    """A connection that was kept open after an answer, and whose next request the server has
    accepted but for its body, `image`."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = HTTPResponse(connection)
    answer.begin()
    assert answer.read() and answer.getheader("connection") is None
    connection.sendall(
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(image)
    )
    assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return connection


def assert_last_answer(connection: socket.socket) -> None:
    answer = HTTPResponse(connection)
    answer.begin()
    assert answer.status == 200 and b"embeddings" in answer.read()
    assert answer.getheader("connection") == "close"
    assert connection.recv(1) == b""


def wait_until_refused(address: str) -> None:
    """Until the server no longer listens."""
    host, port = address.removeprefix("http://").split(":")
    end = time.monotonic() + 30
    with suppress(ConnectionRefusedError):
        while time.monotonic() < end:
            socket.create_connection((host, int(port)), timeout=30).close()
            time.sleep(0.01)
        pytest.fail("the server still listens")


def test_an_index_is_served_with_the_model_that_it_remembers(index: Path) -> None:
    with serving("--index", str(index), "--device", "cpu") as (_, address):
        found = post_image(address, "/search?k=1")
    assert found["model"] == "means"
    assert found["queries"][0]["hits"][0]["path"] == "red.png"


def test_an_index_of_another_model_is_refused(
    model: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, changed = tmp_path / "other.onnx", onnx.load(model)
    changed.doc_string = "another file"
    onnx.save(changed, other)
    message = refused(other, "--index", str(index), capsys=capsys)
    assert f"{other} is not the model that {index} was built with" in message
    assert "no index in nothing" in refused(other, "--index", "nothing", capsys=capsys)


def test_serving_imports_no_pytorch(model: Path, index: Path) -> None:
    code = (
        "import sys\nimport reidkit.cli.serve, reidkit.serve.app, reidkit.serve.server\n"
        "from pathlib import Path\nfrom reidkit.runtime.embedder import load_embedder\n"
        "from reidkit.serve.search import IndexSearch\n"
        f"embedder = load_embedder(Path({str(model)!r}), device='cpu')\n"
        f"IndexSearch({str(index)!r}, embedder, model=Path('means.onnx'), max_queue=1)\n"
        "print(sorted({'torch', 'onnx', 'matplotlib', 'scipy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--host", "0.0.0.0"], "clients need a token"),
        (["--token", "short"], "expected at least 16"),
        (["--name", "a/b"], "--name a/b"),
        (["--index", ""], "the name of the index is empty"),
        (["--max-body", "0", *NOWHERE], "--max-body 0: too small for an image; use at least 64KiB"),
        (["--max-body", "63KiB", *NOWHERE], "--max-body 63KiB: too small for an image"),
        (["--max-body", "many"], "--max-body many: write a number and a unit"),
        ([*NOWHERE], "cannot listen on no.such.host"),
    ],
)
def test_what_cannot_be_served_is_refused(
    model: Path, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(model, *options, capsys=capsys)
    assert message.startswith("error: ") and expected in message


def test_a_port_in_use_is_refused_by_name(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = refused(model, "--port", str(port), capsys=capsys)
    assert f"port {port}: Address already in use" in message


def refused(model: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a command that cannot serve."""
    with pytest.raises(SystemExit) as stopped:
        main(["serve", str(model), "--size", "8x4", "--device", "cpu", *options])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_answers_do_not_wait_for_delayed_acknowledgements() -> None:
    from reidkit.serve.server import _listen

    with _listen("127.0.0.1", 0) as listener:  # asyncio sets TCP_NODELAY for this protocol only
        assert listener.proto == socket.IPPROTO_TCP
