"""Held-out identities choose the checkpoint, and the test set is evaluated once; dry runs."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
import torch
from test_trainer import settings

from reidkit import checkpoint
from reidkit.data.manifest import open_dataset
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.interrupt import Interrupted
from reidkit.training.dry_run import dry_run
from reidkit.training.logging import read_history
from reidkit.training.setup import build_model, freeze_warning, hold_out, load_initial_weights
from reidkit.training.trainer import Callbacks, RunOptions, Trainer

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


def test_a_run_stopped_after_the_last_step_of_an_epoch_says_so_and_marks_held_out_results(
    market: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = settings(schedule={"epochs": 1}, test={"every": 1, "val_fraction": 0.4})

    def stop_after_last(epoch: int, step: int, steps: int) -> None:
        if step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    def build(callbacks: Callbacks) -> Trainer:
        return Trainer(
            config,
            open_dataset(str(market)),
            folder=tmp_path,
            masks=None,
            device=CPU,
            callbacks=callbacks,
            options=RunOptions(workers=0),
        )

    with pytest.raises(Interrupted):
        build(Callbacks(on_step=stop_after_last)).fit()
    build(Callbacks()).fit(resume=True)
    assert "resuming at the end of epoch 1" in caplog.text
    assert "epoch 1, held-out identities: mAP" in (tmp_path / "train.log").read_text()


def fit(market: Path, folder: Path, **tables: object) -> Path:
    return Trainer(
        settings(**tables),
        open_dataset(str(market)),
        folder=folder,
        masks=None,
        device=CPU,
        options=RunOptions(workers=0),
    ).fit()


def test_a_run_starts_from_a_checkpoint_with_a_new_classifier(
    market: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = fit(market, tmp_path / "first")
    config = settings(init=str(first))
    model = build_model(config, num_ids=9)  # other identities than the checkpoint's six
    before = model.head.classifier.weight.clone()
    found = load_initial_weights(model, config, num_ids=9)
    assert found.new == ("head.classifier.bias", "head.classifier.weight") and not found.unused
    assert f"{len(found.loaded)} of {len(model.state_dict())} tensors loaded from" in caplog.text
    loaded, _ = checkpoint.load(first)
    assert torch.equal(model.backbone.conv1.weight, loaded.backbone.conv1.weight)
    assert torch.equal(model.head.classifier.weight, before)
    fit(market, tmp_path / "second", init=str(first))


def test_a_checkpoint_that_does_not_fit_is_refused_unless_partial_is_allowed(
    market: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = fit(market, tmp_path / "first", arch={"stages": []})
    config = settings(init=str(first))
    model = build_model(config, num_ids=6)
    with pytest.raises(
        CheckpointError, match=r"blocks.*Start from what fits with --init-partial"
    ) as e:
        load_initial_weights(model, config, num_ids=6)
    assert str(e.value).count("blocks.") == 10 and " more) and 0 of the" in str(e.value)
    config = settings(init=str(first), init_partial=True)
    load_initial_weights(model, config, num_ids=6)
    assert "differ in" in caplog.text and "0 of the checkpoint" in caplog.text
    fit(market, tmp_path / "second", init=str(first), init_partial=True)
    new = [name for name in model.state_dict() if "blocks." in name]
    log = (tmp_path / "second/train.log").read_text()
    assert all(f"  new: {name}\n" in log for name in new)  # all of them
    loaded, _ = checkpoint.load(first)
    assert torch.equal(model.backbone.conv1.weight, loaded.backbone.conv1.weight)


def test_a_frozen_backbone_stays_as_it_was(market: Path, tmp_path: Path) -> None:
    first = fit(market, tmp_path / "first")
    frozen = fit(market, tmp_path / "frozen", init=str(first), schedule={"freeze_epochs": 2})
    before, after = (checkpoint.load(path)[0].state_dict() for path in (first, frozen))
    for name, tensor in before.items():
        same = torch.equal(tensor, after[name])
        assert same == ("backbone." in name) or "running" in name or "batches" in name, name
        assert same or "backbone." not in name, name


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"weights": "auto", "schedule": {"epochs": 5, "freeze_epochs": 2}}, ""),
        ({"weights": "auto", "schedule": {"epochs": 2, "freeze_epochs": 2}}, "is never trained"),
        ({"weights": "none", "schedule": {"epochs": 5, "freeze_epochs": 2}}, "random weights"),
        ({"weights": "none", "init": "x", "schedule": {"epochs": 5, "freeze_epochs": 2}}, ""),
        ({"weights": "none"}, ""),
    ],
)
def test_a_backbone_that_cannot_learn_is_warned_about(
    tables: dict[str, object], expected: str
) -> None:
    warning = freeze_warning(settings(**tables))
    assert expected in warning and bool(warning) == bool(expected)


def test_patience_ends_a_run_that_does_not_improve(market: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test\.patience needs held-out identities"):
        settings(test={"every": 1, "patience": 2})
    config = settings(
        schedule={"epochs": 9},
        optim={"lr": 1e-12},  # learns nothing
        test={"every": 1, "patience": 2, "val_fraction": 0.4},
    )
    data = open_dataset(str(market))
    options = RunOptions(workers=0)
    Trainer(config, data, folder=tmp_path, masks=None, device=CPU, options=options).fit()
    epochs = [record["epoch"] for record in read_history(tmp_path)]
    assert epochs[-1] < 9 and not (tmp_path / "resume.pt").exists()
    Trainer(config, data, folder=tmp_path, masks=None, device=CPU, options=options).fit(resume=True)
    assert [record["epoch"] for record in read_history(tmp_path)] == epochs  # it stays ended


def test_a_run_that_patience_ended_stays_ended_with_its_resume_point(
    market: Path, tmp_path: Path
) -> None:
    config = settings(
        schedule={"epochs": 9},
        optim={"lr": 1e-12},
        test={"every": 1, "patience": 1, "val_fraction": 0.4},
    )
    data, options = open_dataset(str(market)), RunOptions(workers=0, keep_resume=True)
    histories = []
    for resume in (False, True):
        trainer = Trainer(config, data, folder=tmp_path, masks=None, device=CPU, options=options)
        trainer.fit(resume=resume)
        histories.append([record["epoch"] for record in read_history(tmp_path)])
    assert (tmp_path / "resume.pt").exists()
    assert histories[0] == histories[1] and histories[0][-1] < 9
