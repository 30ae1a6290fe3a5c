"""Data and model of a run, before its first step."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reidkit import checkpoint
from reidkit.config import RunConfig
from reidkit.data.clips import train_items
from reidkit.data.loading import Masks, RawBatch, TrainImages
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.losses import needs_masks as loss_needs_masks
from reidkit.models.base import ReidModel
from reidkit.registry import get_arch
from reidkit.training.logging import HELD_OUT
from reidkit.types import Batch, Dataset, Item

log = logging.getLogger(__name__)


def needs_masks(config: RunConfig) -> bool:
    """Whether the loss compares part maps of this network with part masks."""
    parts = get_arch(config.arch.name).parts(config.arch.options)
    return bool(parts) and loss_needs_masks(config.loss)


def build_model(config: RunConfig, *, num_ids: int) -> ReidModel:
    """The configured network with fresh weights from torch's global generator."""
    spec = get_arch(config.arch.name)
    model: ReidModel = spec.build(
        config.arch.options, num_ids=num_ids, input_size=config.input.size
    )
    return model


@dataclass(frozen=True)
class InitialWeights:
    """Names of tensors, sorted: what `load_initial_weights` did.

    Attributes:
        loaded: from the checkpoint. new: of the network, left as initialised. unused: of the
            checkpoint, except for its classifiers.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """Every tensor that was not loaded, for the log."""
        return [f"new: {name}" for name in self.new] + [f"unused: {name}" for name in self.unused]


def load_initial_weights(model: ReidModel, config: RunConfig, *, num_ids: int) -> InitialWeights:
    """Loads `config.init` into a network of `num_ids` identities; the classifiers stay new.

    Raises:
        CheckpointError: if another tensor is missing, superfluous or of another shape, unless
            `config.init_partial`.
    """
    from safetensors.torch import load_file

    path = Path(config.init)
    header = checkpoint.read_header(path)
    tensors, own = load_file(path), model.state_dict()
    with torch.device("meta"):
        other = build_model(config, num_ids=num_ids + 1).state_dict()
    classifiers = {name for name, tensor in own.items() if tensor.shape != other[name].shape}
    wanted = own.keys() - classifiers
    fitting = {
        name: tensors[name]
        for name in wanted
        if name in tensors and tensors[name].shape == own[name].shape
    }
    missing = sorted(wanted - fitting.keys())
    superfluous = sorted(tensors.keys() - own.keys())
    if missing or superfluous:
        found = (
            f"{path} ({header.arch}) and {config.arch.name} differ in {len(missing)} tensors of "
            f"the network{_first(missing)} and {len(superfluous)} of the checkpoint"
            f"{_first(superfluous)}"
        )
        if not config.init_partial:
            raise CheckpointError(f"{found}. Start from what fits with --init-partial")
        log.warning("%s", found)
    model.load_state_dict(fitting, strict=False)
    result = InitialWeights(
        loaded=tuple(sorted(fitting)),
        new=tuple(sorted(own.keys() - fitting.keys())),
        unused=tuple(sorted(tensors.keys() - fitting.keys() - classifiers)),
    )
    log.info(
        "%d of %d tensors loaded from %s; new: %d of classifiers, %d others",
        *(len(fitting), len(own), path, len(classifiers), len(missing)),
    )
    return result


MAX_NAMES = 10
"""Names of tensors in a message; train.log has all."""


def _first(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f" ({', '.join(names[:MAX_NAMES])}{more})" if names else ""


def freeze_warning(config: RunConfig) -> str:
    """What is wrong with freezing the backbone for `schedule.freeze_epochs`; "" if nothing is."""
    frozen, epochs = config.schedule.freeze_epochs, config.schedule.epochs
    if frozen and config.weights == "none" and not config.init:
        return (
            f"the backbone has random weights and is not trained for {min(frozen, epochs)} of "
            f"{epochs} epochs. Use --freeze with --weights auto or --init"
        )
    if frozen >= epochs:
        return f"the backbone is never trained: --freeze {frozen} of {epochs} epochs"
    return ""


def freeze_backbone(model: ReidModel, frozen: bool) -> None:
    """Excludes the backbone from training, batch norm's statistics included, or includes it again.
    Blocks between its stages are trained either way. Call it after `model.train()`."""
    model.backbone.requires_grad_(not frozen)
    model.backbone.train(not frozen)


def build_images(config: RunConfig, dataset: Dataset, masks: Masks | None) -> TrainImages:
    """The source of training batches.

    Raises:
        ConfigError: if part masks are needed and there are none.
        DataError: if there are no training images.
    """
    if needs_masks(config) and masks is None:
        raise ConfigError(
            f"{config.arch.name} needs part masks. "
            f"Run: reidkit prepare-masks --dataset {dataset.name}"
        )
    return TrainImages(
        train_items(dataset),
        root=dataset.root,
        preprocess=config.input,
        augment=config.augment,
        masks=masks if needs_masks(config) else None,
        clip=config.clip,
    )


def hold_out(dataset: Dataset, *, fraction: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """The data set without a fraction of its training identities, and a validation set of them.

    The identities are sampled by the seed. Of each one, the first item of every camera is a query
    and the others are the gallery. A fraction of 0 holds out nothing: no validation set.

    Raises:
        ConfigError: if the data set is for classification, whose test classes are its training
            classes.
        DataError: if fewer than two identities would be left on either side.
    """
    if not fraction:
        return dataset, None
    if dataset.task == "classification":
        raise ConfigError(
            f"--val-fraction holds out identities, and {dataset.name} is a classification data "
            "set. Use --val-fraction 0"
        )
    pids = sorted({item.pid for item in dataset.train})
    count = round(len(pids) * fraction)
    if count < 2 or len(pids) - count < 2:
        raise DataError(
            f"--val-fraction {fraction} of {len(pids)} training identities is {count}: training "
            "and validation need at least two each. Use another fraction, or 0 to choose the "
            "checkpoint by the test set"
        )
    held_out = set(np.random.default_rng([seed, 1]).permutation(pids)[:count].tolist())
    query: dict[tuple[int, int], Item] = {}
    gallery: list[Item] = []
    for item in dataset.train:
        if item.pid in held_out and query.setdefault((item.pid, item.camid), item) is not item:
            gallery.append(item)
    if not gallery:
        raise DataError(
            "the held-out identities have one image per camera, so their gallery is empty. "
            "Use --val-fraction 0"
        )
    return (
        dataclasses.replace(
            dataset, train=tuple(item for item in dataset.train if item.pid not in held_out)
        ),
        dataclasses.replace(
            dataset,
            name=f"{dataset.name}{HELD_OUT}",
            train=(),
            query=tuple(query.values()),
            gallery=tuple(gallery),
        ),
    )


def prefetch(
    raw_batches: Iterator[RawBatch], images: TrainImages, device: torch.device
) -> Iterator[Batch]:
    """Batches normalised and erased on the device.

    On CUDA the next batch is copied and finished on a side stream while the current one is trained
    on, without blocking the host.
    """
    if device.type != "cuda":
        for raw in raw_batches:
            yield images.finish(raw, device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stub

    def fetch() -> Batch | None:
        raw = next(raw_batches, None)
        if raw is None:
            return None
        with torch.cuda.stream(stream):
            return images.finish(raw, device)

    following = fetch()
    while following is not None:
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        batch = following
        for tensor in (batch.images, batch.labels, batch.camids, batch.masks):
            if tensor is not None:
                tensor.record_stream(current)
        following = fetch()
        yield batch
