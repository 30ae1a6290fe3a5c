"""From an embedder or features and a data set to one `Evaluation`.

evaluation = evaluate("model.onnx", "market1501")
print(evaluation.summary())
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from reidkit.choices import ApRule, Metric, ProtocolName
from reidkit.classification import ClassificationResult, evaluate_classification
from reidkit.data.manifest import open_dataset
from reidkit.errors import ConfigError, DataError
from reidkit.features import Features, read_features
from reidkit.query_results import QueryResult, query_results
from reidkit.retrieval import (
    Embeddings,
    OperatingPoint,
    RankingConfig,
    RerankConfig,
    RetrievalMetrics,
    augment_database,
    compute_metrics,
    expand_queries,
    get_protocol,
    pool_queries,
)
from reidkit.retrieval.distance import check_metric
from reidkit.retrieval.metrics import check_ap_rule
from reidkit.runtime.crops import Runtime, as_embedder
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.embedder import Embedder
from reidkit.runtime.extraction import ExtractionSettings, extract_split
from reidkit.types import Dataset, Split

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""

UNLABELLED = -1
"""Identity of images without a label."""

RANKS = (1, 5, 10, 20)
"""CMC ranks in tables."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(ExtractionSettings):
    """How features are extracted and ranked, and what is computed from the ranking.

    Attributes:
        protocol: evaluation protocol; None: the data set's.
        rerank: also evaluate after k-reciprocal re-ranking.
        ap: rule of average precision, "step" or "trapezoid" (`retrieval.metrics`).
        query_expansion: neighbours averaged into each query (0: none).
        database_augmentation: neighbours averaged into each gallery vector (0: none).
        alpha: exponent of the similarities that weight these neighbours (Radenovic et al. 2018);
            0 weights them equally (Chum et al. 2007).
        target_fpr: false positive rate at which to report the verification threshold.
        thresholds: count all distances, for ROC and verification thresholds.
        by_camera: also evaluate each pair of cameras.
        per_query: keep each query's result with the paths of its nearest images.
        max_memory: bytes of ranking in addition to the features; None: the fastest block sizes.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    protocol: ProtocolName | None = None
    metric: Metric = "cosine"
    rerank: RerankConfig | None = None
    ap: ApRule = "step"
    query_expansion: int = 0
    database_augmentation: int = 0
    alpha: float = 0.0
    target_fpr: float | None = None
    thresholds: bool = False
    by_camera: bool = False
    per_query: bool = False
    max_memory: int | None = None

    def __post_init__(self) -> None:
        check_metric(self.metric)
        check_ap_rule(self.ap)
        if self.protocol is not None:
            get_protocol(self.protocol)
        if self.target_fpr is not None and not 0 < self.target_fpr < 1:
            raise ConfigError(
                f"the target false positive rate must be between 0 and 1, got {self.target_fpr}"
            )


_DEFAULTS = EvaluationSettings()


@dataclass(frozen=True)
class Evaluation:
    """Retrieval metrics of one model, or of two features files, on one data set.

    Attributes:
        plain: metrics of the ranking by distance.
        reranked: metrics after re-ranking, if requested.
        model, model_sha256: name or path of the model, and of its file ("": unknown).
        dataset, dataset_fingerprint, synthetic: of the data set.
        frames: of the clips that the model takes (0: it takes images).
        clips: how tracklets were divided into clips; "" for images.
        flip: whether embeddings of mirrored images were added.
        image_backend: what decoded and resized the images ("": unknown).
        query_features, gallery_features: the files that the features were read from, if any.
        multi_query: folder of the images that queries were pooled over, if any.
        queries: each query's result (after re-ranking, if requested), with `settings.per_query`.
    """

    settings: EvaluationSettings
    plain: RetrievalMetrics
    reranked: RetrievalMetrics | None = None
    model: str = ""
    model_sha256: str = ""
    dataset: str = ""
    dataset_fingerprint: str = ""
    synthetic: bool = False
    frames: int = 0
    clips: str = ""
    flip: bool = False
    image_backend: str = ""
    query_features: str = ""
    gallery_features: str = ""
    multi_query: str = ""
    queries: tuple[QueryResult, ...] = ()

    columns: ClassVar[tuple[str, ...]] = (
        *("data set", "", "mAP", "95 %", "mINP"),
        *(f"rank-{k}" for k in RANKS),
    )
    """Header of `rows`."""

    def __repr__(self) -> str:
        reranked = f", re-ranked {100 * self.reranked.mAP:.1f}" if self.reranked else ""
        return (
            f"Evaluation({self.dataset[:30]}: mAP {100 * self.plain.mAP:.1f}{reranked}, "
            f"rank-1 {100 * self.score:.1f}, {self.plain.queries} queries)"
        )

    @property
    def score(self) -> float:
        """Rank-1, by which training chooses a checkpoint."""
        return self.plain.rank(1)

    @property
    def rankings(self) -> dict[str, RetrievalMetrics]:
        """The metrics by name: "plain", and "re-ranked" if requested."""
        return {"plain": self.plain} | ({"re-ranked": self.reranked} if self.reranked else {})

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The verification threshold at `settings.target_fpr`, if requested."""
        if self.settings.target_fpr is None or self.plain.pairs is None:
            return None
        return self.plain.pairs.operating_point(self.settings.target_fpr)

    @property
    def rule(self) -> str:
        """How the plain metrics were obtained: results by the same rule can be compared."""
        settings = self.settings
        expansion = settings.query_expansion or settings.database_augmentation
        parts = {
            f"protocol {self.plain.protocol}": True,
            self.plain.metric: True,
            f"{self.plain.ap} AP": True,
            "flip": self.flip,
            f"clips {self.clips}": self.clips,
            f"{self.image_backend} pixels": self.image_backend not in ("", "pillow"),
            f"query expansion {settings.query_expansion}": settings.query_expansion,
            f"database augmentation {settings.database_augmentation}": (
                settings.database_augmentation
            ),
            f"alpha {settings.alpha:g}": expansion and settings.alpha,
            "multi-query": self.multi_query,
        }
        return ", ".join(part for part, holds in parts.items() if holds)

    def metrics(self) -> dict[str, Any]:
        """The plain metrics, which checkpoints and metrics.jsonl store."""
        return self.plain.to_dict()

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """The JSON document of `reidkit eval`.

        Args:
            per_query: include the results of each query, which `reidkit compare` needs.
        """
        document: dict[str, Any] = {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "dataset": self.dataset,
            "dataset_fingerprint": self.dataset_fingerprint,
            "synthetic": self.synthetic,
            "rule": self.rule,
            "flip": self.flip,
            "frames": self.frames,
            "clips": self.clips or None,
        }
        for name in ("query_features", "gallery_features", "multi_query"):
            if value := getattr(self, name):
                document[name] = value
        document |= self.plain.to_dict(per_query=per_query)
        if self.plain.queries_without_match < self.plain.queries:
            intervals = self.plain.intervals()
            document["intervals"] = {name: vars(interval) for name, interval in intervals.items()}
        if self.operating_point is not None:
            document["operating_point"] = vars(self.operating_point)
        document["reranked"] = self.reranked.to_dict() if self.reranked else None
        return document

    def rows(self) -> list[list[str]]:
        """Cells of a table with the header `columns`; scores in %."""
        rows = []
        for name, metrics in self.rankings.items():
            interval = ""
            if name == "plain" and metrics.queries_without_match < metrics.queries:
                bounds = metrics.intervals()["mAP"]
                interval = f"{100 * bounds.low:.1f}-{100 * bounds.high:.1f}"
            numbers = [metrics.mAP, metrics.mINP, *(metrics.rank(k) for k in RANKS)]
            cells = [f"{100 * value:.2f}" for value in numbers]
            rows.append([self.dataset, name, cells[0], interval, *cells[1:]])
        return rows

    def summary(self) -> str:
        return f"mAP {100 * self.plain.mAP:.1f}  rank-1 {100 * self.score:.1f}"


