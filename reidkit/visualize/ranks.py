"""Ranked lists of labelled queries, with the verdict on every hit."""

# Q queries

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.evaluation import as_embeddings
from reidkit.features import Features
from reidkit.retrieval import RankingConfig, get_protocol
from reidkit.retrieval.search import lists_with_junk
from reidkit.visualize.ranked_lists import RankedRow, Tile, Verdict


def ranked_rows(
    query: Features,
    gallery: Features,
    rows: NDArray[np.int64],
    *,
    root: Path,
    config: RankingConfig,
    top: int = 10,
    aps: NDArray[np.float64] | None = None,
) -> list[RankedRow]:
    """Ranked lists of the queries at `rows`: `top` images that count, and a few junk images among
    them.

    Args:
        root: the folder that the paths of both are relative to.
        aps: float64 [Q], average precision of all queries, for the titles.
    """
    lists = lists_with_junk(
        as_embeddings(query, "query"), as_embeddings(gallery, "gallery"), rows, top, config
    )
    paths, pids, camids = gallery.paths, gallery.pids, gallery.camids
    if get_protocol(config.protocol).queries_in_gallery:
        paths = query.paths + paths
        pids, camids = (
            np.concatenate(pair) for pair in ((query.pids, pids), (query.camids, camids))
        )
    ranked = []
    for row, hits in zip(rows.tolist(), lists, strict=True):
        tiles: list[Tile] = []
        counted = 0
        for hit in hits:
            counted += not hit.excluded
            verdict: Verdict = "junk" if hit.excluded else "right" if hit.match else "wrong"
            place = "junk" if hit.excluded else f"{counted}."
            camera = int(camids[hit.index])
            lines = (f"{place} {hit.distance:.3f}", f"id {pids[hit.index]}", f"camera {camera}")
            tiles.append(Tile(root / paths[hit.index], lines, verdict, camera))
        ap = None if aps is None or np.isnan(aps[row]) else float(aps[row])
        camera = int(query.camids[row])
        lines = ("query", f"id {query.pids[row]}", f"camera {camera}")
        title = query.paths[row] + ("" if ap is None else f"   AP {100 * ap:.1f}")
        tile = Tile(root / query.paths[row], lines, camera=camera)
        ranked.append(RankedRow(tile, tuple(tiles), title, ap))
    return ranked


def choose_rows(
    query: Features,
    aps: NDArray[np.float64],
    *,
    worst: int = 0,
    best: int = 0,
    random: int = 0,
    paths: Sequence[str] = (),
    seed: int = 0,
) -> NDArray[np.int64]:
    """Rows of the queries to show: the worst by AP, then the best, then random ones, then those
    with these paths (or file names). Queries without a true match are left out of the first three.

    Raises:
        DataError: a path is not among the queries; no query has a true match.
    """
    matched = np.flatnonzero(~np.isnan(aps))
    if not len(matched) and not paths:
        raise DataError("no query has a true match in the gallery: there is no best or worst one")
    order = matched[np.argsort(aps[matched], kind="stable")]
    chosen = [*order[:worst].tolist(), *order[::-1][:best].tolist()]
    rng = np.random.default_rng(seed)
    chosen += rng.permutation(matched)[:random].tolist()
    by_name: dict[str, int] = {}
    for row, name in enumerate(query.paths):
        by_name.setdefault(name, row)
        by_name.setdefault(name.rpartition("/")[2], row)
    for path in paths:
        if path not in by_name:
            raise DataError(
                f"no query {path!r}; expected a path of the query split such as {query.paths[0]}"
            )
        chosen.append(by_name[path])
    return np.array(list(dict.fromkeys(chosen)), np.int64)
