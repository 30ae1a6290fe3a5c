"""Distances, rankings, metrics, re-ranking. Pure: features in, numbers out, no model, no file."""

from reidkit.retrieval.embeddings import DISTRACTOR, JUNK, PERSON, Embeddings
from reidkit.retrieval.expansion import augment_database, expand_queries, pool_queries
from reidkit.retrieval.index import RankedLists, top_n
from reidkit.retrieval.pairs import IdentificationPoint, OperatingPoint, PairStatistics
from reidkit.retrieval.plan import Forecast, Plan, forecast, make_plan
from reidkit.retrieval.protocols import PROTOCOLS, GalleryLabels, Protocol, get_protocol
from reidkit.retrieval.ranking import evaluate, evaluate_distances
from reidkit.retrieval.report import CameraPair, Report
from reidkit.retrieval.rerank import RerankConfig
from reidkit.retrieval.significance import Interval, PairedTest, bootstrap, compare, paired_test

__all__ = [
    "DISTRACTOR",
    "JUNK",
    "PERSON",
    "PROTOCOLS",
    "CameraPair",
    "Embeddings",
    "Forecast",
    "GalleryLabels",
    "IdentificationPoint",
    "Interval",
    "OperatingPoint",
    "PairStatistics",
    "PairedTest",
    "Plan",
    "Protocol",
    "RankedLists",
    "Report",
    "RerankConfig",
    "augment_database",
    "bootstrap",
    "compare",
    "evaluate",
    "evaluate_distances",
    "expand_queries",
    "forecast",
    "get_protocol",
    "make_plan",
    "paired_test",
    "pool_queries",
    "top_n",
]
