"""Evaluation of a network during training; the lead's rewrite of training removes this file."""

from __future__ import annotations

from reidkit.config import TestConfig
from reidkit.evaluation import EvaluationSettings, evaluate
from reidkit.retrieval import RetrievalMetrics
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.embedder import Embedder
from reidkit.types import Dataset


def judge(
    embedder: Embedder, dataset: Dataset, test: TestConfig, *, group: ProcessGroup = SINGLE_PROCESS
) -> RetrievalMetrics:
    """mAP, mINP and CMC on query and gallery; the same in every process."""
    settings = EvaluationSettings(metric=test.metric, flip=test.flip, batch=test.batch)
    return evaluate(embedder, dataset, settings, group=group).plain
