"""The papers' tables can be listed, trained and compared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from reidkit.config import Layer, RunConfig
from reidkit.data.manifest import open_dataset
from reidkit.errors import ConfigError, DataError
from reidkit.registry import get_arch
from reidkit.reproduce.runs import Runs, reproduce, row_settings
from reidkit.reproduce.tables import Table, find_table, list_papers, read_tables

EVERY = [(paper, table) for paper in list_papers() for table in read_tables(paper)]


@pytest.mark.parametrize(("paper", "table"), EVERY, ids=lambda x: getattr(x, "name", x))
def test_every_row_of_every_table_has_valid_settings(paper: str, table: Table) -> None:
    for row in table.rows:
        config = row_settings(row, next(iter(row.paper), "market1501"), Runs(), seed=0)
        assert config.arch.name == get_arch(row.arch).name  # its options were read strictly
        for numbers in row.paper.values():
            assert numbers and all(0 < value < 100 for value in numbers.values())


def test_all_tables_of_the_four_papers_are_included() -> None:
    names = {paper: {t.name for t in read_tables(paper)} for paper in list_papers()}
    assert names["pfsa"] == {"table1", "table2", "table3"}
    assert names["rga"] == {"table1", "table2", "table4", "table5"}  # 3 counts parameters
    ianet = {name.rstrip("abcdef") for name in names["ianet"]}
    assert ianet == {f"table{k}" for k in range(1, 6)} | {"figure7"}
    iaunet = {name.rstrip("ab") for name in names["iaunet"]}
    assert iaunet == {f"table{k}" for k in range(1, 13)}


def test_published_numbers_are_the_papers() -> None:
    """Spot checks against the printed tables."""
    rows = {row.name: row for row in find_table("iaunet/table7").rows}
    assert len(rows) == 11
    assert rows["IAU-without-Lp"].published("market1501") == {"mAP": 87.3, "rank-1": 94.7}
    assert rows["SIA"].published("dukemtmc-reid") == {"mAP": 77.1, "rank-1": 88.2}
    assert rows["SIA"].published("synth-market1501") == {"mAP": 85.3, "rank-1": 93.8}
    rga = {row.name: row for row in find_table("rga/table1").rows}
    assert rga["RGA-SC"].published("cuhk03-np-labeled") == {"mAP": 77.4, "rank-1": 81.1}
    pfsa = {row.name: row for row in find_table("pfsa/table3").rows}
    assert pfsa["-SA"].published("dukemtmc-reid") == {"mAP": 70.3, "rank-1": 83.4}
    ianet = {row.name: row for row in find_table("ianet/table4f").rows}
    assert ianet["stage23-c"].published("dukemtmc-reid") == {"mAP": 72.2, "rank-1": 86.1}


def test_a_tenth_of_the_epochs_is_a_tenth_of_the_milestones() -> None:
    row = find_table("rga/table1").rows[-1]
    schedule = row_settings(row, "market1501", Runs(epochs_scale=0.1), seed=2).schedule
    assert (schedule.epochs, schedule.warmup_epochs) == (60, 2)
    assert schedule.milestones == (8, 12, 16, 20, 24, 28, 32, 36)


def test_a_failed_row_does_not_stop_the_others_and_completed_rows_are_kept(
    market: Path, tmp_path: Path
) -> None:
    data, table = open_dataset(str(market)), find_table("ianet/table4f")
    trained: list[str] = []

    def train(settings: RunConfig, run: Path, resume: bool) -> dict[str, Any]:
        if run.name.startswith("stage2-") and len(trained) < 5:
            raise DataError("the disk is full")
        trained.append(run.name)
        assert not resume
        run.mkdir(parents=True)
        return {"mAP": 0.5 + 0.1 * settings.seed, "cmc": [0.75] * 10}

    def run_all() -> Any:
        return reproduce(
            table,
            data,
            Runs(
                rows=("base", "stage2", "stage23"),
                seeds=3,
                overrides=(Layer("test", {"optim": {"lr": 1.0}}),),
            ),
            folder=tmp_path,
            train=train,
        )

    base, stage2, stage23 = run_all()
    assert base.values["mAP"] == pytest.approx([50, 60, 70]) and base.mean("mAP") == 60
    assert base.std("mAP") == pytest.approx(10) and base.published["mAP"] == 76.2
    assert stage2.failures == {0: "the disk is full", 1: "the disk is full", 2: "the disk is full"}
    assert math.isnan(stage2.mean("mAP")) and len(stage23.values["rank-1"]) == 3
    assert len(trained) == 6
    base, stage2, stage23 = run_all()
    assert len(trained) == 9 and not stage2.failures  # only the failed row was trained again


def test_unknown_tables_and_rows_name_the_nearest(market: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean table7"):
        find_table("iaunet/tabel7")
    with pytest.raises(ConfigError, match="unknown paper"):
        find_table("iaunett/table7")
    with pytest.raises(ConfigError, match="no row 'stage4x'"):
        reproduce(
            find_table("ianet/table4f"),
            open_dataset(str(market)),
            Runs(rows=("stage4x",)),
            folder=tmp_path,
            train=lambda settings, run, resume: {},
        )
