"""A smoke test of the papers' tables: every row is trained for two steps and evaluated."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from reidkit.choices import SyntheticLayout
from reidkit.config import Layer, RunConfig, to_table
from reidkit.data.manifest import MANIFEST, locate, open_dataset
from reidkit.errors import ConfigError, ReidkitError
from reidkit.masks.prepare import prepare_synthetic
from reidkit.masks.store import MaskStore
from reidkit.reproduce.runs import Runs, row_settings, scores, train_and_evaluate
from reidkit.reproduce.tables import Row, Table, find_table, list_papers, read_tables
from reidkit.synthetic import LAYOUTS
from reidkit.training.checkpoints import create_folder
from reidkit.training.setup import needs_masks
from reidkit.types import PARTS, Dataset, Item, Tracklet

log = logging.getLogger(__name__)

TRAIN_PIDS, TEST_PIDS = 4, 5
TEST_FRAMES = 4
"""Frames that are kept of a test tracklet: one clip."""

TWO_STEPS = Layer(
    "smoke",
    {
        # four identities with two images each are two batches of four with every sampler
        "sampler": {"batch": 4, "samples_per_id": 2},
        "schedule": {"epochs": 1},
        "test": {"every": 0},
        "weights": "none",
    },
)


@dataclass(frozen=True)
class SmokeRun:
    """Rows with the same settings, data and evaluation, which are trained once.

    Attributes:
        rows: (name of the table, row).
        table: of the first row.
        dataset: name of the data set whose layout is synthesized.
    """

    rows: tuple[tuple[str, Row], ...]
    table: Table
    dataset: str


@dataclass(frozen=True)
class SmokeResult:
    """Attributes: error: why the run failed; "" if it did not."""

    run: SmokeRun
    error: str
    seconds: float


def plan_smoke(
    name: str | None, *, overrides: Sequence[Layer] = (), part: tuple[int, int] = (1, 1)
) -> list[SmokeRun]:
    """The runs of all rows of a paper ("rga"), of a table ("rga/table1"), or (None) of all papers.

    Args:
        overrides: settings on top of the rows'.
        part: (K, N) for the K-th of N parts of about the same size, from 1.
    Raises:
        ConfigError: if there is no such paper or table, or no such part.
    """
    k, n = part
    if not 1 <= k <= n:
        raise ConfigError(f"--part {k}/{n}: expected K/N with K from 1 to N")
    groups: dict[str, SmokeRun] = {}
    for table_name, table in _tables(name):
        for row in table.rows:
            dataset = next(iter(row.paper), "market1501")
            run = SmokeRun(((table_name, row),), table, dataset)
            same = groups.setdefault(_key(run, overrides), run)
            if same is not run:
                groups[_key(run, overrides)] = replace(same, rows=same.rows + run.rows)
    return list(groups.values())[k - 1 :: n]


def smoke(
    runs: Sequence[SmokeRun],
    *,
    folder: Path,
    device: torch.device,
    workers: int = 0,
    overrides: Sequence[Layer] = (),
    on_result: Callable[[SmokeResult], None] = lambda result: None,
) -> list[SmokeResult]:
    """Trains every run for two steps at its full configuration and evaluates it by its protocol.

    Weights are random, the batch is small, and the data are synthetic. A run fails if it raises an
    error or does not measure every published score. A failed run does not stop the others.

    Args:
        folder: receives the synthetic data sets and part masks, which later calls use again.
        on_result: called after each run.
    """
    create_folder(folder)
    results = []
    for run in runs:
        started, error = time.perf_counter(), ""
        try:
            _smoke_run(run, folder, device, workers, overrides)
        except ReidkitError as caught:
            error = " ".join(str(caught).split())
        except Exception as caught:  # whatever is wrong with a row belongs into the report
            log.debug("%s failed", run.rows[0], exc_info=True)
            error = f"{type(caught).__name__}: {' '.join(str(caught).split())}"
        results.append(SmokeResult(run, error, time.perf_counter() - started))
        on_result(results[-1])
    return results


def _tables(name: str | None) -> list[tuple[str, Table]]:
    if name is not None and "/" in name:
        return [(name, find_table(name))]
    papers = list_papers() if name is None else [name]
    return [(f"{paper}/{table.name}", table) for paper in papers for table in read_tables(paper)]


def _settings(row: Row, dataset: str, overrides: Sequence[Layer]) -> RunConfig:
    return row_settings(row, dataset, Runs(overrides=(TWO_STEPS, *overrides)), seed=0)


def _key(run: SmokeRun, overrides: Sequence[Layer]) -> str:
    """Equal for runs of the same settings; a row with invalid settings is a run of its own."""
    name, row = run.rows[0]
    try:
        settings = to_table(_settings(row, run.dataset, overrides))
    except ReidkitError:
        return f"{name} {row.name}"
    table = run.table
    return json.dumps([run.dataset, table.checkpoint, table.ap, table.rerank, settings])


def _smoke_run(
    run: SmokeRun,
    folder: Path,
    device: torch.device,
    workers: int,
    overrides: Sequence[Layer],
) -> None:
    row = run.rows[0][1]
    settings = _settings(row, run.dataset, overrides)
    data = synthetic_dataset(run.dataset, folder / "data")
    masks = None
    if needs_masks(settings):
        masks = _synthetic_masks(folder / "masks" / f"{run.dataset}.h5", data)
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
        metrics = train_and_evaluate(
            run.table,
            settings,
            # re-ranking takes at least twenty gallery images
            reduce_dataset(data, test_pids=5, test_items=2)
            if run.table.rerank
            else reduce_dataset(data, test_pids=2, test_items=1),
            Path(scratch),
            masks=masks,
            device=device,
            workers=workers,
        )
    for _, row in run.rows:
        check_scores(metrics, row.published(run.dataset))


def check_scores(metrics: dict[str, Any], published: dict[str, float]) -> None:
    """Checks that every published score was measured.

    Raises:
        ReidkitError: naming those that were not.
    """
    measured = scores(metrics)
    missing = [name for name in published if not math.isfinite(measured.get(name, math.nan))]
    if missing:
        raise ReidkitError(
            f"the evaluation does not give {', '.join(missing)}, which the paper reports; it gives "
            f"{', '.join(measured)}"
        )


def synthetic_dataset(name: str, folder: Path) -> Dataset:
    """A synthetic data set in the layout of a published one and by its name, generated into
    `folder` unless it is there.

    Raises:
        ConfigError: if there is no such layout.
    """
    layout = next((known for known in get_args(SyntheticLayout) if known == name), None)
    if layout is None:
        raise ConfigError(f"no synthetic data set has the layout of {name}")
    root = folder / name
    if not (root / MANIFEST).is_file():
        LAYOUTS[layout](root, train_pids=TRAIN_PIDS, test_pids=TEST_PIDS, seed=0)
    return open_dataset(name, root)


def _synthetic_masks(path: Path, data: Dataset) -> MaskStore:
    if not path.is_file():
        manifest, _ = locate(str(data.root))
        assert manifest.labels is not None, "rows with part masks are of pedestrians"
        path.parent.mkdir(parents=True, exist_ok=True)
        prepare_synthetic(path, data, manifest.labels)
    return MaskStore.open(path, dataset=data, parts=PARTS)


def reduce_dataset(data: Dataset, *, test_pids: int, test_items: int) -> Dataset:
    """The data set with the first two training items of every identity, and few test items.

    Of the first `test_pids` test identities, and of two other ids in the gallery (junk or
    distractors), the first `test_items` items by each of their first two cameras are kept, in query
    and gallery each; test tracklets are cut to one clip.
    """
    queries = dict.fromkeys(item.pid for item in data.query)
    others = dict.fromkeys(item.pid for item in data.gallery if item.pid not in queries)
    pids = {*list(queries)[:test_pids], *list(others)[:2]}
    cameras: dict[int, set[int]] = {}
    for item in (*data.query, *data.gallery):
        cameras.setdefault(item.pid, set()).add(item.camid)
    kept = {(pid, camid) for pid in pids for camid in sorted(cameras[pid])[:2]}

    def reduce(items: Iterable[Item]) -> tuple[Item, ...]:
        present = [_cut(item) for item in items if (item.pid, item.camid) in kept]
        return _first(test_items, present, lambda item: (item.pid, item.camid))

    return replace(
        data,
        train=_first(2, data.train, lambda item: item.pid),
        query=reduce(data.query),
        gallery=reduce(data.gallery),
    )


def _first(count: int, items: Iterable[Item], key: Callable[[Item], object]) -> tuple[Item, ...]:
    """The first `count` items of each key, in order."""
    seen: Counter[object] = Counter()
    kept = []
    for item in items:
        seen[key(item)] += 1
        if seen[key(item)] <= count:
            kept.append(item)
    return tuple(kept)


def _cut(item: Item) -> Item:
    return Tracklet(item.frames[:TEST_FRAMES]) if isinstance(item, Tracklet) else item
