"""Plots of the curves of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reidkit.files import atomic
from reidkit.retrieval import RetrievalMetrics

GREEN, RED = "#1a9850", "#d73027"


def plot_curves(results: Mapping[str, RetrievalMetrics], path: Path, *, title: str) -> None:
    """Writes a PNG: CMC of every result; ROC and distances of those with pair statistics."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    margins = {"left": 0.05, "right": 0.99, "bottom": 0.14, "top": 0.9, "wspace": 0.17}
    figure, (cmc, roc, histogram) = pyplot.subplots(1, 3, figsize=(13, 3.8), gridspec_kw=margins)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    for name, metrics in results.items():
        ranks = range(1, len(metrics.cmc) + 1)
        cmc.plot(
            ranks, 100 * metrics.cmc, label=f"{name}, mAP ({metrics.ap}) {100 * metrics.mAP:.1f}"
        )
        if metrics.pairs is not None:
            false, true = metrics.pairs.roc()
            roc.plot(false, true, label=name)
            _plot_histogram(histogram, metrics)
    cmc.set(xlabel="rank", ylabel="matched queries, %", ylim=(None, 100.5))
    cmc.legend(loc="lower right", frameon=False)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", xscale="log", ylim=(0, 1.02))
    histogram.set(xlabel="distance", ylabel="fraction of pairs", yticks=[])
    for axes in (cmc, roc, histogram):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
    pyplot.close(figure)


def _plot_histogram(axes: Any, metrics: RetrievalMetrics) -> None:
    assert metrics.pairs is not None
    edges, same, other = metrics.pairs.histogram(80)
    for counts, colour, name in ((same, GREEN, "same person"), (other, RED, "different persons")):
        axes.stairs(counts / max(1, counts.sum()), edges, fill=True, alpha=0.45, color=colour)
        axes.stairs(counts / max(1, counts.sum()), edges, color=colour, label=name)
    axes.legend(loc="upper right", frameon=False)
