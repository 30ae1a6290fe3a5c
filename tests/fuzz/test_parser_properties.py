"""Properties that hold for all names, texts and numbers, which mutated bytes hardly reach."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from reidkit.config import check_layers, set_layer
from reidkit.data.expressions import compile_expression
from reidkit.data.manifest import open_dataset
from reidkit.data.matlab import read_mat
from reidkit.data.names import NamePattern
from reidkit.errors import ConfigError, ReidkitError
from reidkit.features import Features, read_features, write_features
from reidkit.masks.labels import LabelSet, default_grouping
from reidkit.masks.matching import Matching
from reidkit.masks.sources import index_maps

FEW = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=20)
WORDS = st.text("abc012-_. ²é", min_size=1, max_size=6)


@FEW
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(("train", "query", "gallery")), WORDS, WORDS, WORDS),
        min_size=1,
        max_size=12,
    )
)
def test_an_accepted_table_gives_a_data_set_with_its_rows(
    tmp_path: Path, rows: list[tuple[str, str, str, str]]
):
    """Each row is one image, equal ids are equal identities, and no id is lost."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("split", "path", "pid", "camid"))
    for number, (split, _, pid, camid) in enumerate(rows):
        (tmp_path / f"{number}.jpg").touch()
        writer.writerow((split, f"{number}.jpg", pid, camid))
    (tmp_path / "data.csv").write_text(text.getvalue(), "utf-8")
    splits = "".join(f"[splits.{split}]\n" for split in {row[0] for row in rows})
    manifest = 'format = 1\nname = "x"\nreader = "csv"\nprotocol = "market"\ncameras = 2\n'
    manifest += f'unmatched = "unknown"\n{splits}'
    (tmp_path / "manifest.toml").write_text(manifest)
    try:
        dataset = open_dataset(str(tmp_path))
    except ReidkitError:
        assume(False)
    items = (*dataset.train, *dataset.query, *dataset.gallery)
    assert len(items) == len(rows)
    written = {f"{number}.jpg": row for number, row in enumerate(rows)}
    for one in items:
        for other in items:
            first, second = written[one.path][2].strip(), written[other.path][2].strip()
            assert (one.pid == other.pid) == (first == second or _same_number(first, second))


def _same_number(first: str, second: str) -> bool:
    both = [re.fullmatch(r"-?\d+", text) for text in (first, second)]
    return all(both) and int(first) == int(second)


