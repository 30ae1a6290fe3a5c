"""The papers' tables, read from `reproduce/papers`; a row is an architecture with settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reidkit.choices import ApRule
from reidkit.config import from_table, read_toml
from reidkit.errors import ConfigError, suggest

PAPERS = Path(__file__).parent / "papers"


@dataclass(frozen=True)
class Row:
    """One network of a table.

    Attributes:
        preset: its recipe; "" takes the architecture's own for the data set.
        set: settings on top, as after `--set`.
        paper: published results in %, by data set and metric.
    """

    name: str
    arch: str
    preset: str = ""
    set: tuple[str, ...] = ()
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    note: str = ""

    def published(self, dataset: str) -> dict[str, float]:
        """Published results on a data set; a synthetic one counts as the one it imitates."""
        return self.paper.get(dataset.partition("@")[0].removeprefix("synth-"), {})


CheckpointRule = Literal["best", "last", "unknown"]


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        checkpoint: which one the authors' code evaluates: the best by rank-1 on the test set, or
            that of the last epoch. For "unknown" the best is evaluated.
        ap: rule of average precision of the authors' evaluator.
        rerank: the published numbers are those after k-reciprocal re-ranking.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    note: str = ""
    checkpoint: CheckpointRule = "unknown"
    ap: ApRule = "step"
    rerank: bool = False


def list_papers() -> list[str]:
    """Names of the papers, sorted."""
    return sorted(path.stem for path in PAPERS.glob("*.toml"))


def read_tables(paper: str) -> list[Table]:
    """A paper's tables, in order. Keys above the first table hold for all tables of the paper
    without the same key.

    Raises:
        ConfigError: if the paper is unknown or its file is invalid.
    """
    if paper not in list_papers():
        raise ConfigError(f"unknown paper {paper!r}. {suggest(paper, list_papers())}")
    document = read_toml(PAPERS / f"{paper}.toml")
    entries: list[dict[str, Any]] = document.pop("tables")
    return [
        from_table(Table, {**document, **entry}, where=f"{paper}.toml: table {number}")
        for number, entry in enumerate(entries, start=1)
    ]


def find_table(name: str) -> Table:
    """The table called `paper/table`.

    Raises:
        ConfigError: if there is none; names the nearest.
    """
    paper, slash, table = name.partition("/")
    if not slash:
        raise ConfigError(
            f"{name}: write PAPER/TABLE, such as iaunet/table7. List them: reidkit reproduce --list"
        )
    tables = {found.name: found for found in read_tables(paper)}
    if table not in tables:
        raise ConfigError(f"unknown table {name}. {suggest(table, tables)}")
    return tables[table]
