"""Distances, rankings, metrics, re-ranking. Pure: features in, numbers out, no model, no file."""

from reidkit.retrieval.embeddings import DISTRACTOR, JUNK, PERSON, ROLES, Embeddings
from reidkit.retrieval.index import RankedLists, top_n
from reidkit.retrieval.protocols import PROTOCOLS, GalleryLabels, Protocol, get_protocol
from reidkit.retrieval.ranking import evaluate, evaluate_distances
from reidkit.retrieval.report import Report
from reidkit.retrieval.rerank import RerankConfig

__all__ = [
    "DISTRACTOR",
    "JUNK",
    "PERSON",
    "PROTOCOLS",
    "ROLES",
    "Embeddings",
    "GalleryLabels",
    "Protocol",
    "RankedLists",
    "Report",
    "RerankConfig",
    "evaluate",
    "evaluate_distances",
    "get_protocol",
    "top_n",
]
