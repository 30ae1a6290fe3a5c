"""Training the rows of a table and comparing the results with the published ones."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reidkit import checkpoint
from reidkit.config import Layer, RunConfig, load_run_config, set_layer, to_table, with_recipe
from reidkit.errors import ConfigError, DataError, ReidkitError, suggest
from reidkit.evaluation import (
    Evaluation,
    EvaluationSettings,
    evaluate_by_task,
    percentages,
)
from reidkit.files import atomic, check_regular
from reidkit.masks.store import MaskStore
from reidkit.reproduce.tables import Row, Table
from reidkit.retrieval import RerankConfig
from reidkit.run_statistics import mean_and_std
from reidkit.runtime.embedder import load_embedder
from reidkit.training.checkpoints import BEST, LAST, has_run
from reidkit.training.trainer import Callbacks, RunOptions, Trainer
from reidkit.types import Dataset

log = logging.getLogger(__name__)

RESULT = "result.json"

PAPER_PRECISION = Layer("reproduce", {"precision": "fp32"})
"""The papers' networks were trained in float32."""

Train = Callable[[RunConfig, Dataset, Path, bool], dict[str, Any]]
"""train(settings, dataset, folder, resume) -> metrics of the evaluated checkpoint."""


@dataclass(frozen=True)
class Runs:
    """Which runs to make of a table.

    Attributes:
        rows: names; all rows if empty.
        seeds: runs per row, with the seeds 0, 1, ...
        epochs_scale: factor of epochs, milestones and warm-up.
        overrides: settings on top of the rows'.
    """

    rows: tuple[str, ...] = ()
    seeds: int = 1
    epochs_scale: float = 1.0
    overrides: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class RowResult:
    """A row's published and measured results.

    Attributes:
        values: by metric, one number in % per completed run: per seed, or per split and seed.
        failures: by run ("seed 0", "split 3, seed 0"), the error message.
    """

    row: Row
    published: Mapping[str, float]
    values: dict[str, list[float]]
    failures: dict[str, str]

    def mean_and_std(self, metric: str) -> tuple[float, float]:
        """Mean and sample standard deviation over runs; NaN without results, and for the spread of
        one run."""
        return mean_and_std(self.values.get(metric, ()))


def row_settings(row: Row, dataset: str, runs: Runs, *, seed: int) -> RunConfig:
    """The settings of a row in float32, with `runs.epochs_scale` applied to its schedule."""
    layers = [Layer(row.name, {"arch": {"name": row.arch}}), set_layer(row.set)]
    layers = with_recipe(layers, preset=row.preset or None, dataset=dataset)
    layers += [PAPER_PRECISION, *runs.overrides, Layer("seed", {"seed": seed})]
    config = load_run_config(layers)
    scale, schedule = runs.epochs_scale, config.schedule
    if scale == 1:
        return config
    milestones = {max(1, round(milestone * scale)) for milestone in schedule.milestones}
    return dataclasses.replace(
        config,
        schedule=dataclasses.replace(
            schedule,
            epochs=max(1, round(schedule.epochs * scale)),
            milestones=tuple(sorted(milestones)),
            warmup_epochs=round(schedule.warmup_epochs * scale),
        ),
    )


