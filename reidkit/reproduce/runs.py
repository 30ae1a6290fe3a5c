"""Training the rows of a table and comparing the results with the published ones."""

from __future__ import annotations

import dataclasses
import json
import logging
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidkit.config import Layer, RunConfig, load_run_config, set_layer, to_table, with_recipe
from reidkit.errors import ConfigError, ReidkitError, suggest
from reidkit.evaluation import percentages
from reidkit.files import atomic
from reidkit.reproduce.tables import Row, Table
from reidkit.types import Dataset

log = logging.getLogger(__name__)

RESULT = "result.json"

Train = Callable[[RunConfig, Path, bool], dict[str, Any]]
"""train(settings, folder, resume) -> metrics of the best checkpoint."""


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
        values: by metric, one number in % per completed seed.
        failures: by seed, the error message.
    """

    row: Row
    published: Mapping[str, float]
    values: dict[str, list[float]]
    failures: dict[int, str]

    def mean(self, metric: str) -> float:
        """Mean over seeds; NaN without results."""
        values = self.values.get(metric)
        return statistics.fmean(values) if values else float("nan")

    def std(self, metric: str) -> float:
        """Sample standard deviation over seeds; NaN for fewer than two."""
        values = self.values.get(metric, [])
        return statistics.stdev(values) if len(values) > 1 else float("nan")


def row_settings(row: Row, dataset: str, runs: Runs, *, seed: int) -> RunConfig:
    """The settings of a row, with `runs.epochs_scale` applied to its schedule."""
    layers = [Layer(row.name, {"arch": {"name": row.arch}}), set_layer(row.set)]
    layers = with_recipe(layers, preset=row.preset or None, dataset=dataset)
    layers += [*runs.overrides, Layer("seed", {"seed": seed})]
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
    dataset: Dataset,
    runs: Runs,
    *,
    folder: Path,
    train: Train,
    on_run: Callable[[str, int], None] = lambda row, seed: None,
) -> list[RowResult]:
    """Trains rows of a table and collects their results.

    A row that fails does not stop the others. Completed runs are not repeated, and an interrupted
    one is resumed.

    Args:
        folder: receives a run folder per row and seed.
        on_run: called with row name and seed before each run.
    Raises:
        ConfigError: if a row is unknown.
    """
    known = {row.name: row for row in table.rows}
    for name in runs.rows:
        if name not in known:
            raise ConfigError(f"{table.name} has no row {name!r}. {suggest(name, known)}")
    results = []
    for row in [known[name] for name in runs.rows] or table.rows:
        result = RowResult(row, row.published(dataset.name), {}, {})
        for seed in range(runs.seeds):
            on_run(row.name, seed)
            run = folder / f"{row.name.replace('/', '_').replace(' ', '_')}-seed{seed}"
            try:
                settings = row_settings(row, dataset.name, runs, seed=seed)
                metrics = _train_once(settings, run, train)
            except (ReidkitError, RuntimeError, ValueError) as error:
                result.failures[seed] = f"{error}" or type(error).__name__
                log.warning("%s, seed %d failed: %s", row.name, seed, result.failures[seed])
                continue
            for metric, value in percentages(metrics).items():
                result.values.setdefault(metric, []).append(value)
        results.append(result)
    return results


def _train_once(settings: RunConfig, folder: Path, train: Train) -> dict[str, Any]:
    """The metrics of the run in `folder`, trained or resumed unless it is complete.

    Raises:
        ConfigError: if a complete run has other settings; `train` checks an incomplete one.
    """
    table = json.loads(json.dumps(to_table(settings)))
    result = folder / RESULT
    if result.is_file():
        document: dict[str, Any] = json.loads(result.read_text())
        if document["settings"] != table:
            raise ConfigError(
                f"{folder} contains this row with other settings. Choose another folder with -o"
            )
        metrics: dict[str, Any] = document["metrics"]
        return metrics
    metrics = train(settings, folder, (folder / "resume.pt").is_file())
    with atomic(result) as partial:
        partial.write_text(json.dumps({"settings": table, "metrics": metrics}))
    return metrics
