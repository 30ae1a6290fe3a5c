"""The papers' tables can be listed, trained and compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reidkit.checkpoint import read_header
from reidkit.config import Layer, RunConfig
from reidkit.data.manifest import list_splits, open_dataset
from reidkit.errors import ConfigError, DataError
from reidkit.registry import get_arch
from reidkit.reproduce.runs import Runs, reproduce, row_settings, scores, train_and_evaluate
from reidkit.reproduce.tables import Row, Table, find_table, list_papers, read_tables
from reidkit.types import Dataset

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

    def train(settings: RunConfig, dataset: Dataset, run: Path, resume: bool) -> dict[str, Any]:
        if run.name.startswith("stage2-") and len(trained) < 5:
            raise DataError("the disk is full")
        trained.append(run.name)
        assert not resume
        run.mkdir(parents=True)
        return {"mAP": 0.5 + 0.1 * settings.seed, "cmc": [0.75] * 10}

    def run_all() -> Any:
        return reproduce(
            table,
            [data],
            Runs(
                rows=("base", "stage2", "stage23"),
                seeds=3,
                overrides=(Layer("test", {"optim": {"lr": 1.0}}),),
            ),
            folder=tmp_path,
            train=train,
        )

    base, stage2, stage23 = run_all()
    assert base.values["mAP"] == pytest.approx([50, 60, 70]) and base.published["mAP"] == 76.2
    assert base.mean_and_std("mAP") == pytest.approx((60, 10))
    assert stage2.failures == dict.fromkeys(("seed 0", "seed 1", "seed 2"), "the disk is full")
    assert math.isnan(stage2.mean_and_std("mAP")[0]) and len(stage23.values["rank-1"]) == 3
    assert len(trained) == 6
    base, stage2, stage23 = run_all()
    assert len(trained) == 9 and not stage2.failures  # only the failed row was trained again


def test_a_row_that_was_trained_but_not_evaluated_is_not_trained_again(
    market: Path, tmp_path: Path
) -> None:
    resumed: list[bool] = []

    def train(settings: RunConfig, dataset: Dataset, run: Path, resume: bool) -> dict[str, Any]:
        resumed.append(resume)
        run.mkdir(exist_ok=True)
        (run / "config.toml").touch()
        (run / "last.safetensors").touch()  # of a completed training, which leaves no resume.pt
        if len(resumed) == 1:
            raise DataError("the evaluation fails")
        return {"mAP": 0.5, "cmc": [0.5] * 10}

    data = [open_dataset(str(market))]
    for _ in range(2):
        reproduce(find_table("ianet/table1"), data, Runs(), folder=tmp_path, train=train)
    assert resumed == [False, True]


def test_rows_are_trained_in_float32_unless_another_precision_is_set() -> None:
    for paper in list_papers():
        row = read_tables(paper)[0].rows[0]
        dataset = next(iter(row.paper))
        assert row_settings(row, dataset, Runs(), seed=0).precision == "fp32"
        runs = Runs(overrides=(Layer("--set", {"precision": "bf16"}),))
        assert row_settings(row, dataset, runs, seed=0).precision == "bf16"


def test_a_row_is_trained_on_every_split_of_the_data_set(
    synthetic_dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    root = synthetic_dataset("cuhk03-classic-labeled")
    names = list_splits(str(root))
    assert names == [f"{root}@{split}" for split in range(20)]
    assert list_splits("cuhk03-classic-labeled@7")[19] == "cuhk03-classic-labeled@19"
    assert not list_splits("market1501") and not list_splits("msmt17@v1")
    splits = [open_dataset(name) for name in names[:3]]
    assert len({split.fingerprint for split in splits}) == 3
    trained: list[tuple[str, str]] = []

    def train(settings: RunConfig, dataset: Dataset, run: Path, resume: bool) -> dict[str, Any]:
        run.mkdir(parents=True)
        trained.append((dataset.name, run.name))
        return {"mAP": 0.1 * len(trained), "cmc": [0.5] * 10}

    (row,) = reproduce(find_table("ianet/table2"), splits, Runs(), folder=tmp_path, train=train)
    name = "synth-cuhk03-classic-labeled"
    assert trained == [(f"{name}@{k}", f"IANet-split{k}-seed0") for k in range(3)]
    assert row.mean_and_std("mAP") == pytest.approx((20, 10))
    assert row.published["rank-1"] == 92.4


def test_tables_state_how_their_authors_evaluate() -> None:
    def how(name: str) -> tuple[str, str, bool]:
        table = find_table(name)
        return table.checkpoint, table.ap, table.rerank

    assert how("pfsa/table1") == ("unknown", "trapezoid", True)
    assert how("pfsa/table3") == ("unknown", "trapezoid", False)
    assert how("rga/table2") == ("last", "trapezoid", False)
    assert how("iaunet/table7") == ("best", "step", False)
    assert how("iaunet/table8") == ("unknown", "step", False)  # no code for video was released
    assert how("ianet/table4c") == ("unknown", "step", False)


def test_a_row_is_evaluated_as_its_authors_do(market: Path, tmp_path: Path) -> None:
    """The last checkpoint, trapezoidal AP and re-ranking differ from the metrics of training."""
    data = open_dataset(str(market))
    row = Row("ResNet-18", "baseline", set=("arch.backbone=resnet18", "input.size=[64, 32]"))
    small = Layer(
        "test",
        {"schedule": {"epochs": 2}, "sampler": {"batch": 16}, "test": {"every": 1}}
        | {"weights": "none"},
    )
    config = row_settings(row, data.name, Runs(overrides=(small,)), seed=0)

    def evaluate(name: str, **options: Any) -> dict[str, Any]:
        table = Table(name, "", (row,), **options)
        return train_and_evaluate(
            table,
            config,
            data,
            tmp_path / "run",
            masks=None,
            device=torch.device("cpu"),
            workers=0,
            resume=(tmp_path / "run").exists(),
        )

    best = evaluate("as training")
    trained = read_header(tmp_path / "run/model.safetensors").metrics
    assert {name: trained[name] for name in best} == best and best["ap"] == "step"
    last = evaluate("last", checkpoint="last")
    assert last["epoch"] == 2
    trapezoid = evaluate("trapezoid", ap="trapezoid")
    assert trapezoid["ap"] == "trapezoid" and trapezoid["mAP"] < best["mAP"]
    assert trapezoid["cmc"] == best["cmc"]
    reranked = evaluate("re-ranked", rerank=True)
    assert reranked["rerank"] == {"k1": 20, "k2": 6, "lambda": 0.3}
    assert reranked["mAP"] != best["mAP"] and best["rerank"] is None


def test_the_error_rate_of_a_classifier_is_100_minus_its_accuracy() -> None:
    found = scores({"task": "classification", "top1": 0.75, "top5": 0.9, "images": 100})
    assert found == {"top-1": 75, "top-5": 90, "error": 25}


def test_unknown_tables_and_rows_name_the_nearest(market: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean table7"):
        find_table("iaunet/tabel7")
    with pytest.raises(ConfigError, match="unknown paper"):
        find_table("iaunett/table7")
    with pytest.raises(ConfigError, match="no row 'stage4x'"):
        reproduce(
            find_table("ianet/table4f"),
            [open_dataset(str(market))],
            Runs(rows=("stage4x",)),
            folder=tmp_path,
            train=lambda settings, dataset, run, resume: {},
        )


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"settings": {}, "metrics": {"mAP": "high"}}'])
def test_a_damaged_result_fails_its_row_by_name(market: Path, tmp_path: Path, text: str) -> None:
    table, data = find_table("iaunet/table7"), open_dataset(str(market))
    (tmp_path / "SIA-seed0").mkdir()
    (tmp_path / "SIA-seed0/result.json").write_text(text)

    def train(*_: object) -> dict[str, object]:
        raise AssertionError("a completed run is not trained again")

    runs = Runs(rows=("SIA",))
    (found,) = reproduce(table, [data], runs, folder=tmp_path, train=train)
    assert "SIA-seed0/result.json is damaged or was edited" in found.failures["seed 0"]
