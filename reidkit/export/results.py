"""Evaluation results of an exported file compared with those of its checkpoint."""

# Q queries

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.choices import ExportPrecision
from reidkit.errors import ConfigError, ReidkitError
from reidkit.evaluation import Evaluation, evaluate
from reidkit.export.settings import ExportSettings
from reidkit.export.verification import Progress
from reidkit.runtime.embedder import Embedder, load_embedder
from reidkit.runtime.onnx_runtime import OnnxEmbedder
from reidkit.types import Dataset, Item, frames

TOLERANCE = 0.1
"""Points that mAP and rank-1 may differ by."""

INT8_TOLERANCE = 0.5
"""Points that mAP may fall by in int8; it may rise."""

NAMED_QUERIES = 5


@dataclass(frozen=True)
class ResultComparison:
    """Results of a checkpoint and of the file exported from it, on one data set.

    Attributes:
        dataset, fingerprint: that both were evaluated on.
        expected, found: mAP and rank-1 of checkpoint and file, as fractions of one.
        changed: queries whose nearest item is a match in only one of the two, or whose AP
            differs by more than 0.01, the largest difference of AP first.
    """

    dataset: str
    fingerprint: str
    expected: dict[str, float]
    found: dict[str, float]
    changed: tuple[str, ...]
    queries: int

    def change(self, metric: str) -> float:
        """In points."""
        return 100 * (self.found[metric] - self.expected[metric])

    def passes(self, precision: ExportPrecision, tolerance: float | None) -> bool:
        if tolerance is None and precision == "int8":
            return self.change("mAP") >= -INT8_TOLERANCE
        limit = TOLERANCE if tolerance is None else tolerance
        return all(abs(self.change(metric)) <= limit for metric in ("mAP", "rank-1"))

    def to_dict(self) -> dict[str, Any]:
        """For the metadata of the file and the JSON document of `reidkit export`."""
        return {
            "dataset": self.dataset,
            "dataset_fingerprint": self.fingerprint,
            "checkpoint": self.expected,
            "file": self.found,
            "queries": self.queries,
            "changed_queries": len(self.changed),
        }

    def summary(self) -> str:
        parts = (
            f"{metric} {100 * self.expected[metric]:.2f} -> {100 * self.found[metric]:.2f}"
            for metric in ("mAP", "rank-1")
        )
        return f"{', '.join(parts)}; {len(self.changed)} of {self.queries} queries changed"


def compare_results(
    source: Path, file: Path, dataset: Dataset, *, on_progress: Progress | None = None
) -> ResultComparison:
    """Evaluates the checkpoint `source` in PyTorch and `file` in ONNX Runtime.

    Raises:
        ConfigError: the data set is for classification.
    """
    if dataset.task == "classification":
        raise ConfigError(
            f"--verify {dataset.name}: it is a classification data set, and exported files give "
            "embeddings. Verify on a data set for retrieval"
        )

    def run(embedder: Embedder) -> Evaluation:
        return evaluate(embedder, dataset, on_progress=on_progress)

    expected = run(load_embedder(source, device="cpu"))
    found = run(OnnxEmbedder(file, device="cpu", inputs={}))
    return ResultComparison(
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        expected=_scores(expected),
        found=_scores(found),
        changed=changed_queries(expected, found, dataset.query),
        queries=expected.plain.queries,
    )


def check_results(comparison: ResultComparison, settings: ExportSettings, *, target: Path) -> None:
    """Raises ReidkitError, naming the queries that changed, if results differ too much."""
    tolerance = settings.tolerance
    if comparison.passes(settings.precision, tolerance):
        return
    if tolerance is None and settings.precision == "int8":
        limit = f"mAP at most {INT8_TOLERANCE} points lower"
    else:
        limit = f"a change of at most {TOLERANCE if tolerance is None else tolerance:g} points"
    advice = "Export in float32" if settings.precision != "fp32" else "Check the checkpoint"
    named = ", ".join(comparison.changed[:NAMED_QUERIES]) or "none"
    more = len(comparison.changed) - NAMED_QUERIES
    raise ReidkitError(
        f"the results on {comparison.dataset} differ: {comparison.summary()}, expected {limit}. "
        f"Changed queries: {named}{f' and {more} more' if more > 0 else ''}. {target} was not "
        f"written. {advice}, or accept more with --tolerance"
    )


def changed_queries(
    expected: Evaluation, found: Evaluation, query: tuple[Item, ...]
) -> tuple[str, ...]:
    """Paths of the changed queries (`ResultComparison`)."""
    before, after = expected.plain, found.plain
    gap = np.nan_to_num(np.abs(after.average_precision - before.average_precision))
    changed = (gap > 0.01) | (np.nan_to_num(before.rank_1) != np.nan_to_num(after.rank_1))
    order = [index for index in np.argsort(-gap, kind="stable") if changed[index]]
    return tuple(str(next(iter(frames([query[index]]))).path) for index in order)


def _scores(evaluation: Evaluation) -> dict[str, float]:
    return {"mAP": evaluation.plain.mAP, "rank-1": evaluation.plain.rank(1)}
