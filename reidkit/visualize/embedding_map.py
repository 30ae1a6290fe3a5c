"""Embeddings in the plane: by PCA or t-SNE, with thumbnails, as PNG and as one HTML page.

A group (identity or camera) has a colour and a marker, so that groups differ without colour, too.
"""

# N images, D embedding

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import ColourBy, ProjectionMethod
from reidkit.errors import DataError, RuntimeMissing
from reidkit.features import JUNK, Features
from reidkit.files import atomic
from reidkit.image import read_image
from reidkit.visualize.images import thumbnail
from reidkit.visualize.page import render_page

THUMBNAIL = (64, 32)
"""(height, width) in pixels of the images of the map."""
LEGEND_GROUPS = 16
"""Groups of a legend; more are left out of it."""
COLOURS = (
    *("#1f77b4", "#d95f02", "#2a9d4a", "#c2255c", "#7048a8", "#8c6d1f", "#0f8a8a", "#e07bb0"),
    "#5a5a5a",
)
MARKERS = "os^Dv*PX"
"""As matplotlib names them; nine colours and eight markers give 72 different groups."""
SHAPES = (
    "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z",
    "M-.9-.9H.9V.9H-.9Z",
    "M0-1.1L1.1 .9H-1.1Z",
    "M0-1.2L1 0 0 1.2-1 0Z",
    "M0 1.1L1.1-.9H-1.1Z",
    "M0-1.3L.35-.42 1.24-.4.53.16.76 1.05 0 .55-.76 1.05-.53.16-1.24-.4-.35-.42Z",
    "M-.35-1.1H.35V-.35H1.1V.35H.35V1.1H-.35V.35H-1.1V-.35H-.35Z",
    "M-1-.5-.5-1 0-.5 .5-1 1-.5 .5 0 1 .5 .5 1 0 .5-.5 1-1 .5-.5 0Z",
)
"""The markers as SVG paths."""
_WIDTH, _HEIGHT, _BORDER = 1200, 800, 62


@dataclass(frozen=True)
class Projection:
    """Embeddings in the plane.

    Attributes:
        points: float [N, 2].
        axes: what the two axes show; empty strings where they have no meaning.
        title: method and what it kept.
    """

    points: NDArray[np.float64]
    axes: tuple[str, str]
    title: str


@dataclass(frozen=True)
class MapPoint:
    """An image of the map.

    Attributes:
        x, y: in [0, 1], y upwards.
        group: index of its identity or camera.
        label: path, identity and camera.
        image: the file; None if it is not shown.
    """

    x: float
    y: float
    group: int
    label: str
    image: Path | None


@dataclass(frozen=True)
class EmbeddingMap:
    """What is shown: points, and the names of their groups."""

    projection: Projection
    points: tuple[MapPoint, ...]
    groups: tuple[str, ...]

    @property
    def has_legend(self) -> bool:
        """Whether there are few enough groups for a legend to be read."""
        return len(self.groups) <= LEGEND_GROUPS


def choose_items(
    pids: NDArray[np.int64], roles: NDArray[np.uint8], *, count: int, seed: int = 0
) -> NDArray[np.int64]:
    """Rows to show: all images of randomly chosen identities, up to `count` images, so that an
    identity is shown whole. Junk is left out; images without a label are chosen one by one.

    Raises:
        DataError: fewer than three images are left.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(roles != JUNK)
    labelled = rows[pids[rows] > 0] if (pids[rows] > 0).any() else rows[:0]
    order = rng.permutation(np.unique(pids[labelled]))
    chosen = [int(row) for pid in order for row in labelled[pids[labelled] == pid]][:count]
    if not len(labelled):
        chosen = rng.permutation(rows)[:count].tolist()
    if len(chosen) < 3:
        raise DataError(f"a map needs at least 3 images, found {len(chosen)}")
    return np.sort(np.array(chosen, np.int64))


def project(
    features: NDArray[np.float32], method: ProjectionMethod, *, seed: int = 0
) -> Projection:
    """L2-normalised embeddings in the plane.

    pca: the two directions of largest variance. tsne: t-SNE (van der Maaten and Hinton 2008) by
    scikit-learn, from the PCA; perplexity 30, or a third of the images if they are few.

    Args:
        features: float [N, D], N >= 3.

    Raises:
        RuntimeMissing: t-SNE needs scikit-learn.
    """
    vectors = features / np.linalg.norm(features, axis=1, keepdims=True).clip(min=1e-12)
    centred = (vectors - vectors.mean(0)).astype(np.float64)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * singular[:2]
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 1)))
    # the sign of a singular vector is arbitrary: make the largest entry positive
    largest = points[np.abs(points).argmax(0), [0, 1]]
    points = points * np.where(largest < 0, -1, 1)
    variance = singular**2 / max(float((singular**2).sum()), 1e-12)
    if method == "pca":
        shares = [*variance[:2], 0.0][:2]
        x, y = (f"component {k}, {100 * share:.1f} %" for k, share in enumerate(shares, start=1))
        return Projection(points, (x, y), f"PCA, {100 * sum(shares):.1f} % of the variance")
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    found = import_tsne()(
        n_components=2, perplexity=perplexity, init="pca", random_state=seed
    ).fit_transform(vectors)
    return Projection(
        np.asarray(found, np.float64), ("", ""), f"t-SNE, perplexity {perplexity:.0f}"
    )


def import_tsne() -> Any:
    """scikit-learn's TSNE.

    Raises:
        RuntimeMissing: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise RuntimeMissing(
            "t-SNE needs scikit-learn. Install it: pip install 'reidkit[tsne]', or use --method pca"
        ) from error
    return TSNE


