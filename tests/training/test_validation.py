"""Identities held out of training choose the checkpoint; the test set is judged once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_run import settings

from reidkit import checkpoint
from reidkit.data.manifest import open_dataset
from reidkit.errors import DataError
from reidkit.training.dryrun import dry_run
from reidkit.training.run import run
from reidkit.training.validation import hold_out

CPU = torch.device("cpu")


def test_held_out_people_are_nobody_elses(market: Path) -> None:
    data = open_dataset(str(market))
    kept, held_out = hold_out(data, fraction=0.34, seed=3)
    people = [{item.pid for item in items} for items in (kept.train, held_out.query)]
    assert len(people[1]) == 2 and not people[0] & people[1]
    items = [*kept.train, *held_out.query, *held_out.gallery]
    assert sorted(items, key=lambda i: i.path) == sorted(data.train, key=lambda i: i.path)
    views = [(item.pid, item.camid) for item in held_out.query]
    assert len(views) == len(set(views))
    assert hold_out(data, fraction=0.34, seed=3) == (kept, held_out)
    assert hold_out(data, fraction=0.34, seed=4)[0].train != kept.train


def test_a_fraction_that_leaves_too_few_is_refused(market: Path) -> None:
    with pytest.raises(DataError, match="6 training identities is 1"):
        hold_out(open_dataset(str(market)), fraction=0.1, seed=0)


def test_the_report_says_who_chose_and_judges_the_test_set_once(
    market: Path, tmp_path: Path
) -> None:
    config = settings(
        test={"every": 1, "val_fraction": 0.34}, schedule={"epochs": 1}, optim={"ema": 0.5}
    )
    data = open_dataset(str(market))
    best = run(config, data, folder=tmp_path / "run", masks=None, device=CPU, workers=0)
    header = checkpoint.read_header(best)
    assert header.num_ids == 4
    assert header.metrics["chosen_by"] == "34% of the training identities, held out"
    assert header.metrics["queries"] == len(data.query)
    assert header.metrics["validation"]["queries"] < len(data.query) + len(data.train)


def test_a_dry_run_tells_shapes_sizes_and_time_and_writes_nothing(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = dry_run(settings(), open_dataset(str(market)), masks=None, device=CPU, workers=0)
    shapes = dict(told.shapes)
    assert shapes["images"] == "Bx3x64x32"
    assert shapes["stage 4"] == "Bx512x4x2"
    assert shapes["output logits"] == "Bx6" and shapes["output features"] == "Bx512"
    assert len(told.step_seconds) == 3 and told.memory > 0
    mean = sum(told.step_seconds) / 3
    assert told.seconds == pytest.approx(mean * told.steps * told.epochs)
    assert told.identities == 6 and set(told.losses) == {"identity", "triplet", "total"}
    assert not list(tmp_path.iterdir())
