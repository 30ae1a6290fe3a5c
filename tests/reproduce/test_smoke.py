"""The smoke test trains every row once, and reports those that fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reidkit.config import Layer
from reidkit.errors import ConfigError, ReidkitError
from reidkit.reproduce import smoke, tables
from reidkit.reproduce.smoke import (
    SmokeRun,
    check_scores,
    plan_smoke,
    reduce_dataset,
    synthetic_dataset,
)
from reidkit.reproduce.tables import Row, Table, list_papers, read_tables
from reidkit.types import Tracklet

SMALL = Layer("test", {"input": {"size": [64, 32]}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the tests of this file share generated data in."""
    return tmp_path_factory.mktemp("smoke")


def names(runs: list[SmokeRun]) -> list[tuple[str, str]]:
    return [(table, row.name) for run in runs for table, row in run.rows]


def test_every_row_of_every_table_is_in_one_run() -> None:
    expected = [
        (f"{paper}/{table.name}", row.name)
        for paper in list_papers()
        for table in read_tables(paper)
        for row in table.rows
    ]
    runs = plan_smoke(None)
    assert sorted(names(runs)) == sorted(expected)
    assert len(runs) < len(expected)  # equal rows of different tables are trained once
    for run in runs:
        assert all(run.table.ap == tables.find_table(table).ap for table, _ in run.rows)


def test_parts_divide_the_runs() -> None:
    whole = plan_smoke("rga")
    parts = [plan_smoke("rga", part=(k, 4)) for k in (1, 2, 3, 4)]
    assert sorted(names(whole)) == sorted(name for part in parts for name in names(part))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ConfigError, match="--part 5/4: expected K/N with K from 1 to N"):
        plan_smoke("rga", part=(5, 4))


def test_a_failed_row_has_a_reason_and_does_not_stop_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs: settings that are invalid, a score that is not measured, a re-ranked row that runs."""
    market = {"market1501": {"mAP": 50.0}}
    small = ("arch.backbone=resnet18",)
    table = Table(
        "table1",
        "",
        (
            Row("invalid", "baseline", set=("arch.stages=[2]",), paper=market),
            Row("runs", "baseline", set=small, paper=market),
            Row("not measured", "baseline", set=small, paper={"market1501": {"error": 20.0}}),
        ),
        rerank=True,
    )
    monkeypatch.setattr(smoke, "find_table", lambda name: table)
    runs = plan_smoke("paper/table1", overrides=[SMALL])
    assert [len(run.rows) for run in runs] == [1, 2]
    table_of_one = Table("table1", "", table.rows[1:2], rerank=True)
    runs.append(SmokeRun((("paper/table1", table_of_one.rows[0]),), table_of_one, "market1501"))
    seen: list[str] = []
    results = smoke.smoke(
        runs,
        folder=folder,
        device=torch.device("cpu"),
        overrides=[SMALL],
        on_result=lambda result: seen.append(result.error),
    )
    invalid, not_measured, good = (result.error for result in results)
    assert "arch.stages" in invalid
    assert not_measured.startswith("the evaluation does not give error, which the paper reports")
    assert good == "" and seen == [invalid, not_measured, good]
    assert [path.name for path in folder.iterdir()] == ["data"]  # run folders are removed


def test_a_published_score_that_is_not_a_number_fails_the_row() -> None:
    metrics = {"mAP": None, "cmc": [0.5] * 10}
    check_scores(metrics, {"rank-1": 90.0})
    with pytest.raises(ReidkitError, match="does not give mAP"):
        check_scores(metrics, {"mAP": 80.0, "rank-1": 90.0})


def test_data_sets_are_reduced_to_two_training_batches_and_few_test_items(folder: Path) -> None:
    data = synthetic_dataset("mars", folder / "data")
    small = reduce_dataset(data, test_pids=2, test_items=1)
    assert len(small.train) == 8 and len({item.pid for item in small.train}) == 4
    assert len({item.pid for item in small.query}) == 2
    assert len(small.gallery) <= 8
    for item in (*small.query, *small.gallery):
        assert isinstance(item, Tracklet) and len(item.frames) <= 4
    assert small.fingerprint == data.fingerprint  # the part masks of the whole data set fit
