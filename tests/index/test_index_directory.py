"""An index on disk: it remembers, forgets on request, and survives kills."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.errors import DataError, ReidkitError
from reidkit.index.directory import IndexDirectory
from reidkit.index.opening import open_index
from reidkit.index.records import DATABASE, Filter, Gallery, Header, Record

HEADER = Header(model="m.onnx", model_sha256="ab", preprocess="{}", flip=False, dimension=4)


def vectors(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def records(count: int, *, prefix: str = "p") -> list[Record]:
    return [Record(f"{prefix}{k}", f"person {k % 3}", k % 2, 1000.0 + k) for k in range(count)]


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return np.asarray(a @ b.T)


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    """Ten vectors p0..p9, of cameras 0 and 1, at times 1000 to 1009."""
    index = IndexDirectory.create(tmp_path / "people.index", HEADER)
    assert index.add(vectors(10), records(10)) == 10
    return index


def paths(
    index: Gallery, query: NDArray[np.float32], n: int = 10, **condition: object
) -> list[str]:
    (hits,) = index.search(query, n, Filter(**condition))  # type: ignore[arg-type]
    return [hit.record.path for hit in hits]


def test_a_reopened_index_finds_the_nearest_with_distance_and_metadata(
    index: IndexDirectory,
) -> None:
    query = vectors(1, seed=9)
    (hits,) = open_index(index.name).search(query, 3)
    expected = np.argsort(-cosines(query, vectors(10))[0])[:3]
    assert [hit.record for hit in hits] == [records(10)[k] for k in expected]
    assert hits[0].distance == pytest.approx(1 - cosines(query, vectors(10)).max(), abs=1e-6)


def test_an_index_that_nobody_holds_is_closed_whatever_thread_drops_it(tmp_path: Path) -> None:
    held = [IndexDirectory.create(tmp_path / "people.index", HEADER)]
    database = held[0]._database
    with ThreadPoolExecutor(1) as pool:
        pool.submit(held.clear).result()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")


def test_a_path_is_stored_once_however_often_it_is_added(index: IndexDirectory) -> None:
    assert index.add(vectors(12, seed=5), [*records(10), Record("new"), Record("new")]) == 1
    assert len(index) == 11


def test_removed_and_expired_records_are_never_found_again(index: IndexDirectory) -> None:
    query = vectors(10)[3:4]
    assert paths(index, query, 1) == ["p3"]
    assert index.remove(["p3", "unknown"]) == 1
    assert index.expire(1002.0) == 2
    assert set(paths(index, query)) == {"p2", *(f"p{k}" for k in range(4, 10))}
    assert index.add(vectors(10)[3:4], [Record("p3")]) == 1
    assert paths(index, query, 1) == ["p3"]


def test_records_without_a_time_do_not_expire(index: IndexDirectory) -> None:
    index.add(vectors(1, seed=3), [Record("timeless")])
    assert index.expire(1e12) == 10
    assert paths(index, vectors(1)) == ["timeless"]


def test_conditions_on_camera_and_time_combine(index: IndexDirectory) -> None:
    query = vectors(1, seed=2)
    assert set(paths(index, query, cameras=frozenset({1}))) == {"p1", "p3", "p5", "p7", "p9"}
    found = paths(index, query, cameras=frozenset({1}), after=1003.0, before=1007.0)
    assert set(found) == {"p3", "p5"}


def test_records_are_counted_and_listed_by_path_and_condition(index: IndexDirectory) -> None:
    assert index.count() == 10 and index.find() == records(10)
    condition = Filter(people=frozenset({"person 0", "person 1"}), after=1004.0)
    assert [record.path for record in index.find(condition)] == ["p4", "p6", "p7", "p9"]
    assert index.count(condition) == 4 and len(index.find(condition, limit=2)) == 2
    assert set(paths(index, vectors(1), people=frozenset({"person 2"}))) == {"p2", "p5", "p8"}


def test_compaction_keeps_every_vector_with_its_record(index: IndexDirectory) -> None:
    index.remove([f"p{k}" for k in range(5)])
    assert [file.name for file in index.path.glob("vectors-*")] == ["vectors-2.f32"]
    assert (index.path / "vectors-2.f32").stat().st_size == 5 * 4 * 4
    for k in range(5, 10):
        assert paths(index, vectors(10)[k : k + 1], 1) == [f"p{k}"]


def test_an_index_opened_before_a_compaction_searches_what_is_stored_now(
    index: IndexDirectory,
) -> None:
    reader = IndexDirectory(index.path)
    assert paths(reader, vectors(10)[9:], 1) == ["p9"]
    index.remove([f"p{k}" for k in range(5)])
    assert paths(reader, vectors(10)[9:], 1) == ["p9"]


def test_vectors_that_cannot_be_compared_are_refused(index: IndexDirectory) -> None:
    with pytest.raises(DataError, match="length 4, found"):
        index.add(np.ones((1, 3), np.float32), [Record("x")])
    with pytest.raises(DataError, match="NaN or infinity, the first at index 1"):
        index.add(np.array([[1, 0, 0, 0], [np.nan] * 4], np.float32), [Record("x"), Record("y")])
    with pytest.raises(DataError, match="another model or setting: model_sha256"):
        other = Header("n.onnx", "cd", "{}", False, 4)
        index.header.check_same_model(other, where=index.name)
    assert len(index) == 10


def test_a_folder_with_other_files_is_never_taken_for_an_index(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        IndexDirectory.create(tmp_path, HEADER)
    with pytest.raises(DataError, match=r"no index in .* reidkit index build"):
        open_index(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\xff" * 200, b"text"])
def test_a_damaged_database_is_refused_by_name(index: IndexDirectory, content: bytes) -> None:
    (index.path / DATABASE).write_bytes(content)
    with pytest.raises(ReidkitError, match=r"records\.sqlite|people\.index"):
        len(IndexDirectory(index.path))


@pytest.mark.parametrize(
    "header",
    ["null", "[]", "{}", "[" * 10_000, '{"format": 1, "dimension": -1}', '{"format": 2}', "1e999"],
)
def test_a_damaged_header_is_refused(index: IndexDirectory, header: str) -> None:
    with sqlite3.connect(index.path / DATABASE) as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'header'", (header,))
    database.close()
    with pytest.raises(DataError):
        IndexDirectory(index.path)


def test_a_vector_file_that_was_cut_off_is_refused(index: IndexDirectory) -> None:
    file = index.path / "vectors-1.f32"
    file.write_bytes(file.read_bytes()[:-1])
    reader = IndexDirectory(index.path)
    with pytest.raises(DataError, match="vectors-1"):
        reader.search(vectors(1), 1)
    with pytest.raises(DataError, match="vectors-1"):
        reader.add(vectors(1, seed=8), [Record("x")])


def test_vectors_that_a_killed_process_left_are_overwritten(index: IndexDirectory) -> None:
    with (index.path / "vectors-1.f32").open("ab") as file:
        file.write(b"\x7f" * 37)
    index.add(vectors(2, seed=8), [Record("a"), Record("b")])
    for row, path in enumerate(("a", "b")):
        assert paths(index, vectors(2, seed=8)[row : row + 1], 1) == [path]


def test_one_process_at_a_time_changes_an_index(index: IndexDirectory) -> None:
    from reidkit.files import exclusive_lock

    with (
        exclusive_lock(index.path),
        pytest.raises(ReidkitError, match="another process is writing"),
    ):
        index.remove(["p1"])


def test_a_full_disk_is_one_line_and_the_index_is_as_before(index: IndexDirectory) -> None:
    database = index._database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ReidkitError, match=r"people\.index: No space left on device\. Free some"):
        index.add(vectors(999, seed=8), records(999, prefix="new"))
    assert len(index) == len(open_index(index.name)) == 10
    database.execute(f"PRAGMA max_page_count = {1 << 20}")
    assert index.add(vectors(999, seed=8), records(999, prefix="new")) == 999


def test_kills_at_any_moment_never_separate_a_record_from_its_vector(tmp_path: Path) -> None:
    path = tmp_path / "people.index"
    calls = np.random.default_rng(0).integers(1, 2500, 30)
    for stage, expected in ((calls, "-9"), ([0], "0")):
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("change_index.py"), path, *map(str, stage)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert expected in done.stdout.split() and set(done.stdout.split()) <= {"0", "-9"}
        index = IndexDirectory(path)
        unit = np.asarray(index.vectors())
        stored = list(index.records())
        for slot, record in stored:
            own = vectors(60)[int(record.path.removeprefix("p"))][None]
            assert cosines(unit[slot][None], own) == pytest.approx(1, abs=1e-5)
    assert {record.path for _, record in stored} == {f"p{k}" for k in range(60) if k % 3}
