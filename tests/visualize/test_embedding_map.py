"""Embedding maps: what is shown, where, and so that groups differ without colour."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reidkit.errors import DataError, RuntimeMissing
from reidkit.features import Features
from reidkit.visualize.embedding_map import (
    COLOURS,
    LEGEND_GROUPS,
    MARKERS,
    SHAPES,
    choose_items,
    embedding_map,
    project,
    save_map_html,
    save_map_png,
)


def make_features(pids: list[int], root: Path | None = None) -> Features:
    """Noisy vectors around one centre per identity; images with odd names under `root`."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(max(pids) + 1, 8))
    names = tuple(f"<b>&'{k}.png" for k in range(len(pids)))
    for name in names if root else ():
        Image.new("RGB", (32, 64), "grey").save(root / name)  # type: ignore[operator]
    return Features(
        (centres[pids] + rng.normal(size=(len(pids), 8))).astype(np.float32),
        np.array(pids, np.int64),
        np.arange(len(pids), dtype=np.int64) % 3,
        names,
        np.zeros(len(pids), np.uint8),
    )


def test_identities_are_shown_whole_and_junk_is_not() -> None:
    pids = np.repeat([0, 1, 2, 3, 4, -1], 5)
    roles = np.where(pids == -1, 1, np.where(pids == 0, 2, 0)).astype(np.uint8)
    rows = choose_items(pids, roles, count=10)
    chosen, counts = np.unique(pids[rows], return_counts=True)
    assert counts.tolist() == [5, 5] and chosen.min() > 0
    assert rows.tolist() == choose_items(pids, roles, count=10).tolist()
    unlabelled = choose_items(np.full(9, -1), np.zeros(9, np.uint8), count=4)
    assert len(unlabelled) == 4
    with pytest.raises(DataError, match="at least 3 images, found 2"):
        choose_items(np.array([1, 1]), np.zeros(2, np.uint8), count=9)


def test_pca_keeps_the_directions_of_largest_variance() -> None:
    features = make_features([1] * 20 + [2] * 20).features
    projection = project(features, "pca")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(unit.astype(np.float64).T, bias=True))
    expected = (unit - unit.mean(0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(projection.points), np.abs(expected), atol=1e-6)
    shares = 100 * values[::-1][:2] / values.sum()
    assert projection.axes == (
        f"component 1, {shares[0]:.1f} %",
        f"component 2, {shares[1]:.1f} %",
    )


def neighbours_agree(points: NDArray[Any], pids: NDArray[Any]) -> float:
    """Share of points whose nearest other point is of the same identity."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return float((pids[distances.argmin(1)] == pids).mean())


def test_tsne_keeps_identities_together() -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs the extra reidkit[tsne]")
    features = make_features([k % 5 for k in range(60)])
    projection = project(features.features, "tsne")
    assert projection.points.shape == (60, 2) and projection.axes == ("", "")
    assert neighbours_agree(projection.points, features.pids) > 0.9
    np.testing.assert_array_equal(projection.points, project(features.features, "tsne").points)
    assert project(features.features[:4], "tsne").title == "t-SNE, perplexity 1"


def test_missing_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(RuntimeMissing, match=r"pip install 'reidkit\[tsne\]'"):
        project(make_features([1, 1, 2, 2]).features, "tsne")


def test_seventy_two_groups_differ_in_colour_or_marker() -> None:
    assert len(MARKERS) == len(SHAPES)
    styles = {(k % len(COLOURS), k % len(MARKERS)) for k in range(72)}
    assert len(styles) == 72


def test_a_page_escapes_names_and_contains_its_images(tmp_path: Path) -> None:
    features = make_features([1, 1, 2, 2, 3], tmp_path)
    shown = embedding_map(features, method="pca", colour="identity", root=tmp_path)
    save_map_html(tmp_path / "map.html", shown, title="<i>")
    text = (tmp_path / "map.html").read_text()
    assert "<b>" not in text and "<i>" not in text and "&lt;b&gt;&amp;" in text
    assert text.count("data:image/jpeg") == 5
    assert "http" not in text.replace("http-equiv", "")
    markers = re.findall(r'data-group="(\d)".*?href="(#m\d)"', text, re.DOTALL)
    assert len(markers) == 5 and len(set(markers)) == 3  # one marker per identity
    assert '<ul class="legend">' in text and "id 3" in text


def test_a_legend_is_left_out_where_it_would_be_too_long(tmp_path: Path) -> None:
    features = make_features(list(range(1, LEGEND_GROUPS + 2)) * 2)
    by_pid, by_camera = (
        embedding_map(features, method="pca", colour=colour, root=None)
        for colour in ("identity", "camera")  # type: ignore[arg-type]
    )
    assert not by_pid.has_legend and by_camera.has_legend
    assert by_camera.groups == ("camera 0", "camera 1", "camera 2")
    for shown, legend in ((by_pid, False), (by_camera, True)):
        save_map_html(tmp_path / "map.html", shown, title="map")
        text = (tmp_path / "map.html").read_text()
        assert ('<ul class="legend">' in text) == legend and "<image" not in text


def test_the_picture_shows_images_or_markers(tmp_path: Path) -> None:
    features = make_features([1, 1, 2, 2, 3], tmp_path)
    sizes = []
    for root in (None, tmp_path):
        shown = embedding_map(features, method="pca", colour="camera", root=root)
        save_map_png(tmp_path / "map.png", shown, title="a $\\frac$ title")
        pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
        sizes.append(int((pixels == 128).all(-1).sum()))
    assert sizes[1] - sizes[0] > 5 * 500  # five grey images
