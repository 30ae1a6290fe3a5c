"""Plots show the results that they are given."""

from pathlib import Path

import numpy as np
from PIL import Image

from reidkit.retrieval import GalleryLabels, metrics_from_distances
from reidkit.visualize.plots import plot_curves


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
