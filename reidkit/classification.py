"""Classification (CIFAR-100): top-1 and top-5 accuracy of a network's logits on the query split.

A class's label is its position among the sorted pids of the training split.
"""

# N images, C classes, B batch

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.data.clips import has_tracklets
from reidkit.data.pixels import pixel_batches
from reidkit.errors import ConfigError, DataError
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.embedder import Embedder
from reidkit.runtime.torch_embedder import TorchEmbedder
from reidkit.types import Dataset

Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""


@dataclass(frozen=True)
class ClassificationResult:
    """Accuracy of one model on one data set.

    Attributes:
        labels: int64 [N], true classes of the images.
        ranks: int64 [N], rank of the true class from 1, by descending probability.
        model, model_sha256: name or path of the network, and of its file ("" in memory).
        dataset, dataset_fingerprint, synthetic: of the data set.
        flip: whether probabilities are averaged with those of the mirrored image.
    """

    labels: NDArray[np.int64]
    ranks: NDArray[np.int64]
    model: str
    model_sha256: str
    dataset: str
    dataset_fingerprint: str
    synthetic: bool
    flip: bool = False

    columns: ClassVar[tuple[str, ...]] = ("data set", "top-1", "top-5", "images")
    """Header of `rows`."""

    def __repr__(self) -> str:
        return (
            f"ClassificationResult({self.dataset[:30]}: top-1 {100 * self.top1:.1f}, "
            f"top-5 {100 * self.top5:.1f}, {len(self.ranks)} images)"
        )

    @property
    def top1(self) -> float:
        """Share of images whose class is the most probable one."""
        return float(np.mean(self.ranks <= 1))

    @property
    def top5(self) -> float:
        """Share of images whose class is among the five most probable ones."""
        return float(np.mean(self.ranks <= 5))

    @property
    def score(self) -> float:
        """Top-1 accuracy, by which training chooses a checkpoint."""
        return self.top1

    @property
    def rule(self) -> str:
        """How probabilities were obtained: results by the same rule can be compared."""
        return "flip" if self.flip else "one view"

    def metrics(self) -> dict[str, Any]:
        """What checkpoints and metrics.jsonl store."""
        return {
            "task": "classification",
            "top1": self.top1,
            "top5": self.top5,
            "images": len(self.ranks),
        }

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """For JSON.

        Args:
            per_query: include the label and the rank of every image.
        """
        document: dict[str, Any] = {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "dataset": self.dataset,
            "dataset_fingerprint": self.dataset_fingerprint,
            "synthetic": self.synthetic,
            "rule": self.rule,
            "flip": self.flip,
            **self.metrics(),
        }
        if per_query:
            document["per_query"] = {"label": self.labels.tolist(), "rank": self.ranks.tolist()}
        return document

    def rows(self) -> list[list[str]]:
        """Cells of a table with the header `columns`; accuracies in %."""
        accuracy = [f"{100 * value:.2f}" for value in (self.top1, self.top5)]
        return [[self.dataset, *accuracy, f"{len(self.ranks):,}"]]

    def summary(self) -> str:
        return f"top-1 {100 * self.top1:.1f}  top-5 {100 * self.top5:.1f}"


def evaluate_classification(
    embedder: Embedder,
    dataset: Dataset,
    *,
    flip: bool = False,
    batch: int = 64,
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Progress | None = None,
) -> ClassificationResult:
    """Top-1 and top-5 accuracy on the query split; every process gets the result.

    Args:
        flip: average probabilities with those of the mirrored image.
        group: the processes that share the split.

    Raises:
        ConfigError: the model has no classifier, or one of other classes.
        DataError: the split is empty, has unknown classes, or an image cannot be read.
    """
    items = dataset.query
    if not items or has_tracklets(items):
        raise DataError(f"{dataset.name}: classification needs images in the query split")
    classes = sorted({item.pid for item in dataset.train})
    label_of = {pid: label for label, pid in enumerate(classes)}
    unknown = sorted({item.pid for item in items} - set(classes))
    if unknown:
        raise DataError(f"{dataset.name}: query classes {unknown} are not in the training split")
    labels = np.array([label_of[item.pid] for item in items], np.int64)

    own = group.shard(range(len(items)))
    ranks = np.zeros(0, np.int64)
    if own:  # there may be fewer images than processes
        probabilities = class_probabilities(
            embedder,
            [dataset.root / items[n].path for n in own],
            flip=flip,
            batch=batch,
            on_progress=on_progress,
        )
        if probabilities.shape[1] != len(classes):
            raise ConfigError(
                f"{embedder.name} was trained on {probabilities.shape[1]} classes, {dataset.name} "
                f"has {len(classes)}"
            )
        ranks = _ranks(probabilities, labels[list(own)])
    return ClassificationResult(
        labels=labels,
        ranks=np.concatenate(group.gather(ranks)),
        model=embedder.name,
        model_sha256=embedder.source_hash,
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        synthetic=dataset.synthetic,
        flip=flip,
    )


def class_probabilities(
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    flip: bool = False,
    batch: int = 64,
    on_progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Probabilities of the training classes for image files, in order: float32 [N, C].

    Raises:
        ConfigError: the model has no classifier (as all ONNX files), or takes clips.
        DataError: an image cannot be read.
    """
    if not isinstance(embedder, TorchEmbedder):
        raise ConfigError(
            f"{embedder.name} has no classifier: exported models contain the embedding only. "
            "Evaluate the checkpoint"
        )
    if embedder.frames:
        raise ConfigError(f"{embedder.name} takes clips of {embedder.frames} frames, not images")
    model = embedder.model
    rows: list[NDArray[np.float32]] = []
    done = 0
    with embedder.evaluating():
        batches = (paths[start : start + batch] for start in range(0, len(paths), batch))
        for pixels in pixel_batches(batches, embedder.preprocess):
            images = embedder.images(pixels)  # [B, 3, H, W]
            views = (images, images.flip(-1)) if flip else (images,)
            logits = [model(view).logits for view in views]
            if not logits[0]:
                raise ConfigError(f"{embedder.name} was built without a classifier")
            probabilities = [each[0].float().softmax(1) for each in logits]  # [B, C]
            rows.append(torch.stack(probabilities).mean(0).cpu().numpy())
            done += len(images)
            if on_progress is not None:
                on_progress("classifying", done, len(paths))
    return np.concatenate(rows)


def _ranks(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each image's class, ties by class: [N, C], [N] -> int64 [N] from 1."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    before = (probabilities > own) | ((probabilities == own) & earlier)
    ranks: NDArray[np.int64] = 1 + before.sum(axis=1)
    return ranks
