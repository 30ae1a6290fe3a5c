"""The charts of a report: training curves, CMC, ROC and distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from reidkit.evaluation import percentages
from reidkit.retrieval import OperatingPoint, PairStatistics
from reidkit.visualize.svg import FAINT, INK, RIGHT, SERIES, WRONG, chart, inline_svg

MAX_EPOCHS = 240
"""Points of a training curve; longer runs are thinned out."""

_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Chart:
    """A picture with its title."""

    title: str
    svg: Markup


def training_charts(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Losses, learning rate and scores over epochs; empty without a history.

    Args:
        history: the records of metrics.jsonl; the first one is epoch 1, whatever it is called.
    """
    if not history:
        return []
    before = history[0]["epoch"] - 1
    history = [{**record, "epoch": record["epoch"] - before} for record in history]
    chosen = np.unique(np.linspace(0, len(history) - 1, MAX_EPOCHS).round().astype(int))
    shown = [history[k] for k in chosen]
    return [_losses(shown), _scores(history, shown), _learning_rate(shown)]


def _losses(records: Sequence[Mapping[str, Any]]) -> Chart:
    names = dict.fromkeys(name for record in records for name in record["losses"])
    with chart() as figure:
        axes = figure.subplots()
        for k, name in enumerate(names):
            values = [record["losses"].get(name, np.nan) for record in records]
            label = name.replace("_", " ")
            if name == "total":
                _plot(axes, records, values, label=label, color=INK, linewidth=2.2)
            else:
                _plot(axes, records, values, label=label, **_curve(k))
        axes.set(xlabel="epoch", ylabel="loss, unweighted", ylim=(0, None))
        figure.legend(loc="outside lower center", ncols=3)
        return Chart("Losses", inline_svg(figure, description="Losses by epoch"))


def _scores(history: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> Chart:
    with chart() as figure:
        axes = figure.subplots()
        accuracy = [100 * record["accuracy"] for record in shown]
        _plot(axes, shown, accuracy, label="training accuracy", color=FAINT, linestyle=":")
        curves = 0
        for key, name in (("test", "test set"), ("validation", "held-out identities")):
            evaluated = [record for record in history if key in record]
            scores = [percentages(record[key]) for record in evaluated]
            for score in list(scores[0])[:2] if scores else ():
                values = [found[score] for found in scores]
                label = f"{score}, {name}"
                _plot(axes, evaluated, values, marker="o", label=label, **_curve(curves))
                curves += 1
        axes.set(xlabel="epoch", ylabel="%", ylim=(0, 102))
        figure.legend(loc="outside lower center", ncols=2)
        return Chart("Scores", inline_svg(figure, description="Scores by epoch"))


def _learning_rate(records: Sequence[Mapping[str, Any]]) -> Chart:
    with chart() as figure:
        axes = figure.subplots()
        _plot(axes, records, [record["lr"] for record in records], color=SERIES[0])
        axes.set(xlabel="epoch", ylabel="learning rate", yscale="log")
        return Chart("Learning rate", inline_svg(figure, description="Learning rate by epoch"))


def _plot(
    axes: Any, records: Sequence[Mapping[str, Any]], values: Sequence[float], **style: Any
) -> None:
    """A curve over epochs, with a point for every epoch if there are few."""
    style = {"marker": "." if len(records) < 25 else "", "clip_on": False, **style}
    axes.plot([record["epoch"] for record in records], values, **style)
    axes.margins(x=0)  # else the axis begins before epoch 1
    axes.xaxis.get_major_locator().set_params(integer=True)


def _curve(k: int) -> dict[str, Any]:
    """Colour and line of curve k, which differ in both."""
    return {"color": SERIES[k % len(SERIES)], "linestyle": _DASHES[k % len(_DASHES)]}


def cmc_chart(curves: Mapping[str, Sequence[float]]) -> Chart:
    """Cumulative matching characteristic of each ranking, as fractions of one."""
    with chart() as figure:
        axes = figure.subplots()
        for k, (name, cmc) in enumerate(curves.items()):
            ranks = range(1, len(cmc) + 1)
            axes.plot(ranks, [100 * value for value in cmc], label=name, **_curve(k))
        axes.set(xlabel="rank", ylabel="queries with a match up to it, %", ylim=(None, 101))
        if len(curves) > 1:
            figure.legend(loc="outside lower center", ncols=1)
        return Chart("CMC", inline_svg(figure, description="Cumulative matching characteristic"))


def roc_chart(pairs: PairStatistics, point: OperatingPoint) -> Chart:
    """Receiver operating characteristic of verification, with the chosen threshold."""
    false, true = pairs.roc()
    with chart() as figure:
        axes = figure.subplots()
        axes.plot(100 * false, 100 * true, color=SERIES[0])
        axes.plot(100 * point.fpr, 100 * point.tpr, "o", color=INK)
        axes.annotate(
            f"threshold {point.threshold:.3f}",
            (100 * point.fpr, 100 * point.tpr),
            xytext=(8, -12),
            textcoords="offset points",
        )
        axes.set(
            xlabel="false positive rate, %",
            ylabel="true positive rate, %",
            xscale="log",
            ylim=(0, 102),
        )
        return Chart("ROC", inline_svg(figure, description="Receiver operating characteristic"))


def distance_chart(pairs: PairStatistics, point: OperatingPoint) -> Chart:
    """Distances of pairs of the same and of different people, with the chosen threshold."""
    edges, same, other = pairs.histogram(80)
    with chart() as figure:
        axes = figure.subplots()
        for counts, colour, hatch, label in (
            (other, WRONG, "////", "different people"),
            (same, RIGHT, None, "same person"),
        ):
            share = 100 * counts / max(1, counts.sum())
            axes.stairs(share, edges, color=colour, fill=hatch is None, alpha=0.35)
            axes.stairs(share, edges, color=colour, hatch=hatch, label=label)
        axes.axvline(point.threshold, color=INK, linestyle="--", label="threshold")
        axes.set(xlabel="distance", ylabel="share of the pairs, %")
        figure.legend(loc="outside lower center", ncols=3)
        return Chart("Distances", inline_svg(figure, description="Histograms of distances"))
