"""Distances, rankings, metrics, re-ranking and search on features: no models, no files."""

from reidkit.retrieval.embeddings import DISTRACTOR, JUNK, PERSON, Embeddings
from reidkit.retrieval.metrics import CameraPair, RetrievalMetrics
from reidkit.retrieval.protocols import PROTOCOLS, GalleryLabels, Protocol, get_protocol
from reidkit.retrieval.ranking import RankingConfig, compute_metrics, metrics_from_distances
from reidkit.retrieval.rerank import RerankConfig
from reidkit.retrieval.search import (
    RankedLists,
    augment_database,
    expand_queries,
    pool_queries,
    top_n,
)
from reidkit.retrieval.significance import Interval, PairedTest, bootstrap, compare, paired_test
from reidkit.retrieval.thresholds import IdentificationPoint, OperatingPoint, PairStatistics

__all__ = [
    "DISTRACTOR",
    "JUNK",
    "PERSON",
    "PROTOCOLS",
    "CameraPair",
    "Embeddings",
    "GalleryLabels",
    "IdentificationPoint",
    "Interval",
    "OperatingPoint",
    "PairStatistics",
    "PairedTest",
    "Protocol",
    "RankedLists",
    "RankingConfig",
    "RerankConfig",
    "RetrievalMetrics",
    "augment_database",
    "bootstrap",
    "compare",
    "compute_metrics",
    "expand_queries",
    "get_protocol",
    "metrics_from_distances",
    "paired_test",
    "pool_queries",
    "top_n",
]