EvaluationResult = Evaluation | ClassificationResult
"""Both have `metrics`, `to_dict`, `rows`, `summary` and `score`."""


def evaluate(
    model: Embedder | Runtime | str | Path,
    dataset: Dataset | str | Path,
    settings: EvaluationSettings = _DEFAULTS,
    *,
    device: torch.device | str | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Extracts query and gallery and computes retrieval metrics.

    Args:
        model: from `reidkit.load`, an embedder, or the path of a model.
        dataset: from `open_dataset`, or what that takes: a name, a manifest or a folder.
        device: of the ranking; None is the CPU.
        group: the processes that share extraction; the main process ranks, and all of them get
            the result.

    Raises:
        ConfigError: the data set is for classification, `model` is not one, or the memory budget is
            too small.
        DataError: there is no such data set, a split is empty, an image cannot be read, or features
            cannot be ranked.
        CheckpointError, RuntimeMissing: the model cannot be loaded (`load_embedder`).
    """
    if isinstance(dataset, str | Path):
        dataset = open_dataset(dataset)
    if dataset.task == "classification":
        raise ConfigError(
            f"{dataset.name} is a classification data set: "
            "use reidkit.evaluation.evaluate_by_task in place of evaluate"
        )

    embedder = as_embedder(model)
    if not group.is_main:
        on_progress = None

    def extract(split: Split) -> Features:
        return extract_split(
            embedder,
            dataset,
            split,
            settings,
            group=group,
            on_progress=on_progress
            and (lambda done, total: on_progress(f"embedding {dataset.name} {split}", done, total)),
        )

    query, gallery = extract("query"), extract("gallery")
    evaluation = None
    if group.is_main:
        evaluation = evaluate_features(
            query, gallery, settings, device=device, on_progress=on_progress
        )
    evaluation = group.broadcast(evaluation)
    assert evaluation is not None, "the main process has it"
    return evaluation


def evaluate_features(
    query: Features | str | Path,
    gallery: Features | str | Path,
    settings: EvaluationSettings = _DEFAULTS,
    *,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Retrieval metrics of features in memory or in features files.

    Arguments as in `evaluate`; without `settings.protocol`, the protocol is that of the data set
    the features were extracted from, or "market" if they do not contain it.

    Raises:
        DataError: the two were extracted by different models or in different ways, none is
            labelled, or they cannot be ranked.
        ConfigError: the memory budget is too small.
    """
    query_file, query = _read(query)
    gallery_file, gallery = _read(gallery)
    _check_alike(query.attributes, gallery.attributes, query_file, gallery_file)
    for features, name in ((query, query_file or "query"), (gallery, gallery_file or "gallery")):
        if (features.pids == UNLABELLED).all():
            raise DataError(
                f"{name}: all identities are {UNLABELLED}, so nothing is labelled and there is "
                "nothing to evaluate. To find people: reidkit search --query A.h5 --gallery B.h5"
            )
    Q = as_embeddings(query, query_file or "query")
    G = as_embeddings(gallery, gallery_file or "gallery")
    neighbours: dict[str, Any] = {
        "alpha": settings.alpha,
        "max_memory": settings.max_memory,
        "device": device,
        "on_progress": on_progress,
    }
    if settings.database_augmentation:
        G = augment_database(G, n=settings.database_augmentation, **neighbours)
    if settings.query_expansion:
        Q = expand_queries(Q, G, n=settings.query_expansion, **neighbours)
    ranking = RankingConfig(
        protocol=settings.protocol or str(query.attributes.get("protocol") or "market"),
        metric=settings.metric,
        ap=settings.ap,
        max_memory=settings.max_memory,
        device=device,
    )
    plain = compute_metrics(
        Q,
        G,
        ranking,
        thresholds=settings.thresholds or settings.target_fpr is not None,
        by_camera=settings.by_camera,
        on_progress=on_progress,
    )
    reranked = None
    if settings.rerank is not None:
        ranking = dataclasses.replace(ranking, rerank=settings.rerank)
        reranked = compute_metrics(Q, G, ranking, on_progress=on_progress)
    queries: tuple[QueryResult, ...] = ()
    if settings.per_query:
        queries = query_results((query, Q), (gallery, G), ranking, reranked or plain)
    origin = query.attributes
    return Evaluation(
        settings=settings,
        plain=plain,
        reranked=reranked,
        model=str(origin.get("model", "")),
        model_sha256=str(origin.get("model_sha256", "")),
        dataset=str(origin.get("dataset") or Path(query_file).stem),
        dataset_fingerprint=str(origin.get("dataset_fingerprint", "")),
        synthetic=bool(origin.get("synthetic", False)),
        frames=int(origin.get("frames", 0)),
        clips=str(origin.get("clips", "")),
        flip=bool(origin.get("flip", False)),
        image_backend=str(origin.get("image_backend", "")),
        query_features=query_file,
        gallery_features=gallery_file,
        queries=queries,
    )


def evaluate_by_task(
    embedder: Embedder,
    dataset: Dataset,
    settings: EvaluationSettings = _DEFAULTS,
    *,
    device: torch.device | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Progress | None = None,
) -> EvaluationResult:
    """`evaluate`, or `evaluate_classification` if that is the data set's task; it uses `flip` and
    `batch` of the settings only."""
    if dataset.task == "classification":
        return evaluate_classification(
            embedder,
            dataset,
            flip=settings.flip,
            batch=settings.batch or 64,
            group=group,
            on_progress=on_progress,
        )
    return evaluate(
        embedder, dataset, settings, device=device, group=group, on_progress=on_progress
    )


def _check_alike(
    query: Mapping[str, Any], gallery: Mapping[str, Any], query_file: str, gallery_file: str
) -> None:
    """Raises DataError if the attributes say that features were extracted in different ways; other
    data sets are a warning, since distractors may be one."""
    names = f"{query_file or 'query'} and {gallery_file or 'gallery'}"
    for key in ("model_sha256", "preprocess", "flip", "clips", "image_backend"):
        first, second = query.get(key), gallery.get(key)
        if first == second or first in (None, "") or second in (None, ""):
            continue
        if key == "model_sha256":
            raise DataError(
                f"{names} contain features of different models. Extract both with the same one"
            )
        raise DataError(
            f"{names} were extracted in different ways: {key} is {first!r} and {second!r}. Extract "
            "both in the same way"
        )
    datasets = query.get("dataset"), gallery.get("dataset")
    if all(datasets) and datasets[0] != datasets[1]:
        log.warning("%s are of different data sets, %s and %s", names, *datasets)


def _read(features: Features | str | Path) -> tuple[str, Features]:
    """(file name or "", features)."""
    if isinstance(features, str | Path):
        return str(features), read_features(features)
    return "", features


def as_embeddings(features: Features, name: str) -> Embeddings:
    """Features for `reidkit.retrieval`; `name` is theirs in error messages.

    Raises:
        DataError: a row is not finite or is zero.
    """
    return Embeddings(features.features, features.pids, features.camids, features.roles, name)


def pool_features(query: Features, images: Features) -> Features:
    """Multi-query (`retrieval.pool_queries`): queries replaced by the mean over all images of
    their identity by their camera.

    Raises:
        DataError: a query has no image.
    """
    pooled = pool_queries(as_embeddings(query, "query"), as_embeddings(images, "multi-query"))
    return dataclasses.replace(query, features=pooled.features)


def percentages(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The main scores of stored `metrics()` in %: mAP, rank-1, rank-5 and rank-10, or
    top-1 and top-5. Missing scores are left out."""
    if metrics.get("task") == "classification":
        return {"top-1": 100 * metrics["top1"], "top-5": 100 * metrics["top5"]}
    cmc = metrics["cmc"]
    values = {"mAP": metrics["mAP"]}
    values |= {f"rank-{k}": cmc[k - 1] for k in (1, 5, 10) if len(cmc) >= k}
    return {name: 100 * value for name, value in values.items() if value is not None}