def embedding_map(
    features: Features,
    *,
    method: ProjectionMethod,
    colour: ColourBy,
    root: Path | None,
    seed: int = 0,
) -> EmbeddingMap:
    """The map of all rows of `features`.

    Args:
        root: folder that the paths are relative to; None shows no images.
    """
    projection = project(features.features, method, seed=seed)
    low, high = projection.points.min(0), projection.points.max(0)
    unit = (projection.points - low) / np.maximum(high - low, 1e-12)
    values = features.pids if colour == "identity" else features.camids
    names, groups = np.unique(values, return_inverse=True)
    points = tuple(
        MapPoint(
            x=float(x),
            y=float(y),
            group=int(group),
            label=f"{path}, id {pid}, camera {camid}",
            image=None if root is None else root / path,
        )
        for (x, y), group, path, pid, camid in zip(
            unit, groups, features.paths, features.pids, features.camids, strict=True
        )
    )
    word = "id" if colour == "identity" else "camera"
    return EmbeddingMap(projection, points, tuple(f"{word} {name}" for name in names))


def save_map_png(path: Path, shown: EmbeddingMap, *, title: str) -> None:
    """Writes the map as PNG.

    Raises:
        DataError: an image cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure = Figure(figsize=(13, 8.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for point in shown.points:
        if point.image is not None:
            image = read_image(point.image)
            image.thumbnail((THUMBNAIL[1], THUMBNAIL[0]))
            frame = {"edgecolor": _colour(point.group), "linewidth": 1.5}
            picture = OffsetImage(np.asarray(image), zoom=0.55)
            axes.add_artist(
                AnnotationBbox(picture, (point.x, point.y), pad=0.1, bboxprops=frame, zorder=2)
            )
    for group, name in enumerate(shown.groups):
        own = [point for point in shown.points if point.group == group]
        left, above = (0.0, 0.0) if own[0].image is None else (0.012, 0.036)  # corner of the image
        axes.scatter(
            [point.x - left for point in own],
            [point.y + above for point in own],
            marker=MARKERS[group % len(MARKERS)],
            color=_colour(group),
            edgecolor="white",
            linewidth=0.6,
            s=55,
            label=name,
            zorder=3,
        )
    axes.set(xticks=[], yticks=[], xlim=(-0.03, 1.03), ylim=(-0.05, 1.06))
    axes.set(xlabel=shown.projection.axes[0], ylabel=shown.projection.axes[1])
    axes.set_title(f"{title}: {shown.projection.title}", loc="left", fontsize=11, parse_math=False)
    if shown.has_legend:
        figure.legend(loc="outside right upper", frameon=False)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def save_map_html(path: Path, shown: EmbeddingMap, *, title: str) -> None:
    """Writes the map as one HTML page that loads nothing; pointing at an image shows its label and
    its group.

    Raises:
        DataError: an image cannot be read.
    """
    page = render_page(
        "embedding_map.html",
        title=f"{title}: {shown.projection.title}",
        shown=shown,
        width=_WIDTH,
        height=_HEIGHT,
        place=_place,
        thumbnail=lambda file: thumbnail(file, THUMBNAIL),
        size=THUMBNAIL,
        shapes=SHAPES,
        colours=COLOURS,
        has_images=any(point.image is not None for point in shown.points),
    )
    with atomic(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _place(point: MapPoint) -> Sequence[float]:
    """(x, y) in the units of the page's picture, y downwards."""
    x = _BORDER + point.x * (_WIDTH - 2 * _BORDER)
    return round(x, 1), round(_BORDER + (1 - point.y) * (_HEIGHT - 2 * _BORDER), 1)


def _colour(group: int) -> str:
    return COLOURS[group % len(COLOURS)]
