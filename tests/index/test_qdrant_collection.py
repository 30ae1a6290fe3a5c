"""A Qdrant collection behaves as an index directory does. In the client's local mode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError, ReidkitError
from reidkit.index.directory import IndexDirectory
from reidkit.index.qdrant import QdrantCollection, connect
from reidkit.index.records import Filter, Gallery, Header, Record

qdrant_client = pytest.importorskip("qdrant_client", reason="needs the extra qdrant")

HEADER = Header(model="m.onnx", model_sha256="ab", preprocess="{}", flip=True, dimension=4)
RECORDS = [Record(f"p{k}", str(k % 3), k % 2, 1000.0 + k) for k in range(10)]
VECTORS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


@pytest.fixture
def client() -> Iterator[Any]:
    client = qdrant_client.QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture(params=["directory", "qdrant"])
def gallery(request: pytest.FixtureRequest, client: Any, tmp_path: Path) -> Gallery:
    if request.param == "qdrant":
        gallery: Gallery = QdrantCollection.create(client, "people", HEADER)
    else:
        gallery = IndexDirectory.create(tmp_path / "people.index", HEADER)
    assert gallery.add(VECTORS, RECORDS) == 10
    return gallery


def test_both_kinds_of_index_give_the_same_lists(gallery: Gallery) -> None:
    queries = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cosines = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T
    for hits, row in zip(gallery.search(queries, 4), cosines, strict=True):
        order = np.argsort(-row)[:4]
        assert [hit.record for hit in hits] == [RECORDS[k] for k in order]
        assert [hit.distance for hit in hits] == pytest.approx((1 - row[order]).tolist(), abs=1e-5)


def test_both_kinds_filter_add_remove_and_expire_alike(gallery: Gallery) -> None:
    condition = Filter(frozenset({1}), after=1003.0, before=1007.0)
    (hits,) = gallery.search(VECTORS[:1], 10, condition)
    assert {hit.record.path for hit in hits} == {"p3", "p5"}
    people = Filter(people=frozenset({"0", "2"}), before=1006.0)
    (hits,) = gallery.search(VECTORS[:1], 10, people)
    assert {hit.record.path for hit in hits} == {"p0", "p2", "p3", "p5"}
    assert gallery.count(people) == 4 and len(gallery.find(people, limit=3)) == 3
    assert sorted(gallery.find(people), key=lambda r: r.path) == [RECORDS[k] for k in (0, 2, 3, 5)]
    assert gallery.add(VECTORS, [*RECORDS[:9], Record("new")]) == 1
    assert gallery.known(["p1", "new", "x"]) == {"p1", "new"}
    assert gallery.remove(["p1", "x"]) == 1
    assert gallery.expire(1003.0) == 2
    assert len(gallery) == gallery.info()["vectors"] == 8
    (hits,) = gallery.search(VECTORS[1:2], 20)
    assert {hit.record.path for hit in hits} == {"new", *(f"p{k}" for k in range(3, 10))}


def test_a_collection_remembers_its_model(client: Any) -> None:
    QdrantCollection.create(client, "people", HEADER)
    assert QdrantCollection(client, "people").header == HEADER
    with pytest.raises(DataError, match="exists already"):
        QdrantCollection.create(client, "people", HEADER)


def test_a_collection_of_another_program_is_refused(client: Any) -> None:
    from qdrant_client import models

    config = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("other", vectors_config=config)
    with pytest.raises(DataError, match="not an index of format 1"):
        QdrantCollection(client, "other")
    with pytest.raises(DataError, match="no collection 'missing'"):
        QdrantCollection(client, "missing")


@pytest.mark.parametrize("address", ["qdrant://host", "qdrant:///x", "qdrant://h:port/c"])
def test_a_malformed_address_says_what_is_expected(address: str) -> None:
    with pytest.raises(ConfigError, match="expected qdrant://HOST:6333/COLLECTION"):
        connect(address)


def test_a_server_that_does_not_answer_is_named() -> None:
    client, collection = connect("qdrant://127.0.0.1:9/people")
    with pytest.raises(ReidkitError, match=r"'people'.*Is the server running\?"):
        QdrantCollection(client, collection)
