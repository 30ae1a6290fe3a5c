"""Pictures: ranked lists, and the curves of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from reidkit.files import atomic
from reidkit.image import read_image
from reidkit.retrieval import RetrievalMetrics

GREEN, RED, GREY, INK, PAPER = "#1a9850", "#d73027", "#9a9a9a", "#222222", "#ffffff"
_TILE = (72, 144)  # width, height in pixels of one image
_FRAME, _GAP, _MARGIN, _CAPTION = 4, 8, 16, 18


@dataclass(frozen=True)
class RankedRow:
    """A query and what was found for it, nearest first.

    Attributes:
        matches: per found image, whether it shows the query's person.
        captions: a short text under each found image.
    """

    query: Path
    query_caption: str
    found: Sequence[Path]
    matches: Sequence[bool]
    captions: Sequence[str]


def plot_ranked_lists(rows: Sequence[RankedRow], path: Path, *, title: str) -> None:
    """Writes a PNG: one query a line, its nearest images to the right, the right ones framed in
    green and the wrong ones in red."""
    columns = 1 + max(len(row.found) for row in rows)
    cell = (_TILE[0] + 2 * _FRAME + _GAP, _TILE[1] + 2 * _FRAME + _GAP + _CAPTION)
    extra = 2 * _GAP  # between the query and what was found
    width = 2 * _MARGIN + columns * cell[0] + extra - _GAP
    top = _MARGIN + 28
    sheet = Image.new("RGB", (width, top + len(rows) * cell[1] + _MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN - 4), title, fill=INK, font=ImageFont.load_default(16))
    small = ImageFont.load_default(11)
    for line, row in enumerate(rows):
        colours = [GREY] + [GREEN if match else RED for match in row.matches]
        images = [row.query, *row.found]
        captions = [row.query_caption, *row.captions]
        for column, (image, colour, caption) in enumerate(
            zip(images, colours, captions, strict=True)
        ):
            left = _MARGIN + column * cell[0] + (extra if column else 0)
            upper = top + line * cell[1]
            box = (left, upper, left + _TILE[0] + 2 * _FRAME - 1, upper + _TILE[1] + 2 * _FRAME - 1)
            pen.rectangle(box, fill=colour)
            tile = read_image(image).resize(_TILE, Image.Resampling.BICUBIC)
            sheet.paste(tile, (left + _FRAME, upper + _FRAME))
            pen.text((left + _FRAME, box[3] + 3), caption, fill=INK, font=small)
    with atomic(path) as partial:
        sheet.save(partial, format="PNG")


def plot_curves(reports: Mapping[str, RetrievalMetrics], path: Path, *, title: str) -> None:
    """Writes a PNG: CMC of every report; ROC and distances of those that counted pairs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (cmc, roc, histogram) = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    for name, report in reports.items():
        ranks = range(1, len(report.cmc) + 1)
        cmc.plot(ranks, 100 * report.cmc, label=f"{name}, mAP {100 * report.mAP:.1f}")
        if report.pairs is not None:
            false, true = report.pairs.roc()
            roc.plot(false, true, label=name)
            _draw_histogram(histogram, report)
    cmc.set(xlabel="rank", ylabel="queries with a match by then, %", ylim=(None, 100.5))
    cmc.legend(loc="lower right", frameon=False)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", xscale="log", ylim=(0, 1.02))
    histogram.set(xlabel="distance", ylabel="share of its pairs", yticks=[])
    for axes in (cmc, roc, histogram):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
    pyplot.close(figure)


def _draw_histogram(axes: Any, report: RetrievalMetrics) -> None:
    assert report.pairs is not None
    edges, same, other = report.pairs.histogram(80)
    for counts, colour, name in ((same, GREEN, "same person"), (other, RED, "others")):
        axes.stairs(counts / max(1, counts.sum()), edges, fill=True, alpha=0.45, color=colour)
        axes.stairs(counts / max(1, counts.sum()), edges, color=colour, label=name)
    axes.legend(loc="upper right", frameon=False)
