"""From settings and a data set to everything that a training step needs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reidkit.config import RunConfig, to_table
from reidkit.data.clips import train_items
from reidkit.data.loading import Masks, TrainImages
from reidkit.data.sampler import TrainBatches
from reidkit.errors import ConfigError
from reidkit.models.base import ReidModel
from reidkit.models.weights import load_imagenet
from reidkit.registry import get_arch
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.training.distributed import check_split, gather_rows, share_batch_norms, wrap
from reidkit.training.ema import MovingAverage
from reidkit.training.loop import Stepper
from reidkit.training.optim import build_optimizer, build_scaler
from reidkit.training.precision import resolve_precision, to_channels_last
from reidkit.training.resume import Learner
from reidkit.training.validation import hold_out
from reidkit.types import Dataset


@dataclass(frozen=True)
class Setup:
    """A run before its first step.

    Attributes:
        config: with "auto" resolved to what this device does.
        dataset: as it was given.
        validation: held-out training identities; None: the test set chooses.
        num_ids: training identities.
    """

    config: RunConfig
    dataset: Dataset
    validation: Dataset | None
    model: ReidModel
    learner: Learner
    stepper: Stepper
    images: TrainImages
    num_ids: int

    @property
    def frames(self) -> int:
        """Of a training clip; 0 for images."""
        return self.config.clip.frames if self.images.clip else 0

    def batches(self, *, epoch: int, step: int, group: ProcessGroup) -> TrainBatches:
        """Every batch from there on, this process's share of each."""
        return TrainBatches(
            self.images.labels,
            self.config.sampler,
            seed=self.config.seed,
            epochs=self.config.schedule.epochs,
            start=(epoch, step),
            shard=(group.rank, group.size),
        )


def prepare(
    config: RunConfig,
    dataset: Dataset,
    *,
    masks: Masks | None,
    device: torch.device,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Setup:
    """Builds network, optimiser and the source of batches.

    Raises:
        ConfigError, DataError: if settings, data, masks and processes do not go together.
    """
    sampler = config.sampler
    check_split(
        sampler.batch, 1 if sampler.kind == "shuffle" else sampler.samples_per_id, group.size
    )
    config = dataclasses.replace(config, precision=resolve_precision(config.precision, device))
    kept, validation = dataset, None
    if config.test.val_fraction:
        kept, validation = hold_out(dataset, fraction=config.test.val_fraction, seed=config.seed)
    items = train_items(kept)
    num_ids = len({item.pid for item in items})
    torch.manual_seed(config.seed)
    model = build_model(config, num_ids=num_ids)
    masked = needs_masks(config, model)
    if masked and masks is None:
        raise ConfigError(f"{config.arch.name} needs part masks: reidkit prepare-masks")
    load_imagenet(model, config.weights)
    if group.size > 1:
        share_batch_norms(model, device)
        torch.manual_seed(config.seed + group.rank)  # equal weights, each its own dropout
    to_channels_last(model, device)
    optimizer = build_optimizer(model, config.optim, fused=device.type == "cuda")
    scaler = build_scaler(config.precision, device)
    average = MovingAverage(model, decay=config.optim.ema) if config.optim.ema else None
    if config.compile:
        nn.Module.compile(model)
    stepper = Stepper(
        network=wrap(model, device, group),
        loss=config.loss,
        optimizer=optimizer,
        scaler=scaler,
        precision=config.precision,
        after=(lambda: average.update(model)) if average else lambda: None,
        gather=gather_rows if group.size > 1 else lambda local: local,
    )
    images = TrainImages(
        items,
        root=dataset.root,
        preprocess=config.input,
        augment=config.augment,
        masks=masks if masked else None,
        clip=config.clip,
    )
    learner = Learner(model, optimizer, scaler, average)
    return Setup(config, dataset, validation, model, learner, stepper, images, num_ids)


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


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """What config.toml keeps of a data set, to know it again."""
    return {
        "name": dataset.name,
        "root": str(dataset.root),
        "identities": len({item.pid for item in dataset.train}),
        "train": len(dataset.train),
        "query": len(dataset.query),
        "gallery": len(dataset.gallery),
        "fingerprint": dataset.fingerprint,
    }


def document(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """What a run's config.toml holds."""
    return {**to_table(config), "dataset": describe_dataset(dataset)}
