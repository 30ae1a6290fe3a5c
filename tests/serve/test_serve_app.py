"""The server, in this process: embeddings, the Open Inference Protocol, refusals, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from fake_embedder import MeanColour, encoded

for package in ("httpx", "prometheus_client", "python_multipart", "starlette"):
    pytest.importorskip(package)

from asgi_client import Client, started  # noqa: E402 - needs httpx

from reidkit.serve.app import create_app  # noqa: E402
from reidkit.serve.batching import BatchLimits  # noqa: E402
from reidkit.serve.service import ServeSettings  # noqa: E402

RED, GREEN = (200, 0, 0), (0, 100, 0)
JPEG = {"content-type": "image/jpeg"}
RAW = "application/octet-stream"
TOKEN = "a-token-of-32-characters-0123456"


@contextmanager
def client(embedder: MeanColour | None = None, **settings: Any) -> Iterator[Client]:
    with started(create_app(embedder or MeanColour(), ServeSettings(**settings))) as http:
        yield http


@pytest.fixture(scope="module")
def http() -> Iterator[Client]:
    with client() as found:
        yield found


def test_one_image_gives_one_normalised_embedding(http: Client) -> None:
    answer = http.post("/embed", content=encoded(RED, kind="JPEG"), headers=JPEG)
    assert answer.status_code == 200 and answer.json()["model"] == "model"
    (row,) = answer.json()["embeddings"]
    assert row == pytest.approx([1, 0, 0], abs=0.02)
    assert np.linalg.norm(row) == pytest.approx(1)


def test_a_form_of_several_images_gives_their_embeddings_in_order(http: Client) -> None:
    files = [("file", ("a.png", encoded(RED))), ("file", ("b.png", encoded(GREEN)))]
    rows = http.post("/embed", files=files).json()["embeddings"]
    assert rows == [[1, 0, 0], [0, 1, 0]]


def test_embeddings_can_be_had_as_raw_floats(http: Client) -> None:
    files = [("file", ("a.png", encoded(RED))), ("file", ("b.png", encoded(GREEN)))]
    answer = http.post("/embed", files=files, headers={"accept": RAW})
    assert answer.headers["x-shape"] == "2,3"
    assert np.frombuffer(answer.content, "<f4").reshape(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_network_for_clips_takes_the_images_of_a_request_as_one_clip() -> None:
    with client(MeanColour(frames=4)) as http:
        files = [("file", ("a.png", encoded(RED))), ("file", ("b.png", encoded(GREEN)))]
        rows = http.post("/embed", files=files).json()["embeddings"]
        assert rows == [pytest.approx([200 / 223.607, 100 / 223.607, 0], abs=1e-4)]
        assert http.get("/v2/models/model").json()["inputs"][0]["shape"] == [-1, -1, 8, 4, 3]


def test_the_protocols_health_and_metadata(http: Client) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2/models/model/ready").json() == {"name": "model", "ready": True}
    assert http.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert http.get("/v2/models/model").json() == {
        "name": "model",
        "versions": ["1"],
        "platform": "reidkit",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 4, 3]}],
        "outputs": [{"name": "embeddings", "datatype": "FP32", "shape": [-1, 3]}],
    }


def test_the_models_only_version_has_the_same_paths(http: Client) -> None:
    model, version = "/v2/models/model", "/v2/models/model/versions/1"
    for path in ("", "/ready"):
        answer = http.get(version + path)
        assert answer.status_code == 200 and answer.json() == http.get(model + path).json()
    answer = http.post(f"{version}/infer", json=request())
    assert answer.status_code == 200
    assert answer.json() == http.post(f"{model}/infer", json=request()).json()


@pytest.mark.parametrize(
    "path", ["other", "other/ready", "model/versions/2", "model/versions/2/ready", "model/other"]
)
def test_models_and_versions_that_are_not_served_are_answered_by_those_that_are(
    http: Client, path: str
) -> None:
    for answer in (http.get(f"/v2/models/{path}"), http.post(f"/v2/models/{path}/infer")):
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert error.startswith(f"found /v2/models/{path}")
        assert "/v2/models/model or /v2/models/model/versions/1" in error
    assert http.get("/other").json() == {"error": "Not Found"}


def test_a_wrong_method_is_answered_by_the_right_one(http: Client) -> None:
    for path in ("/embed", "/v2/models/model/infer", "/v2/models/model/versions/1/infer"):
        answer = http.get(path)
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_query_parameters_of_a_search_are_refused_where_nothing_is_searched(http: Client) -> None:
    answer = http.post("/embed?k=1", content=encoded(RED), headers=JPEG)
    assert answer.status_code == 400
    assert answer.json() == {"error": "unknown query parameter 'k', expected none"}


def request(**changes: Any) -> dict[str, Any]:
    """An inference request of two images, red and green."""
    pixels = np.zeros((2, 8, 4, 3), np.uint8)
    pixels[0, ..., 0] = pixels[1, ..., 1] = 9
    data = pixels.ravel().tolist()
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 8, 4, 3], "data": data}
    return {"inputs": [tensor | changes]}


def test_inference_with_json_tensors(http: Client) -> None:
    answer = http.post("/v2/models/model/infer", json={"id": "7", **request()}).json()
    assert answer["model_name"] == "model" and answer["id"] == "7"
    assert answer["outputs"] == [
        {"name": "embeddings", "datatype": "FP32", "shape": [2, 3], "data": [1, 0, 0, 0, 1, 0]}
    ]


def test_nested_json_tensors_are_accepted(http: Client) -> None:
    nested = np.full((1, 8, 4, 3), 5).tolist()
    answer = http.post("/v2/models/model/infer", json=request(shape=[1, 8, 4, 3], data=nested))
    assert answer.json()["outputs"][0]["data"] == pytest.approx([3**-0.5] * 3)


def test_inference_with_binary_tensors(http: Client) -> None:
    pixels = np.full((1, 8, 4, 3), 5, np.uint8)
    parameters = {"binary_data_size": pixels.size}
    document = request(shape=[1, 8, 4, 3], parameters=parameters)
    del document["inputs"][0]["data"]
    document["outputs"] = [{"name": "embeddings", "parameters": {"binary_data": True}}]
    head = json.dumps(document).encode()
    answer = http.post(
        "/v2/models/model/infer",
        content=head + pixels.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 12} and "data" not in output
    assert np.frombuffer(answer.content[length:], "<f4") == pytest.approx([3**-0.5] * 3)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_clients_send_rgb_whatever_the_network_expects(channels: str) -> None:
    with client(MeanColour(channels=channels)) as http:
        tensors = http.post("/v2/models/model/infer", json=request()).json()["outputs"][0]["data"]
        image = http.post("/embed", content=encoded(RED), headers=JPEG).json()["embeddings"][0]
    first = [1, 0, 0] if channels == "rgb" else [0, 0, 1]
    assert tensors[:3] == image == first


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "x"}, "found the input x UINT8"),
        ({"datatype": "FP32"}, "expected images UINT8 [-1, 8, 4, 3]"),
        ({"shape": [2, 8, 5, 3]}, "expected images UINT8 [-1, 8, 4, 3]"),
        ({"shape": [2, 8, 4]}, "expected images UINT8 [-1, 8, 4, 3]"),
        ({"shape": [True, 8, 4, 3]}, "expected images UINT8 [-1, 8, 4, 3]"),
        ({"shape": [3, 8, 4, 3]}, "contains 192 values"),
        ({"shape": [2**62, 8, 4, 3]}, "contains 192 values"),
        ({"data": [256] * 192}, "integers from 0 to 255"),
        ({"data": [0.5] * 192}, "integers from 0 to 255"),
        ({"data": ["a"] * 192}, "integers from 0 to 255"),
        ({"data": [[1], [1, 2]]}, "rows differ in length"),
        ({"data": None}, "integers from 0 to 255"),
        ({"parameters": {"binary_data_size": 192}}, "but 0 bytes follow"),
    ],
)
def test_malformed_tensors_are_refused(http: Client, change: dict[str, Any], expected: str) -> None:
    answer = http.post("/v2/models/model/infer", json=request(**change))
    assert answer.status_code == 400 and expected in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{", {}, "not JSON"),
        (b"[" * 100_000, {}, "not JSON"),
        (b"[]", {}, "expected a JSON object"),
        (b'{"inputs": [1]}', {}, "expected a JSON object"),
        (b"{}", {"Inference-Header-Content-Length": "99"}, "expected 0 to 2"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, "expected 0 to 2"),
        (b'{"inputs": [{}], "outputs": 3}', {}, "found the input"),
    ],
)
def test_malformed_requests_are_refused(
    http: Client, body: bytes, headers: dict[str, str], expected: str
) -> None:
    answer = http.post("/v2/models/model/infer", content=body, headers=headers)
    assert answer.status_code == 400 and expected in answer.json()["error"]


def test_unknown_outputs_are_refused(http: Client) -> None:
    answer = http.post("/v2/models/model/infer", json={**request(), "outputs": [{"name": "x"}]})
    assert answer.status_code == 400 and "'embeddings'" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "expected"),
    [
        (b"text", "image/jpeg", 400, "image 1: its format is none of JPEG, PNG, WEBP, BMP"),
        (encoded(RED, kind="GIF"), "image/png", 400, "its format is none of JPEG, PNG, WEBP, BMP"),
        (encoded(RED, kind="TIFF"), RAW, 400, "its format is none of JPEG, PNG, WEBP, BMP"),
        (encoded(RED)[:45], "image/png", 400, "cannot read image 1: it is"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image/jpeg", 400, "its format is none of JPEG"),
        (b"", "image/jpeg", 400, "an image is empty"),
        (b"{}", "application/json", 415, "found Content-Type application/json"),
        (b"{}", "", 415, "found Content-Type none"),
        (encoded(RED, size=101), "image/png", 400, "101x101 pixels, more than the cap of 10,000"),
        (encoded(RED, size=101), "image/png", 400, "start the server with a larger --max-pixels"),
        (b"x" * 9000, "image/jpeg", 413, "larger than 8,192 bytes"),
    ],
)
def test_bodies_that_are_not_images_are_refused(
    content: bytes, kind: str, status: int, expected: str
) -> None:
    with client(max_body=8192, max_pixels=10_000) as http:
        answer = http.post("/embed", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert expected in answer.json()["error"]


def test_a_body_of_undeclared_length_is_cut_off() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    with client(max_body=8192) as http:
        for path in ("/embed", "/v2/models/model/infer"):
            answer = http.post(path, content=chunks(), headers=JPEG)
            assert answer.status_code == 413 and "--max-body" in answer.json()["error"]


def test_more_images_than_the_limit_are_refused_by_its_name() -> None:
    files = [("file", ("a.png", encoded(RED)))] * 3
    expected = "more than 2 images. Send fewer, or start the server with a larger --max-images"
    with client(max_images=2) as http:
        assert http.post("/embed", files=files[:2]).status_code == 200
        tensor = request(shape=[3, 8, 4, 3], data=[0] * 288)
        for answer in (
            http.post("/embed", files=files),
            http.post("/v2/models/model/infer", json=tensor),
        ):
            assert answer.status_code == 413 and expected in answer.json()["error"]


FILE = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("content", "boundary", "expected"),
    [
        (b"--x--\r\n", "x", "contains no file; expected one such as -F image=@person.jpg"),
        (
            FILE.replace(b'; filename="a.png"', b"") + b"hello\r\n--x--\r\n",
            "x",
            "the form's field 'image' is text, expected a file: -F image=@person.jpg, with @",
        ),
        (FILE + b"\r\n--x--\r\n", "x", "an image is empty"),
        (FILE + encoded(RED), "x", "the form ends before its last boundary"),
        (FILE + b"\r\n--x--\r\n", "", "without a boundary, expected multipart/form-data; bound"),
        (FILE + b"\r\n--x--\r\n", "other", "the boundary in its Content-Type is not the one of"),
        (FILE + b"\r\n--x--\r\n", "o" * 300, "the form is malformed"),
        (b"--x\r\nbad header\r\n\r\n--x--\r\n", "x", "the form is malformed"),
    ],
)
def test_forms_that_are_not_files_are_refused_in_words_of_our_own(
    http: Client, caplog: pytest.LogCaptureFixture, content: bytes, boundary: str, expected: str
) -> None:
    kind = "multipart/form-data" + (f"; boundary={boundary}" if boundary else "")
    answer = http.post("/embed", content=content, headers={"content-type": kind})
    assert answer.status_code == 400 and expected in answer.json()["error"]
    assert "python_multipart" not in {record.name.partition(".")[0] for record in caplog.records}


def test_a_form_that_arrives_byte_by_byte_gives_the_same_embeddings(http: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for image in (RED, GREEN):
            for byte in FILE + encoded(image) + b"\r\n":
                yield bytes([byte])
        yield b"--x--\r\n"

    headers = {"content-type": 'multipart/form-data; boundary="x"'}
    rows = http.post("/embed", content=chunks(), headers=headers).json()["embeddings"]
    assert rows == [[1, 0, 0], [0, 1, 0]]


def test_a_token_is_required_everywhere_but_for_health() -> None:
    with client(token=TOKEN) as http:
        assert http.get("/v2/health/live").status_code == 200
        for headers in (
            {},
            {"authorization": f"Bearer {TOKEN}x"},
            {"authorization": f"Bearer {TOKEN[:-1]}"},
            {"authorization": TOKEN},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": "Bearer é".encode("latin-1")},
        ):
            for path in ("/metrics", "/v2", "/v2/models/model", "/nothing"):
                answer = http.get(path, headers=headers)
                assert answer.status_code == 401 and "Bearer TOKEN" in answer.json()["error"]
        headers = {"authorization": f"Bearer {TOKEN}", "host": "reid.example.org"}
        assert http.get("/metrics", headers=headers).status_code == 200


def test_without_a_token_only_this_machines_names_are_answered(http: Client) -> None:
    for host in ("127.0.0.1:8000", "localhost", "[::1]:8000"):
        assert http.get("/v2/health/live", headers={"host": host}).status_code == 200
    for host in ("evil.example.org", "127.0.0.1.evil.org", "192.168.0.1", ""):
        assert http.get("/v2/health/live", headers={"host": host}).status_code == 400


def test_a_slow_network_is_answered_by_503() -> None:
    embedder = MeanColour()
    with client(embedder, timeout=0.05) as http:
        embedder.release.clear()
        answer = http.post("/embed", content=encoded(RED), headers=JPEG)
        embedder.release.set()
    assert answer.status_code == 503 and "0.05 seconds" in answer.json()["error"]


def test_a_slow_client_is_answered_by_503() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(10)

    with client(timeout=0.05) as http:
        answer = http.post("/embed", content=chunks(), headers=JPEG)
    assert answer.status_code == 503


def test_a_client_that_leaves_during_its_request_is_no_error_of_the_program() -> None:
    app = create_app(MeanColour(), ServeSettings())
    headers = [(b"host", b"localhost"), (b"content-type", b"image/jpeg")]
    scope = {"type": "http", "method": "POST", "path": "/embed", "headers": headers}
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("status"))

    async def main() -> None:
        async with app.router.lifespan_context(app):
            await app({**scope, "query_string": b""}, receive, send)

    asyncio.run(main())
    assert sent[0] == 400


def test_a_full_queue_is_answered_by_503() -> None:
    with client(batches=BatchLimits(max_queue=1)) as http:
        files = [("file", ("a.png", encoded(RED)))] * 2
        answer = http.post("/embed", files=files)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"


def test_errors_of_the_program_do_not_reach_the_client() -> None:
    embedder = MeanColour()
    with client(embedder) as http:
        embedder.embed = lambda pixels: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        answer = http.post("/embed", content=encoded(RED), headers=JPEG)
    assert answer.status_code == 500 and "ZeroDivision" not in answer.text
    assert answer.json() == {"error": "internal error; see the server's log"}


def test_metrics_count_requests_batches_and_times() -> None:
    with client() as http:
        files = [("file", ("a.png", encoded(RED)))] * 2
        http.post("/embed", files=files)
        http.post("/embed", content=b"x", headers=JPEG)
        for number in range(3):
            http.get(f"/made-up/{number}")
        text = http.get("/metrics").text
    assert 'reidkit_requests_total{path="/embed",status="200"} 1.0' in text
    assert 'reidkit_requests_total{path="/embed",status="400"} 1.0' in text
    assert 'reidkit_requests_total{path="other",status="404"} 3.0' in text
    assert "reidkit_batch_crops_sum 2.0" in text and "reidkit_queue_crops 0.0" in text
    assert 'reidkit_request_seconds_count{path="/embed"} 2.0' in text
    assert "reidkit_embedding_seconds_count 2.0" in text  # one of them warmed the network up
