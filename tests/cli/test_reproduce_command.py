"""`reidkit reproduce` trains rows of a table, or smoke-tests them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidkit.config import RunConfig
from reidkit.reproduce.tables import Table
from reidkit.types import Dataset

Command = Callable[..., tuple[object, str, str]]


def test_all_splits_are_averaged_and_notes_say_how_rows_are_trained_and_evaluated(
    synthetic_dataset: Callable[[str], Path], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(table: Table, config: RunConfig, data: Dataset, folder: Path, **_: Any) -> Any:
        folder.mkdir(parents=True)
        trained.append(data.name)
        return {"mAP": 0.01 * len(trained), "cmc": [0.5] * 10}

    monkeypatch.setattr("reidkit.reproduce.runs.train_and_evaluate", train)
    root = synthetic_dataset("cuhk03-classic-labeled")
    table = ("reproduce", "ianet/table2", "--dataset", root, "--device", "cpu")
    status, out, err = command(*table, "--all-splits")
    assert status == 0, err
    assert trained == [f"synth-cuhk03-classic-labeled@{split}" for split in range(20)]
    assert "ianet/table2 on synth-cuhk03-classic-labeled:" in out
    assert "10.5 ± 5.9" in out  # of 1 to 20
    assert "chosen by the test set; the paper's rule is not known" in err
    assert "mAP is the mean of step-wise AP" in err
    assert "mean and standard deviation over 20 splits" in err

    status, out, err = command(*table[:3], f"{root}@3", "--device", "cpu", "--json")
    assert status == 0, err
    document = json.loads(out)
    assert document["dataset"] == "synth-cuhk03-classic-labeled@3"
    assert any("one of 20 splits" in note for note in document["notes"])


@pytest.mark.parametrize(
    ("table", "options", "expected"),
    [
        ("iaunet/table7", [], "chosen by the test set, as in the authors' code"),
        ("iaunet/table7", ["--set", "test.val_fraction=0.2"], "held-out training identities"),
        (
            "rga/table5",
            [],
            "the checkpoint of the last epoch is evaluated, as in the authors' code",
        ),
        ("rga/table5", [], "mAP is the mean of trapezoidal AP"),
        ("pfsa/table1", [], "after k-reciprocal re-ranking, mAP is the mean of trapezoidal AP"),
        ("ianet/table1", [], "mAP is the mean of step-wise AP"),
    ],
)
def test_notes_name_the_checkpoint_and_the_rule_of_ap(
    market: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    options: list[str],
    expected: str,
) -> None:
    def train(*arguments: Any, **_: Any) -> Any:
        arguments[3].mkdir(parents=True)
        return {"mAP": 0.5, "cmc": [0.5] * 10}

    monkeypatch.setattr("reidkit.reproduce.runs.train_and_evaluate", train)
    monkeypatch.setattr("reidkit.cli.train.open_masks_if_needed", lambda *_: None)
    status, _, err = command("reproduce", table, "--dataset", market, "--device", "cpu", *options)
    assert status == 0 and expected in err


def test_the_list_of_all_tables_fits_a_terminal(command: Command) -> None:
    status, out, _ = command("reproduce", "--list")
    assert status == 0 and "iaunet/table7" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_data_set_with_one_split_is_refused(market: Path, command: Command) -> None:
    options = ("--dataset", market, "--all-splits")
    status, _, err = command("reproduce", "ianet/table5", *options)
    assert status == 2 and "has one split only: leave out --all-splits" in err


def test_the_command_prints_each_row_and_a_tally(tmp_path: Path, command: Command) -> None:
    options = (
        "-o",
        tmp_path / "smoke",
        "--device",
        "cpu",
        "--workers",
        0,
        "--set",
        "input.size=[64, 32]",
    )
    status, out, err = command("reproduce", "--smoke", "ianet/table5", "--part", "1/6", *options)
    assert status == 0, err
    assert "ianet/table5" in out and "R32" in out
    assert "1 rows in 1 runs: 1 ran, 0 failed" in out

    broken = (*options, "--set", "arch.reduction=7", "--json")
    status, out, err = command("reproduce", "--smoke", "ianet/table5", "--part", "1/6", *broken)
    assert status == 2 and "1 of 1 rows failed" in err
    (row,) = json.loads(out)["rows"]
    assert not row["ran"] and "arch.reduction" in row["reason"]


def test_options_of_other_uses_are_refused(command: Command) -> None:
    status, _, err = command("reproduce", "--smoke", "rga", "--dataset", "market1501")
    assert status == 2 and "leave out --dataset" in err
    status, _, err = command("reproduce", "rga/table1", "--part", "1/2")
    assert status == 2 and "add --smoke" in err
    status, _, err = command("reproduce", "--smoke", "--part", "third")
    assert status == 2 and "write K/N" in err