@FEW
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
            NAMES,
            st.floats(width=32),
            st.integers(0, 2),
        ),
        max_size=8,
    ),
    suffix=st.sampled_from((".h5", ".npz")),
)
def test_features_are_read_as_they_were_written(
    tmp_path: Path, rows: list[tuple[int, int, str, float, int]], suffix: str
):
    pids, camids, paths, values, roles = zip(*rows, strict=True) if rows else ((),) * 5
    assume(suffix == ".h5" or not any(path.endswith("\0") for path in paths))
    written = Features(
        features=np.array(values, np.float32).reshape(-1, 1),
        pids=np.array(pids, np.int64),
        camids=np.array(camids, np.int64),
        paths=tuple(paths),
        roles=np.array(roles, np.uint8),
        attributes={"dataset": "x", "normalised": False},
    )
    write_features(tmp_path / f"f{suffix}", written)
    read = read_features(tmp_path / f"f{suffix}")
    assert read.paths == written.paths
    for name in ("features", "pids", "camids", "roles"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


@FEW
@given(
    labels=st.lists(st.integers(0, 9), min_size=12, max_size=12),
    owners=st.lists(st.integers(0, 3), min_size=9, max_size=9),
)
def test_a_label_map_becomes_the_parts_of_its_labels(
    tmp_path: Path, labels: list[int], owners: list[int]
):
    """Part k + 1 is where a label of part k is; labels without a part are background."""
    members = {f"part {k}": tuple(n + 1 for n in range(9) if owners[n] == k) for k in (1, 2, 3)}
    parts = {name: found for name, found in members.items() if found}
    assume(parts)
    label_set = LabelSet("ten", tuple(f"label {n}" for n in range(10)), (), (), parts)
    values = np.array(labels, np.uint8).reshape(4, 3)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.new("RGB", (3, 4)).save(tmp_path / "a.jpg")
    matching = Matching(tmp_path, {"a.jpg": tmp_path / "a.png"}, (), unused=0, by_name=1)
    part_map = index_maps(tmp_path, matching, default_grouping(label_set)).read("a.jpg")
    for position, label in np.ndenumerate(values):
        owner = [k for k, found in enumerate(parts.values(), start=1) if label in found]
        assert part_map[position] == (owner or [0])[0]


@settings(FEW, max_examples=25)
@given(key=st.sampled_from(("seed", "optim.lr", "arch.backbone", "input.size")), text=st.text())
def test_any_text_after_set_is_a_setting_or_refused(key: str, text: str):
    try:
        check_layers([set_layer([f"{key}={text}"])])
    except ConfigError as error:
        assert str(error)


@FEW
@given(
    name=NAMES, pattern=st.from_regex(r"(\\d|\.|\[ab\]|_|a|\(a\)|\(\?:_b\))[*+?]?", fullmatch=True)
)
def test_the_pattern_of_init_matches_what_re_matches(name: str, pattern: str):
    expression = f"(?P<pid>{pattern})"
    row = NamePattern(expression).row(f"x/{name}")
    match = re.search(expression, name)
    found = match["pid"] if match else ""
    assert row == "pattern" if not found else getattr(row, "pid", None) == found


@pytest.mark.parametrize(
    "text",
    [
        *(r"(a+)+b", r"(a|aa)+$", r"(.*)*x", r"(?:a?){30}", r"(\w+_?)+", r"(?:_\d+\d+)*x"),
        *(r".*.*.*.*x", r"\w?\w?\w?\w?x", r"(?=(a+)+b)a", r"(?>(?:a|aa)+b)"),
    ],
)
def test_expressions_that_backtrack_without_end_are_refused(text: str):
    with pytest.raises(ConfigError, match=r"x\.toml: pattern .* may take too long to match"):
        compile_expression(text, where="x.toml: pattern")


@pytest.mark.parametrize(
    "text",
    [
        *(
            r"(?:_\d+)*",
            r"(?:[a-z]+_)+x",
            r"(\d+)_(\d+)_(\d+)_(\d+)_(\d+)",
            r"(a+)++b",
            r"(?:ab)+c",
        ),
        *(r"^(?P<pid>.+?)_.*_.*\.jpg$", r"(?:train|test)/(?P<pid>[^/]+)/.*c(\d+).*", r"[[a]+"),
    ],
)
def test_expressions_with_separators_are_accepted_and_end(text: str):
    expression = compile_expression(text, where="--pattern")
    began = time.process_time()
    for letter in ("a", "1", "_", "a_", "ab", "_1"):
        expression.fullmatch((letter * 300)[:255] + "!")
    assert time.process_time() - began < 5  # 2^255 steps would take longer


MATRICES = st.one_of(
    st.lists(st.lists(st.integers(-(2**31), 2**31), min_size=2, max_size=2), min_size=1).map(
        lambda rows: np.array(rows)
    ),
    st.lists(st.floats(allow_nan=False), min_size=1).map(lambda row: np.array([row])),
)


@FEW
@given(
    matrix=MATRICES,
    texts=st.lists(NAMES.filter(lambda text: len(text) > 0), min_size=1, max_size=5),
    compressed=st.booleans(),
)
def test_matlab_files_are_read_as_they_were_written(
    tmp_path: Path, matrix: np.ndarray, texts: list[str], compressed: bool
):
    cells = np.empty((len(texts), 1), dtype=object)
    cells[:, 0] = texts
    table = {"matrix": matrix, "names": cells, "other": {"field": 1}}
    savemat(tmp_path / "m.mat", table, do_compression=compressed)
    read = read_mat(tmp_path / "m.mat")
    assert set(read) == {"matrix", "names"}
    np.testing.assert_array_equal(read["matrix"], matrix)
    assert [text.rstrip() for text in read["names"][:, 0]] == [text.rstrip() for text in texts]
