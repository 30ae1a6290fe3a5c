"""Plots show the results that they are given."""

from pathlib import Path

import numpy as np
from PIL import Image

from reidkit.retrieval import GalleryLabels, metrics_from_distances
from reidkit.visualize.plots import GREEN, RED, RankedList, plot_curves, plot_ranked_lists


def colour(text: str) -> tuple[int, ...]:
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def test_true_matches_are_framed_in_green_and_false_ones_in_red(tmp_path: Path) -> None:
    image = tmp_path / "grey.png"
    Image.new("RGB", (64, 128), (100, 100, 100)).save(image)
    rows = [RankedList(image, "query", [image] * 3, [True, False, True], ["a", "b", "c"])] * 2
    plot_ranked_lists(rows, tmp_path / "out.png", title="title")
    pixels = np.asarray(Image.open(tmp_path / "out.png")).reshape(-1, 3)
    green, red = ((pixels == colour(c)).all(1).sum() for c in (GREEN, RED))
    assert green == 2 * red > 0  # two true and one false match in each row


def test_curves_are_plotted_for_every_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pids = np.arange(40) % 8
    labels = GalleryLabels(pids, np.ones(40, np.int64), np.zeros(40, np.uint8))
    metrics = metrics_from_distances(
        rng.random((8, 40)), np.arange(8), np.zeros(8, np.int64), labels, thresholds=True
    )
    plot_curves({"plain": metrics}, tmp_path / "curves.png", title="t")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20
