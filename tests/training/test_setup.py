"""Held-out identities choose the checkpoint, and the test set is evaluated once; dry runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from test_trainer import settings

from reidkit import checkpoint
from reidkit.data.manifest import open_dataset
from reidkit.errors import ConfigError, DataError
from reidkit.training.dry_run import dry_run
from reidkit.training.setup import hold_out
from reidkit.training.trainer import RunOptions, Trainer

CPU = torch.device("cpu")


def test_held_out_identities_are_not_trained_on(market: Path) -> None:
    data = open_dataset(str(market))
    kept, held_out = hold_out(data, fraction=0.34, seed=3)
    assert held_out is not None
    pids = [{item.pid for item in items} for items in (kept.train, held_out.query)]
    assert len(pids[1]) == 2 and not pids[0] & pids[1]
    items = [*kept.train, *held_out.query, *held_out.gallery]
    assert sorted(items, key=lambda i: i.path) == sorted(data.train, key=lambda i: i.path)
    views = [(item.pid, item.camid) for item in held_out.query]
    assert len(views) == len(set(views))
    assert hold_out(data, fraction=0.34, seed=3) == (kept, held_out)
    assert hold_out(data, fraction=0.34, seed=4)[0].train != kept.train


def test_a_fraction_that_leaves_too_few_identities_is_refused(market: Path) -> None:
    with pytest.raises(DataError, match="6 training identities is 1"):
        hold_out(open_dataset(str(market)), fraction=0.1, seed=0)


def test_the_checkpoint_states_what_chose_it_and_its_test_results(
    market: Path, tmp_path: Path
) -> None:
    config = settings(
        test={"every": 1, "val_fraction": 0.34}, schedule={"epochs": 1}, optim={"ema": 0.5}
    )
    data = open_dataset(str(market))
    best = Trainer(
        config, data, folder=tmp_path / "run", masks=None, device=CPU, options=RunOptions(workers=0)
    ).fit()
    header = checkpoint.read_header(best)
    assert header.num_ids == 4
    assert header.metrics["chosen_by"] == "34% of the training identities, held out"
    assert header.metrics["queries"] == len(data.query)
    assert header.metrics["validation"]["queries"] < len(data.query) + len(data.train)


def test_a_dry_run_measures_shapes_sizes_and_time_and_writes_nothing(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = open_dataset(str(market))
    found = dry_run(
        Trainer(
            settings(), data, folder=tmp_path, masks=None, device=CPU, options=RunOptions(workers=0)
        )
    )
    shapes = dict(found.shapes)
    assert shapes["images"] == "Bx3x64x32"
    assert shapes["stage 4"] == "Bx512x4x2"
    assert shapes["output logits"] == "Bx6" and shapes["output features"] == "Bx512"
    assert len(found.step_seconds) == 3 and found.memory > 0
    mean = sum(found.step_seconds) / 3
    assert found.seconds == pytest.approx(mean * found.steps * found.epochs)
    assert found.identities == 6 and set(found.losses) == {"identity", "triplet", "total"}
    assert not list(tmp_path.iterdir())


def test_a_classification_data_set_has_no_identities_to_hold_out(market: Path) -> None:
    data = dataclasses.replace(open_dataset(str(market)), task="classification")
    with pytest.raises(ConfigError, match="--val-fraction 0"):
        hold_out(data, fraction=0.5, seed=0)
    assert hold_out(data, fraction=0.0, seed=0) == (data, None)
