"""A run folder contains everything that other commands need."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reidkit import checkpoint
from reidkit.config import Layer, RunConfig, load_run_config, preset_layer
from reidkit.data.manifest import open_dataset
from reidkit.errors import CheckpointError, ConfigError, DataError, ReidkitError
from reidkit.training.checkpoints import check_settings, new_folder, write_settings
from reidkit.training.trainer import Callbacks, RunOptions, Trainer, is_due


def settings(**tables: object) -> RunConfig:
    small = {
        "arch": {"name": "iaunet", "backbone": "resnet18", "stages": [2]},
        "input": {"size": [64, 32]},
        "sampler": {"batch": 16},
        "schedule": {"epochs": 2},
        "test": {"every": 1},
        "loss": {"part_attention": 0.0},
        "weights": "none",
        "precision": "fp32",
    }
    return load_run_config([preset_layer("iaunet"), Layer("test", small), Layer("test", tables)])


def train(market: Path, folder: Path, config: RunConfig, *, resume: bool = False) -> Path:
    data, cpu = open_dataset(str(market)), torch.device("cpu")
    return Trainer(
        config, data, folder=folder, masks=None, device=cpu, options=RunOptions(workers=0)
    ).fit(resume=resume)


def test_a_run_writes_checkpoints_settings_and_history(market: Path, tmp_path: Path) -> None:
    best = train(market, tmp_path / "run", settings())
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.toml",
        "model.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "metrics.csv",
        "curves.png",
        "train.log",
    }
    header = checkpoint.read_header(best)
    assert (header.arch, header.dataset, header.num_ids) == ("iaunet", "synth-market1501", 6)
    assert header.synthetic and header.recipe["sampler"]["batch"] == 16
    records = history(tmp_path / "run")
    assert [record["epoch"] for record in records] == [1, 2]
    assert 0 < records[1]["test"]["mAP"] <= 1
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["losses.total"]) == pytest.approx(records[1]["losses"]["total"])
    assert float(rows[1]["test.mAP"]) == pytest.approx(records[1]["test"]["mAP"])
    assert float(rows[1]["test.rank-1"]) == records[1]["test"]["cmc"][0]
    best_rank1 = max(record["test"]["cmc"][0] for record in records)
    assert header.metrics["cmc"][0] == best_rank1


def test_evaluation_within_training_reports_its_progress(market: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, bool]] = []
    Trainer(
        settings(schedule={"epochs": 1}),
        open_dataset(str(market)),
        folder=tmp_path / "run",
        masks=None,
        device=torch.device("cpu"),
        callbacks=Callbacks(
            on_progress=lambda stage, done, all: stages.append((stage, done == all))
        ),
        options=RunOptions(workers=0),
    ).fit()
    name = "synth-market1501"
    for stage in (f"embedding {name} query", f"embedding {name} gallery", "ranking"):
        assert (stage, True) in stages


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_folder_that_cannot_be_resumed_is_refused_with_the_reason(
    market: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        train(market, tmp_path, settings(), resume=True)
    write_settings(tmp_path, settings(), open_dataset(str(market)))
    with pytest.raises(CheckpointError, match="stopped before its first step"):
        train(market, tmp_path, settings(), resume=True)
    (tmp_path / "resume.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"resume\.pt"):
        train(market, tmp_path, settings(), resume=True)


def test_part_masks_that_were_built_again_with_other_maps_are_refused(
    market: Path, tmp_path: Path
) -> None:
    data = open_dataset(str(market))

    def masks(fingerprint: str) -> Any:
        return SimpleNamespace(fingerprint=fingerprint)

    write_settings(tmp_path, settings(), data, masks("a"))
    check_settings(tmp_path, settings(), data, masks("a"))
    with pytest.raises(CheckpointError, match="masks: a, now b"):
        check_settings(tmp_path, settings(), data, masks("b"))


def test_masks_are_required_when_the_loss_compares_part_maps(market: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reidkit prepare-masks"):
        train(market, tmp_path, settings(loss={"part_attention": 0.5}))


def test_a_non_finite_loss_stops_the_run_and_names_the_images(market: Path, tmp_path: Path) -> None:
    with pytest.raises(ReidkitError, match=r"not finite in epoch 1, step \d.*bounding_box_train/"):
        train(market, tmp_path, settings(optim={"name": "sgd", "lr": 1e30}))


def test_a_batch_larger_than_the_data_is_refused(market: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than one batch of 4096"):
        train(market, tmp_path, settings(sampler={"batch": 4096}))


def test_evaluation_is_due_every_n_epochs_and_after_the_last() -> None:
    assert [epoch for epoch in range(1, 26) if is_due(epoch, 10, 25)] == [10, 20, 25]
    assert [epoch for epoch in range(1, 26) if is_due(epoch, 0, 25)] == [25]


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    first = new_folder("iaunet", "market1501", tmp_path)
    first.mkdir()
    assert new_folder("iaunet", "market1501", tmp_path) != first


def test_a_run_folder_that_is_a_file_is_refused(market: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match="cannot create the run folder"):
        train(market, tmp_path / "run", settings())
