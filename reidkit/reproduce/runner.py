"""The papers' own tables, row by row: what to train for each, what the paper says it gives.

The rows are TOML files in `reproduce/papers`; a row is a preset, an architecture and settings.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reidkit.config import (
    Layer,
    RunConfig,
    load_run_config,
    set_layer,
    with_recipe,
)
from reidkit.config.tables import from_table, read_toml
from reidkit.errors import ConfigError, ReidkitError, suggest
from reidkit.files import atomic
from reidkit.types import Dataset

log = logging.getLogger(__name__)

PAPERS = Path(__file__).parent / "papers"
RESULT = "result.json"


@dataclass(frozen=True)
class Row:
    """One network of a table.

    Attributes:
        preset: its recipe; "" takes the architecture's own for the data set.
        set: settings on top, as after `--set`.
        paper: by data set, what the paper measured, in per cent.
    """

    name: str
    arch: str
    preset: str = ""
    set: tuple[str, ...] = ()
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    rows: tuple[Row, ...]
    note: str = ""


def list_papers() -> list[str]:
    return sorted(path.stem for path in PAPERS.glob("*.toml"))


def read_tables(paper: str) -> list[Table]:
    """A paper's tables, in their order.

    Raises:
        ConfigError: if the paper is unknown or its file is not what it should be.
    """
    if paper not in list_papers():
        raise ConfigError(f"unknown paper {paper!r}. {suggest(paper, list_papers())}")
    found = []
    for number, entry in enumerate(read_toml(PAPERS / f"{paper}.toml")["tables"]):
        where = f"{paper}.toml: table {number + 1}"
        rows = tuple(from_table(Row, row, where=where) for row in entry.pop("rows"))
        found.append(from_table(Table, {**entry, "rows": ()}, where=where))
        found[-1] = Table(found[-1].name, found[-1].title, rows, found[-1].note)
    return found


def find_table(name: str) -> Table:
    """The table called `paper/table`.

    Raises:
        ConfigError: if there is none; names the nearest.
    """
    paper, slash, table = name.partition("/")
    if not slash:
        raise ConfigError(f"{name}: write PAPER/TABLE, as iaunet/table7. See reproduce --list")
    tables = {found.name: found for found in read_tables(paper)}
    if table not in tables:
        raise ConfigError(f"unknown table {name}. {suggest(table, tables)}")
    return tables[table]


def published_on(row: Row, dataset: str) -> dict[str, float]:
    """The paper's numbers on a data set; of a drawn stand-in, on what it stands for."""
    return row.paper.get(dataset.partition("@")[0].removeprefix("synth-"), {})


def row_settings(
    row: Row, dataset: str, *, seed: int, epochs_scale: float, extra: Sequence[Layer] = ()
) -> RunConfig:
    """The settings of a row. `epochs_scale` shortens epochs, milestones and warm-up alike."""
    layers = [Layer(row.name, {"arch": {"name": row.arch}}), set_layer(row.set)]
    layers = with_recipe(layers, preset=row.preset or None, dataset=dataset)
    config = load_run_config([*layers, *extra, Layer("seed", {"seed": seed})])
    if epochs_scale == 1:
        return config
    schedule = config.schedule
    epochs = max(1, round(schedule.epochs * epochs_scale))
    milestones = sorted({max(1, round(m * epochs_scale)) for m in schedule.milestones})
    shorter = {
        "epochs": epochs,
        "milestones": milestones,
        "warmup_epochs": round(schedule.warmup_epochs * epochs_scale),
    }
    last = [Layer("seed", {"seed": seed}), Layer("--epochs-scale", {"schedule": shorter})]
    return load_run_config([*layers, *extra, *last])


@dataclass(frozen=True)
class Measured:
    """A row beside what came out.

    Attributes:
        values: by metric, one number per seed that went through, in per cent.
        failures: by seed, what went wrong.
    """

    row: Row
    published: Mapping[str, float]
    values: dict[str, list[float]]
    failures: dict[int, str]

    def mean(self, metric: str) -> float:
        values = self.values.get(metric, [])
        return sum(values) / len(values) if values else math.nan

    def spread(self, metric: str) -> float:
        """Sample standard deviation over seeds; NaN below two."""
        values, mean = self.values.get(metric, []), self.mean(metric)
        if len(values) < 2:
            return math.nan
        return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


Train = Callable[[RunConfig, Path, bool], dict[str, Any]]
"""Trains settings into a folder, going on there if told to, and gives the metrics."""


def reproduce(
    table: Table,
    dataset: Dataset,
    *,
    folder: Path,
    train: Train,
    rows: Sequence[str] = (),
    seeds: int = 1,
    epochs_scale: float = 1.0,
    extra: Sequence[Layer] = (),
    on_run: Callable[[str, int], None] = lambda row, seed: None,
) -> list[Measured]:
    """Trains rows of a table and collects what they give. A row that fails does not stop the
    others; rows that are done are not trained again, and one that was interrupted goes on.

    Args:
        folder: gets a run's folder per row and seed.
        rows: names; all if empty.
        extra: settings on top of the rows'.
    Raises:
        ConfigError: if a row is unknown.
    """
    known = {row.name: row for row in table.rows}
    for name in rows:
        if name not in known:
            raise ConfigError(f"{table.name} has no row {name!r}. {suggest(name, known)}")
    found = []
    for row in [known[name] for name in rows] or table.rows:
        values: dict[str, list[float]] = {}
        failures: dict[int, str] = {}
        for seed in range(seeds):
            on_run(row.name, seed)
            place = folder / f"{row.name.replace('/', '_').replace(' ', '_')}-seed{seed}"
            try:
                settings = row_settings(
                    row, dataset.name, seed=seed, epochs_scale=epochs_scale, extra=extra
                )
                metrics = _metrics(settings, place, train)
            except (ReidkitError, RuntimeError, ValueError) as error:
                failures[seed] = f"{error}" or type(error).__name__
                log.warning("%s, seed %d failed: %s", row.name, seed, failures[seed])
                continue
            for metric, value in _percentages(metrics).items():
                values.setdefault(metric, []).append(value)
        found.append(Measured(row, published_on(row, dataset.name), values, failures))
    return found


def _metrics(settings: RunConfig, place: Path, train: Train) -> dict[str, Any]:
    """What a run in `place` gave, or gives now. Whether it is still the same run is checked where
    runs are resumed; a finished one is checked here, by its settings."""
    from reidkit.config import to_table

    asked = json.loads(json.dumps(to_table(settings)))
    result = place / RESULT
    if result.is_file():
        done: dict[str, Any] = json.loads(result.read_text())
        if done["settings"] == asked:
            metrics: dict[str, Any] = done["metrics"]
            return metrics
        raise ConfigError(f"{place} holds the row with other settings. Take another --out")
    metrics = train(settings, place, (place / "resume.pt").is_file())
    with atomic(result) as partial:
        partial.write_text(json.dumps({"settings": asked, "metrics": metrics}))
    return metrics


def _percentages(metrics: Mapping[str, Any]) -> dict[str, float]:
    cmc = metrics["cmc"]
    ranks = {f"rank-{k}": 100 * cmc[k - 1] for k in (1, 5, 10) if len(cmc) >= k}
    return {"mAP": 100 * metrics["mAP"], **ranks}
