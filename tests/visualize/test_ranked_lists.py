"""Ranked lists: verdicts as evaluation has them, pictures with colours and signs, safe pages."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.errors import DataError
from reidkit.features import Features
from reidkit.retrieval import Embeddings, RankingConfig, compute_metrics
from reidkit.visualize.ranked_lists import COLOURS, RankedRow, Tile, save_html, save_png
from reidkit.visualize.ranks import choose_rows, ranked_rows


def features(angles: list[float], pids: list[int], camids: list[int], names: str) -> Features:
    """Vectors in the plane by their angle in degrees; pid -1 is junk."""
    radians = np.deg2rad(angles)
    return Features(
        np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32),
        np.array(pids, np.int64),
        np.array(camids, np.int64),
        tuple(f"{name}.png" for name in names),
        np.where(np.array(pids) == -1, 1, 0).astype(np.uint8),
    )


QUERY = features([0, 90], [1, 2], [1, 1], "qr")
GALLERY = features(
    [1, 2, 3, 4, 5, 80, 170], [1, -1, 2, 1, 3, 2, 9], [1, 2, 2, 2, 3, 2, 1], "abcdefg"
)
"""From q: a is q's person by q's camera, b is junk, c wrong, d right, e to g wrong."""


def lists(rows: list[int], **options: object) -> list[RankedRow]:
    options = {"root": Path("/data"), "config": RankingConfig("market"), **options}
    return ranked_rows(QUERY, GALLERY, np.array(rows), **options)  # type: ignore[arg-type]


def test_verdicts_are_those_of_the_evaluation_protocol() -> None:
    (row,) = lists([0])
    found = [(tile.image.stem, tile.verdict) for tile in row.hits]
    assert found == [
        *(("a", "junk"), ("b", "junk"), ("c", "wrong"), ("d", "right"), ("e", "wrong")),
        *(("f", "wrong"), ("g", "wrong")),
    ]
    assert row.hits[3].lines == ("2. 0.002", "id 1", "camera 2")


def test_a_list_has_the_requested_number_of_hits_that_count() -> None:
    (row,) = lists([0], top=2)
    assert [tile.image.stem for tile in row.hits] == ["a", "b", "c", "d"]


def test_mars_ranks_the_queries_too() -> None:
    (row,) = lists([0], config=RankingConfig("mars"), top=8)
    assert Path("/data/r.png") in [tile.image for tile in row.hits]


def test_queries_are_chosen_by_their_ap() -> None:
    aps = np.array([0.5, np.nan, 0.1, 0.9, 0.4])
    query = features([0] * 5, [1] * 5, [1] * 5, "abcde")
    assert choose_rows(query, aps, worst=2).tolist() == [2, 4]
    assert choose_rows(query, aps, best=1, paths=["b.png"]).tolist() == [3, 1]
    assert sorted(choose_rows(query, aps, random=9).tolist()) == [0, 2, 3, 4]
    with pytest.raises(DataError, match=r"no query 'x\.png'; expected .* such as a\.png"):
        choose_rows(query, aps, paths=["x.png"])


def test_the_worst_query_of_a_list_has_the_lowest_ap() -> None:
    Q, G = (Embeddings(f.features, f.pids, f.camids, f.roles) for f in (QUERY, GALLERY))
    aps = compute_metrics(Q, G, RankingConfig("market")).average_precision
    (row,) = lists(choose_rows(QUERY, aps, worst=1).tolist(), aps=aps)
    assert row.ap == aps.min()


@pytest.fixture
def rows(tmp_path: Path) -> list[RankedRow]:
    image = tmp_path / "grey.png"
    Image.new("RGB", (64, 128), (100, 100, 100)).save(image)
    verdicts = ("right", "wrong", "junk", "right")
    hits = tuple(Tile(image, ("1. 0.1", "id 1"), verdict, 2) for verdict in verdicts)
    evil = "<script>alert(1)</script>"
    return [RankedRow(Tile(image, ("query", evil), camera=1), hits, evil, 0.5)]


def test_right_and_wrong_hits_differ_in_frame_and_sign(
    rows: list[RankedRow], tmp_path: Path
) -> None:
    save_png(tmp_path / "out.png", rows, title="title")
    pixels = np.asarray(Image.open(tmp_path / "out.png")).reshape(-1, 3)
    right, wrong, junk = ((pixels == COLOURS[v]).all(1).sum() for v in ("right", "wrong", "junk"))
    assert right / wrong == pytest.approx(2, rel=0.03)  # two right hits; the signs differ a little
    assert junk / wrong == pytest.approx(1, rel=0.03)


def test_a_page_escapes_names_and_needs_no_other_file(
    rows: list[RankedRow], tmp_path: Path
) -> None:
    save_html(tmp_path / "out.html", rows, title='a "<b>" title')
    page = (tmp_path / "out.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert 'a "<b>"' not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/jpeg") == 5
    assert page.count("<b>1. 0.1</b><span>id 1</span>") == 4  # a line each, which cannot wrap
    for verdict in ("right", "wrong", "junk"):
        assert f'class="{verdict}"' in page


def test_ranked_lists_are_written_to_png_only(rows: list[RankedRow], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.png"):
        save_png(tmp_path / "out.jpg", rows)
