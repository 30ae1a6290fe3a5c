"""A training run from its settings to the files in its folder."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reidkit import checkpoint
from reidkit.config import RunConfig, to_table
from reidkit.data.clips import has_tracklets, train_items
from reidkit.data.loading import Masks, RawBatch, TrainImages, train_labels, train_loader
from reidkit.data.sampler import TrainBatches
from reidkit.embed import TorchEmbedder
from reidkit.errors import ConfigError
from reidkit.evaluate import evaluate
from reidkit.files import atomic
from reidkit.models.base import ReidModel
from reidkit.models.weights import load_imagenet
from reidkit.registry import get_arch
from reidkit.retrieval import Report
from reidkit.tables import to_toml
from reidkit.training.loop import EpochReport, train_epoch
from reidkit.training.optim import build_optimizer, learning_rate, set_learning_rate
from reidkit.training.resume import State, load_state, save_state
from reidkit.types import Dataset

BEST = "model.safetensors"
LAST = "last.safetensors"


@dataclass(frozen=True)
class Watch:
    """What is told to whoever watches a run; the command line prints it."""

    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    on_epoch: Callable[[EpochReport], None] = lambda report: None
    on_evaluation: Callable[[int, Report], None] = lambda epoch, report: None


def run(
    config: RunConfig,
    dataset: Dataset,
    *,
    folder: Path,
    masks: Masks | None,
    device: torch.device,
    workers: int = 2,
    resume: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Trains, evaluates now and then, and returns the best checkpoint's path.

    The best is by rank-1 on the data set's query and gallery, as the papers chose theirs; the
    checkpoint's header says so.

    Args:
        folder: gets config.toml, model.safetensors (best), last.safetensors, resume.pt,
            metrics.jsonl and metrics.csv.
        masks: part maps of the training images; needed where the loss has a weight on them.
        resume: go on from the folder's resume.pt.
    Raises:
        ConfigError, DataError: if settings, data and masks do not go together.
        CheckpointError: if a resumed run's state is missing or damaged.
    """
    watch = watch or Watch()
    samples = train_items(dataset)
    labels, num_ids = train_labels(samples)
    torch.manual_seed(config.seed)
    model = build_model(config, num_ids=num_ids)
    if needs_masks(config, model) and masks is None:
        raise ConfigError(f"{config.arch.name} needs part masks: reidkit prepare-masks")
    load_imagenet(model, config.weights)
    model.to(device)
    optimizer = build_optimizer(model, config.optim)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    state = State(epoch=0, best=-1.0, seconds=0.0)
    if resume:
        state = load_state(folder, model=model, optimizer=optimizer, scaler=scaler)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(to_toml(_with_dataset(config, dataset)))

    images = TrainImages(
        samples,
        root=dataset.root,
        labels=labels,
        preprocess=config.input,
        augment=config.augment,
        masks=masks if needs_masks(config, model) else None,
        clip=config.clip,
    )
    batches = TrainBatches(
        labels,
        kind=config.sampler.kind,
        batch=config.sampler.batch,
        samples_per_id=config.sampler.samples_per_id,
        seed=config.seed,
        epochs=config.schedule.epochs,
        start_epoch=state.epoch,
    )
    steps = len(batches.epoch(state.epoch))
    raw_batches: Iterator[RawBatch] = iter(
        train_loader(images, batches, workers=workers, pin=device.type == "cuda")
    )

    def set_lr(epoch: float) -> float:
        whole = epoch if config.schedule.kind == "cosine" else int(epoch)
        lr = learning_rate(config.schedule, config.optim.lr, whole)
        set_learning_rate(optimizer, lr)
        return lr

    for epoch in range(state.epoch, config.schedule.epochs):
        report = train_epoch(
            model,
            images,
            raw_batches,
            epoch=epoch,
            steps=steps,
            set_lr=set_lr,
            loss=config.loss,
            optimizer=optimizer,
            scaler=scaler,
            precision=config.precision,
            device=device,
            on_step=partial(watch.on_step, epoch),
        )
        watch.on_epoch(report)
        record: dict[str, Any] = dataclasses.asdict(report)
        best, seconds = state.best, state.seconds + report.seconds
        if is_due(epoch + 1, config.test.every, config.schedule.epochs):
            frames = config.clip.frames if images.clip else 0
            embedder = TorchEmbedder(model, preprocess=config.input, device=device, frames=frames)
            judged = evaluate(embedder, dataset, flip=config.test.flip, metric=config.test.metric)
            watch.on_evaluation(epoch, judged)
            metrics = {"epoch": epoch + 1, **judged.to_dict()}
            record["test"] = metrics
            header = make_header(config, dataset, num_ids=num_ids, metrics=metrics)
            checkpoint.save(folder / LAST, model, header)
            if judged.cmc[0] > best:
                best = float(judged.cmc[0])
                checkpoint.save(folder / BEST, model, header)
        _append_metrics(folder, record)
        state = State(epoch + 1, best, seconds)
        save_state(folder, state, model=model, optimizer=optimizer, scaler=scaler)
    return folder / BEST


def build_model(config: RunConfig, *, num_ids: int) -> ReidModel:
    """The network that the settings describe, with fresh weights from torch's generator."""
    spec = get_arch(config.arch.name)
    model: ReidModel = spec.build(
        config.arch.options, num_ids=num_ids, input_size=config.input.size
    )
    return model


def needs_masks(config: RunConfig, model: ReidModel) -> bool:
    """Whether the loss wants part maps that the network gives."""
    return config.loss.part_attention > 0 and bool(model.parts)


def new_folder(arch: str, dataset: str, runs: Path = Path("runs")) -> Path:
    """runs/<arch>-<dataset>-<time>, one that does not exist yet."""
    stem = f"{arch}-{dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = runs / stem, 2
    while folder.exists():
        folder, number = runs / f"{stem}-{number}", number + 1
    return folder


def is_due(epoch: int, every: int, epochs: int) -> bool:
    """Whether the network is judged after `epoch` (from 1): each `every`, and after the last."""
    return epoch == epochs or (every > 0 and epoch % every == 0)


def make_header(
    config: RunConfig, dataset: Dataset, *, num_ids: int, metrics: dict[str, Any]
) -> checkpoint.Header:
    """What the checkpoint will say of itself."""
    return checkpoint.Header(
        arch=config.arch.name,
        arch_config=dataclasses.asdict(config.arch.options),
        preprocess=config.input,
        num_ids=num_ids,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        synthetic=dataset.synthetic,
        frames=config.clip.frames if has_tracklets(dataset.train) else 0,
        stride=config.clip.stride if has_tracklets(dataset.train) else 0,
        recipe=to_table(config),
        metrics=metrics,
        git=checkpoint.git_version(),
    )


def _with_dataset(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    origin = {"name": dataset.name, "root": str(dataset.root), "fingerprint": dataset.fingerprint}
    return {**to_table(config), "dataset": origin}


def _append_metrics(folder: Path, record: dict[str, Any]) -> None:
    """Adds an epoch to metrics.jsonl, and writes metrics.csv anew from all of them."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    earlier = [json.loads(line) for line in lines]
    records = [r for r in earlier if r["epoch"] < record["epoch"]] + [record]
    with atomic(path) as file:
        file.write_text("".join(json.dumps(r) + "\n" for r in records))
    rows = [_flat(r) for r in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic(folder / "metrics.csv") as file, file.open("w", newline="") as text:
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    row: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            row |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            row[prefix + name] = value
    return row
