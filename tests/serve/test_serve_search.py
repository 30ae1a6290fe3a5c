"""POST /search: the entries of an index that are nearest to an image."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_embedder import MeanColour, encoded
from PIL import Image

for package in ("httpx", "prometheus_client", "python_multipart", "starlette"):
    pytest.importorskip(package)

from asgi_client import Client, started  # noqa: E402 - needs httpx

from reidkit.choices import MAX_CAMERA  # noqa: E402
from reidkit.errors import DataError  # noqa: E402
from reidkit.index.directory import IndexDirectory  # noqa: E402
from reidkit.index.records import DATABASE, Header, Hit, Record  # noqa: E402
from reidkit.serve.app import create_app  # noqa: E402
from reidkit.serve.batching import BatchLimits  # noqa: E402
from reidkit.serve.search import MAX_K, IndexSearch  # noqa: E402
from reidkit.serve.service import ServeSettings  # noqa: E402

RED, GREEN, BLACK = (200, 0, 0), (0, 100, 0), (0, 0, 0)
PNG = {"content-type": "image/png"}
MODEL = Path("colour.onnx")


def header(embedder: MeanColour, *, flip: bool = False, model_sha256: str = "") -> Header:
    preprocess = embedder.preprocess.to_json()
    return Header("colour.onnx", model_sha256, preprocess, flip, dimension=3)


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    """Six images from red (red0, camera 0, second 0) to green (red5, camera 1, second 5)."""
    index = IndexDirectory.create(tmp_path / "people.index", header(MeanColour()))
    colours = np.array([[5 - k, k, 0] for k in range(6)], np.float32)
    index.add(colours, [Record(f"red{k}", f"P{k // 2}", k % 2, float(k)) for k in range(6)])
    return index


def opened(index: IndexDirectory, embedder: MeanColour, *, max_queue: int = 1024) -> IndexSearch:
    return IndexSearch(str(index.path), embedder, model=MODEL, max_queue=max_queue)


@contextmanager
def client(
    index: IndexDirectory, embedder: MeanColour | None = None, **settings: Any
) -> Iterator[Client]:
    embedder = embedder or MeanColour()
    app = create_app(embedder, ServeSettings(**settings), index=opened(index, embedder))
    with started(app) as http:
        yield http


def paths(http: Client, colour: tuple[int, int, int] = RED, parameters: str = "") -> list[str]:
    answer = http.post(f"/search?{parameters}", content=encoded(colour), headers=PNG)
    assert answer.status_code == 200, answer.text
    (query,) = answer.json()["queries"]
    return [hit["path"] for hit in query["hits"]]


def test_an_image_finds_the_nearest_entries_with_their_facts(index: IndexDirectory) -> None:
    with client(index) as http:
        answer = http.post("/search?k=2", content=encoded(RED), headers=PNG).json()
    cosine = 4 / 17**0.5
    assert answer == {
        "model": "model",
        "queries": [
            {
                "hits": [
                    {
                        "path": "red0",
                        "person": "P0",
                        "camera": 0,
                        "time": 0.0,
                        "distance": pytest.approx(0, abs=1e-6),
                    },
                    {
                        "path": "red1",
                        "person": "P0",
                        "camera": 1,
                        "time": 1.0,
                        "distance": pytest.approx(1 - cosine, abs=1e-6),
                    },
                ]
            }
        ],
    }


def test_every_image_of_a_form_is_a_query(index: IndexDirectory) -> None:
    files = [("file", ("a.png", encoded(RED))), ("file", ("b.png", encoded(GREEN)))]
    with client(index) as http:
        queries = http.post("/search", files=files).json()["queries"]
    assert [query["hits"][0]["path"] for query in queries] == ["red0", "red5"]
    assert [len(query["hits"]) for query in queries] == [6, 6]


def test_a_network_for_clips_takes_the_images_of_a_request_as_one_query(
    index: IndexDirectory,
) -> None:
    files = [("file", ("a.png", encoded(RED))), ("file", ("b.png", encoded(GREEN)))]
    with client(index, MeanColour(frames=4)) as http:
        (query,) = http.post("/search", files=files).json()["queries"]
    assert query["hits"][0]["path"] == "red2"  # [100, 50, 0] is nearest to [3, 2, 0]


def test_ten_entries_are_found_unless_k_says_otherwise(index: IndexDirectory) -> None:
    index.add(np.ones((20, 3), np.float32), [Record(f"more{k}") for k in range(20)])
    with client(index) as http:
        assert len(paths(http)) == 10
        assert len(paths(http, parameters="k=26")) == 26


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("camera=1", ["red1", "red3", "red5"]),
        ("camera=0&camera=1&k=3", ["red0", "red1", "red2"]),
        ("camera=7", []),
        ("person=P1", ["red2", "red3"]),
        ("person=P0&person=P2", ["red0", "red1", "red4", "red5"]),
        ("after=2&before=4", ["red2", "red3"]),
        ("after=1970-01-01T00:00:05", ["red5"]),
        ("threshold=0.1", ["red0", "red1"]),
        ("threshold=2&k=2", ["red0", "red1"]),
        (f"camera={MAX_CAMERA}", []),
    ],
)
def test_conditions_are_those_of_reidkit_search(
    index: IndexDirectory, parameters: str, expected: list[str]
) -> None:
    with client(index) as http:
        assert paths(http, parameters=parameters) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("k=0", f"found k=0, expected a whole number from 1 to {MAX_K}"),
        (f"k={MAX_K + 1}", f"expected a whole number from 1 to {MAX_K}"),
        (f"k={10**22}", f"expected a whole number from 1 to {MAX_K}"),
        ("k=ten", f"found k=ten, expected a whole number from 1 to {MAX_K}"),
        ("k=1&k=2", "k is given more than once"),
        ("camera=-1", f"found camera=-1, expected a whole number from 0 to {MAX_CAMERA}"),
        (f"camera={10**22}", f"expected a whole number from 0 to {MAX_CAMERA}"),
        ("after=yesterday", "after: time 'yesterday', expected one such as 2026-05-17T09:30"),
        ("threshold=nan", "found threshold=nan, expected a distance from 0 to 2"),
        ("threshold=far", "found threshold=far, expected a distance from 0 to 2"),
        ("threshold=-1", "found threshold=-1, expected a distance from 0 to 2"),
        ("threshold=3", "found threshold=3, expected a distance from 0 to 2"),
        ("top=3", "parameter 'top', expected k, camera, person, after, before, threshold"),
    ],
)
def test_malformed_parameters_are_refused(
    index: IndexDirectory, parameters: str, expected: str
) -> None:
    with client(index) as http:
        answer = http.post(f"/search?{parameters}", content=encoded(RED), headers=PNG)
    assert answer.status_code == 400 and expected in answer.json()["error"]


def test_an_image_without_direction_has_no_nearest_entry(index: IndexDirectory) -> None:
    with client(index) as http:
        answer = http.post("/search", content=encoded(BLACK), headers=PNG)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the embedding of query 1 is zero or not finite"}


def test_without_an_index_the_path_says_how_to_serve_one() -> None:
    with started(create_app(MeanColour(), ServeSettings())) as http:
        answer = http.post("/search", content=encoded(RED), headers=PNG)
    assert answer.status_code == 404 and "reidkit serve --index DIR" in answer.json()["error"]


def test_what_another_process_changes_is_found_by_the_next_search(index: IndexDirectory) -> None:
    with client(index) as http:
        assert paths(http, parameters="k=1") == ["red0"]
        index.add(np.array([[9, 0, 0]], np.float32), [Record("new")])
        index.remove(["red0"])
        assert paths(http, parameters="k=1") == ["new"]
        index.remove([f"red{k}" for k in range(1, 5)])  # compaction renumbers the rest
        assert paths(http) == ["new", "red5"]


def test_an_index_that_is_replaced_by_another_one_is_opened_again(
    index: IndexDirectory, tmp_path: Path
) -> None:
    def replacement(sha256: str) -> None:
        new = IndexDirectory.create(tmp_path / "new", header(MeanColour(), model_sha256=sha256))
        new.add(np.array([[1, 1, 0]], np.float32), [Record("other")])
        index.path.rename(tmp_path / f"before {sha256}")
        new.path.rename(index.path)

    with client(index) as http:
        assert paths(http, parameters="k=1") == ["red0"]
        replacement("")
        assert paths(http, parameters="k=1") == ["other"]
        replacement("of another model")
        answer = http.post("/search", content=encoded(RED), headers=PNG)
    assert answer.status_code == 503


def test_mirrored_embeddings_are_added_where_the_index_has_them(tmp_path: Path) -> None:
    class LeftColumn(MeanColour):
        """Embeds an image as the mean of its left half."""

        def embed(self, pixels: Any) -> Any:
            return super().embed(np.repeat(pixels[..., :2, :], 2, axis=-2))

    flipped = IndexDirectory.create(tmp_path / "flip.index", header(MeanColour(), flip=True))
    flipped.add(np.array([[1, 1, 0], [1, 0, 0]], np.float32), [Record("both"), Record("left")])
    pixels = np.zeros((8, 4, 3), np.uint8)
    pixels[:, :2, 0] = pixels[:, 2:, 1] = 200  # red beside green
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    with client(flipped, LeftColumn()) as http:
        answer = http.post("/search", content=file.getvalue(), headers=PNG).json()
        (row,) = http.post("/embed", content=file.getvalue(), headers=PNG).json()["embeddings"]
    best = answer["queries"][0]["hits"][0]
    assert best["path"] == "both" and best["distance"] == pytest.approx(0, abs=1e-6)
    assert row == [1, 0, 0]  # /embed adds nothing


def test_an_index_of_another_model_or_setting_is_refused_at_the_start(tmp_path: Path) -> None:
    other = IndexDirectory.create(tmp_path / "a", header(MeanColour(), model_sha256="ab"))
    with pytest.raises(DataError, match=r"colour\.onnx is not the model that .* was built with"):
        opened(other, MeanColour())
    bgr = IndexDirectory.create(tmp_path / "b", header(MeanColour(channels="bgr")))
    with pytest.raises(DataError, match="another model or setting: preprocess"):
        opened(bgr, MeanColour())
    with pytest.raises(DataError, match="no index in"):
        IndexSearch(str(tmp_path / "c"), MeanColour(), model=MODEL, max_queue=1)


def test_a_damaged_index_is_refused_at_the_start(index: IndexDirectory) -> None:
    (index.path / "vectors-1.f32").write_bytes(b"")
    with pytest.raises(DataError, match="lacks some of its 6 vectors"):
        opened(index, MeanColour())


def test_an_index_that_is_damaged_later_is_reported_in_the_log_only(
    index: IndexDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    with client(index) as http:
        (index.path / DATABASE).write_bytes(b"text")
        answer = http.post("/search", content=encoded(RED), headers=PNG)
        assert http.post("/embed", content=encoded(RED), headers=PNG).status_code == 200
    assert answer.status_code == 503
    assert answer.json() == {"error": "the index cannot be searched now; see the server's log"}
    assert str(index.path) in caplog.text


class SlowGallery:
    """A gallery whose search waits for `release`."""

    def __init__(self, gallery: Any) -> None:
        self.gallery = gallery
        self.begun, self.release = threading.Event(), threading.Event()

    def search(self, *arguments: Any) -> list[list[Hit]]:
        self.begun.set()
        assert self.release.wait(10)
        found: list[list[Hit]] = self.gallery.search(*arguments)
        return found


def test_a_search_delays_no_embedding_and_a_full_queue_is_refused(index: IndexDirectory) -> None:
    import httpx

    embedder = MeanColour()
    search = opened(index, embedder, max_queue=2)
    slow = SlowGallery(search._gallery)
    search._gallery = slow  # type: ignore[assignment]
    settings = ServeSettings(batches=BatchLimits(max_queue=8))
    app = create_app(embedder, settings, index=search)

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        ):

            async def post(path: str) -> httpx.Response:
                return await http.post(path, content=encoded(RED), headers=PNG)

            first = asyncio.create_task(post("/search"))
            assert await asyncio.to_thread(slow.begun.wait, 10)
            assert (await post("/embed")).status_code == 200
            second = asyncio.create_task(post("/search"))
            async with asyncio.timeout(10):
                while search.waiting < 2:
                    await asyncio.sleep(0.001)
            refused = await post("/search")
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            slow.release.set()
            assert [(await task).status_code for task in (first, second)] == [200, 200]

    asyncio.run(main())


def test_a_slow_search_is_answered_by_503(index: IndexDirectory) -> None:
    embedder = MeanColour()
    search = opened(index, embedder)
    slow = SlowGallery(search._gallery)
    search._gallery = slow  # type: ignore[assignment]
    with started(create_app(embedder, ServeSettings(timeout=0.1), index=search)) as http:
        answer = http.post("/search", content=encoded(RED), headers=PNG)
        slow.release.set()
    assert answer.status_code == 503 and search.waiting == 0


def test_searches_are_measured_and_limited_as_embeddings_are(index: IndexDirectory) -> None:
    with client(index, max_images=1) as http:
        paths(http)
        files = [("file", ("a.png", encoded(RED)))] * 2
        assert http.post("/search", files=files).status_code == 413
        assert http.post("/search", content=b"{}").status_code == 415
        text = http.get("/metrics").text
    assert 'reidkit_requests_total{path="/search",status="200"} 1.0' in text
    assert 'reidkit_request_seconds_count{path="/search"} 3.0' in text
    assert "reidkit_search_seconds_count 1.0" in text
