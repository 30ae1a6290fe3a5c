"""docs/commands/serve.md: its requests are sent to a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_embedder import encoded
from server_process import serving
from tiny_onnx import write_mean_channels

for package in ("prometheus_client", "python_multipart", "starlette", "uvicorn"):
    pytest.importorskip(package)

PAGE = (Path(__file__).parents[2] / "docs" / "commands" / "serve.md").read_text()
DOCUMENTED = "http://127.0.0.1:8000"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a model, two images and an index of them."""
    folder = tmp_path_factory.mktemp("docs")
    write_mean_channels(folder / "model.onnx", size=(256, 128))
    build = ["index", "build", "people.index", "--model", "model.onnx"]
    for name, arguments in (("person.jpg", build), ("other.jpg", ["index", "add", "people.index"])):
        (folder / name).write_bytes(encoded((200, 100, 50), kind="JPEG"))
        camera = ["--camera", "0"] if name == "other.jpg" else []
        command = [sys.executable, "-m", "reidkit", *arguments, name, *camera, "--device", "cpu"]
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    index = str(folder / "people.index")
    with serving(str(folder / "model.onnx"), "--index", index, "--device", "cpu") as (_, found):
        yield found


def commands(*, token: bool) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]
    return [line for line in lines if ("TOKEN" in line) == token]


def curl(line: str, address: str, folder: Path) -> str:
    command = line.replace(DOCUMENTED, address).replace("curl ", "curl --silent --fail ", 1)
    return subprocess.run(
        ["bash", "-euc", command], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_documented_requests_are_answered(address: str, folder: Path) -> None:
    answers = [curl(line, address, folder) for line in commands(token=False)]
    assert len(answers) == 7
    assert answers[0].startswith('{"model":"model","embeddings":[[')
    assert answers[1].count("[") == 3
    assert (folder / "row.bin").stat().st_size == 3 * 4
    assert answers[3].count('"path":') == 2 and "other.jpg" in answers[3]
    assert answers[4].count('"path":') == 1 and '"camera":0' in answers[4]
    assert '"shape":[-1,256,128,3]' in answers[5] and "reidkit_requests_total" in answers[6]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_documented_token_is_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = commands(token=True)
    monkeypatch.setenv("REIDKIT_TOKEN", TOKEN)
    with serving(str(folder / "model.onnx"), "--device", "cpu") as (_, address):
        assert '"embeddings"' in curl(line, address, folder)
        with pytest.raises(subprocess.CalledProcessError):
            curl(line.replace("$REIDKIT_TOKEN", "wrong"), address, folder)


def test_the_documented_client_reads_the_embeddings(address: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = code.replace(DOCUMENTED, address) + "print(embeddings.shape, embeddings.dtype)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 3) float32"


def test_the_statuses_of_refusals_are_in_the_pages_table(address: str) -> None:
    documented = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    requests = [
        urllib.request.Request(f"{address}/embed"),
        urllib.request.Request(f"{address}/v2/models/other"),
        urllib.request.Request(f"{address}/embed", b"x", {"Content-Type": "image/png"}),
        urllib.request.Request(f"{address}/embed", b"x", {"Content-Type": "text/plain"}),
    ]
    found = []
    for request in requests:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        found.append(refused.value.code)
        refused.value.close()
    assert found == [405, 404, 400, 415]
    assert documented >= {*found, 401, 413, 500, 503}


def test_the_content_types_of_the_page_are_those_accepted() -> None:
    from reidkit.serve.uploads import FORM, IMAGE_TYPES

    (row,) = re.findall(r"^\| 415 \|.*", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+/[\w-]+)`", row)) == {FORM, *IMAGE_TYPES}


def test_the_page_gives_docker_longer_than_requests_may_take() -> None:
    from reidkit.serve.service import ServeSettings

    (seconds,) = re.findall(r"docker stop -t (\d+)", PAGE)
    assert int(seconds) > ServeSettings().timeout > 10


def test_the_metrics_of_the_page_exist(address: str, folder: Path) -> None:
    from reidkit.serve.metrics import Metrics

    documented = set(re.findall(r"`(reidkit_\w+)(?:\{.*?\})?` \|", PAGE))
    existing = {metric.name for metric in Metrics().registry.collect()}
    assert len(documented) == 6
    assert {name.removesuffix("_total") for name in documented} <= existing