def reproduce(
    table: Table,
    datasets: Sequence[Dataset],
    runs: Runs,
    *,
    folder: Path,
    train: Train,
    on_run: Callable[[str, str], None] = lambda row, run: None,
) -> list[RowResult]:
    """Trains rows of a table and collects their results.

    A row that fails does not stop the others. Completed runs are not repeated, and an interrupted
    one is resumed.

    Args:
        datasets: the data set, or its splits; each is trained on by itself.
        folder: receives a run folder per row, split and seed.
        on_run: called before each run with the row's name and the run's ("split 3, seed 0").
    Raises:
        ConfigError: if a row is unknown.
    """
    known = {row.name: row for row in table.rows}
    for name in runs.rows:
        if name not in known:
            raise ConfigError(f"{table.name} has no row {name!r}. {suggest(name, known)}")
    results = []
    for row in [known[name] for name in runs.rows] or table.rows:
        result = RowResult(row, row.published(datasets[0].name), {}, {})
        for dataset, seed in itertools.product(datasets, range(runs.seeds)):
            split = dataset.name.partition("@")[2] if len(datasets) > 1 else ""
            name = f"split {split}, seed {seed}" if split else f"seed {seed}"
            on_run(row.name, name)
            stem = f"{row.name}-split{split}" if split else row.name
            run = folder / f"{stem.replace('/', '_').replace(' ', '_')}-seed{seed}"
            try:
                settings = row_settings(row, dataset.name, runs, seed=seed)
                metrics = _train_once(settings, dataset, run, train)
            except (ReidkitError, RuntimeError, ValueError) as error:
                result.failures[name] = f"{error}" or type(error).__name__
                log.warning("%s, %s failed: %s", row.name, name, result.failures[name])
                continue
            for metric, value in scores(metrics).items():
                result.values.setdefault(metric, []).append(value)
        results.append(result)
    return results


def scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The main scores of an evaluation in %; for classification also the error rate of top-1."""
    values = percentages(metrics)
    return values | ({"error": 100 - values["top-1"]} if "top-1" in values else {})


def train_and_evaluate(
    table: Table,
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    *,
    masks: MaskStore | None,
    device: torch.device,
    workers: int,
    resume: bool = False,
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Trains a network, or resumes it, and evaluates the checkpoint that the table's authors
    evaluate, in their way.

    Returns:
        Metrics of that checkpoint, with its epoch as "epoch".
    """
    Trainer(
        config,
        dataset,
        folder=folder,
        masks=masks,
        device=device,
        callbacks=callbacks,
        options=RunOptions(workers=workers),
    ).fit(resume=resume)
    gc.collect()  # model, optimizer and loader of the trainer are in reference cycles
    path = folder / (LAST if table.checkpoint == "last" else BEST)
    settings = EvaluationSettings(
        metric=config.test.metric,
        flip=config.test.flip,
        batch=config.test.batch,
        ap=table.ap,
        rerank=RerankConfig() if table.rerank else None,
    )
    result = evaluate_by_task(load_embedder(path, device=str(device)), dataset, settings)
    metrics = result.metrics()
    if isinstance(result, Evaluation) and result.reranked is not None:
        metrics = result.reranked.to_dict()
    return {"epoch": checkpoint.read_header(path).metrics["epoch"], **metrics}


def _train_once(
    settings: RunConfig, dataset: Dataset, folder: Path, train: Train
) -> dict[str, Any]:
    """The metrics of the run in `folder`, trained or resumed unless it is complete.

    Raises:
        ConfigError: if a complete run has other settings; `train` checks an incomplete one.
    """
    table = json.loads(json.dumps(to_table(settings)))
    result = folder / RESULT
    if result.is_file():
        stored, metrics = _read_result(result)
        if stored != table:
            raise ConfigError(
                f"{folder} contains this row with other settings. Choose another folder with -o"
            )
        return metrics
    metrics = train(settings, dataset, folder, has_run(folder))
    with atomic(result) as partial:
        partial.write_text(json.dumps({"settings": table, "metrics": metrics}))
    return metrics


def _read_result(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings, metrics) of a completed run.

    Raises:
        DataError: the file is damaged or was edited.
    """
    check_regular(path, DataError)
    try:
        document = json.loads(path.read_text())
        settings, metrics = document["settings"], document["metrics"]
        if not all(math.isfinite(score) for score in scores(metrics).values()):
            raise ValueError("a score is not a number")
    except (
        *(ValueError, LookupError, TypeError, AttributeError),
        *(RecursionError, OverflowError),
    ) as error:
        raise DataError(
            f"{path} is damaged or was edited. Remove it, and run the same command again: the row "
            "is evaluated again"
        ) from error
    return settings, metrics
