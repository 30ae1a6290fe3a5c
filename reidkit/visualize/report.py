"""A run as one HTML page that loads nothing: curves, scores, failures, data, settings."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import reidkit
from reidkit import checkpoint
from reidkit.data.schema import Manifest
from reidkit.evaluation import Evaluation, percentages
from reidkit.files import atomic
from reidkit.retrieval import OperatingPoint
from reidkit.types import SPLITS, Dataset, Item, Tracklet, frames
from reidkit.visualize.images import thumbnail
from reidkit.visualize.model_card import results_of_training, rule_of
from reidkit.visualize.page import render_page
from reidkit.visualize.ranked_lists import SIGNS, RankedRow
from reidkit.visualize.report_attention import AttentionExample
from reidkit.visualize.report_charts import (
    Chart,
    cmc_chart,
    distance_chart,
    roc_chart,
    training_charts,
)
from reidkit.visualize.report_settings import RunSettings

THUMBNAIL = (144, 72)
"""(height, width) in pixels of the images of ranked lists."""
INTERVALS = ("mAP", "mINP", "rank-1")
"""Scores whose interval is shown beside them."""


@dataclass(frozen=True)
class ReportSource:
    """What a report is written from.

    Attributes:
        run: name of the run folder, or of the checkpoint file.
        header: of the checkpoint.
        sha256: of the checkpoint file, hexadecimal.
        history: the records of metrics.jsonl.
        log: the first line of train.log, which names precision and PyTorch; "" without one.
        results: documents of `reidkit eval` for this checkpoint, newest last.
        evaluation: with thresholds and camera pairs; None: `results` are shown only.
        point: the verification threshold of `evaluation`.
        dataset: the data set that was evaluated; None: `counts` are shown.
        counts: `[dataset]` of config.toml.
        manifest: of the training data; None if it cannot be found.
        lists: ranked lists of the worst queries.
        attention: examples of part attention.
        settings: None for an imported checkpoint.
        commands: that repeat the run.
        missing: what the report leaves out, and how to get it.
    """

    run: str
    header: checkpoint.Header
    sha256: str
    history: Sequence[Mapping[str, Any]] = ()
    log: str = ""
    results: Sequence[Mapping[str, Any]] = ()
    evaluation: Evaluation | None = None
    point: OperatingPoint | None = None
    dataset: Dataset | None = None
    counts: Mapping[str, Any] | None = None
    manifest: Manifest | None = None
    lists: Sequence[RankedRow] = ()
    attention: Sequence[AttentionExample] = ()
    settings: RunSettings | None = None
    commands: Sequence[str] = ()
    missing: Sequence[str] = ()

    def documents(self) -> list[Mapping[str, Any]]:
        """Results, the one that the charts show first."""
        stored = list(reversed(self.results))
        if self.evaluation is None:
            return [*(stored or results_of_training(self.header))]
        own = self.evaluation.to_dict()
        key = (own["dataset"], own["rule"])
        return [own, *(r for r in stored if (r["dataset"], rule_of(r)) != key or r.get("reranked"))]


def write_report(path: Path, source: ReportSource) -> None:
    """Writes the page.

    Raises:
        DataError: an image of a ranked list cannot be read.
    """
    documents = source.documents()
    shown = documents[0] if documents else {}
    header, splits = source.header, _splits(source.dataset)
    page = render_page(
        "report.html",
        title=f"{header.arch}{' on ' + header.dataset if header.dataset else ''}",
        source=source,
        header=header,
        scores=_headline(shown, source.point),
        columns=list(dict.fromkeys(name for row in documents for name in _scores(row))),
        results=_result_rows(documents),
        rates=(shown.get("pairs") or {}).get("tpr_at_fpr", ()),
        training=training_charts(source.history),
        charts=_evaluation_charts(source, documents),
        cameras=_camera_table(shown.get("cameras") or ()),
        splits=splits,
        video=any(split.tracklets for split in splits),
        data=_data_rows(source),
        environment=_environment(source),
        thumbnail=lambda file: thumbnail(file, THUMBNAIL),
        signs=SIGNS,
    )
    with atomic(path) as partial:
        partial.write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class _Score:
    """A number with its interval or explanation."""

    name: str
    value: str
    note: str = ""


def _scores(document: Mapping[str, Any]) -> dict[str, _Score]:
    """Scores of a result in %, by name."""
    values = percentages(document)
    if document.get("mINP") is not None:
        first, *rest = values.items()
        values = dict([first, ("mINP", 100 * document["mINP"]), *rest])
    intervals = document.get("intervals") or {}
    scores = {}
    for name, value in values.items():
        note = ""
        if bounds := intervals.get(name):
            note = f"{100 * bounds['low']:.1f} to {100 * bounds['high']:.1f}"
        scores[name] = _Score(name, f"{value:.1f}", note)
    return scores


def _headline(document: Mapping[str, Any], point: OperatingPoint | None) -> list[_Score]:
    """The scores in large figures at the top."""
    scores = _scores(document) if document else {}
    chosen = [scores[name] for name in (*INTERVALS, "top-1", "top-5") if name in scores]
    if point is not None:
        note = f"at {100 * point.target:g} % false positives"
        chosen.append(_Score("true positives", f"{100 * point.tpr:.1f}", note))
    return chosen


@dataclass(frozen=True)
class _ResultRow:
    """A line of the table of results."""

    dataset: str
    rule: str
    scores: Mapping[str, _Score]


def _result_rows(documents: Sequence[Mapping[str, Any]]) -> list[_ResultRow]:
    rows: dict[tuple[str, str], _ResultRow] = {}
    for document in documents:
        rule, dataset = rule_of(document), str(document["dataset"])
        rankings = {rule: document}
        if document.get("reranked"):
            rankings[f"{rule}, re-ranked"] = document["reranked"]
        for name, ranking in rankings.items():
            rows.setdefault((dataset, name), _ResultRow(dataset, name, _scores(ranking)))
    return list(rows.values())


def _evaluation_charts(source: ReportSource, documents: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """CMC of the first result, and of the newest re-ranking on its data; ROC and distances."""
    charts = []
    shown = documents[0] if documents else {}
    if any(value is not None for value in shown.get("cmc") or ()):
        curves = {"ranking by distance": shown["cmc"]}
        for document in documents:
            if document["dataset"] == shown["dataset"] and document.get("reranked"):
                curves.setdefault("re-ranked", document["reranked"]["cmc"])
        charts.append(cmc_chart(curves))
    if source.evaluation is not None and source.point is not None:
        pairs = source.evaluation.plain.pairs
        assert pairs is not None, "thresholds were requested"
        charts += [roc_chart(pairs, source.point), distance_chart(pairs, source.point)]
    return charts


@dataclass(frozen=True)
class _CameraTable:
    """mAP by pair of cameras.

    Attributes:
        cells: by (query camera, gallery camera); pairs without a query are missing.
    """

    query: list[int]
    gallery: list[int]
    cells: Mapping[tuple[int, int], Mapping[str, Any]]


def _camera_table(pairs: Sequence[Mapping[str, Any]]) -> _CameraTable | None:
    cells = {(pair["query_camid"], pair["gallery_camid"]): pair for pair in pairs}
    if not cells:
        return None
    return _CameraTable(
        query=sorted({query for query, _ in cells}),
        gallery=sorted({gallery for _, gallery in cells}),
        cells=cells,
    )


@dataclass(frozen=True)
class _SplitCounts:
    """Counts of one split.

    Attributes:
        tracklets: 0 for a data set of images.
        images: including those of tracklets.
        people, cameras: without junk and distractors.
    """

    name: str
    tracklets: int
    images: int
    people: int
    cameras: int
    junk: int
    distractors: int


def _splits(dataset: Dataset | None) -> list[_SplitCounts]:
    if dataset is None:
        return []
    return [_count(split, getattr(dataset, split)) for split in SPLITS if getattr(dataset, split)]


def _count(name: str, items: Sequence[Item]) -> _SplitCounts:
    persons = [item for item in items if item.role == "person"]
    roles = [item.role for item in items]
    return _SplitCounts(
        name=name,
        tracklets=sum(isinstance(item, Tracklet) for item in items),
        images=sum(1 for _ in frames(items)),
        people=len({item.pid for item in persons}),
        cameras=len({item.camid for item in persons}),
        junk=roles.count("junk"),
        distractors=roles.count("distractor"),
    )


def _data_rows(source: ReportSource) -> list[tuple[str, str]]:
    """Name and value of what is known about the data."""
    header, manifest, dataset = source.header, source.manifest, source.dataset
    rows = [("trained on", header.dataset or "not known")]
    if manifest is not None:
        rows += [("title", manifest.title), ("home page", manifest.home)]
        unknown = "" if header.synthetic else "not known; ask the owner of the data"
        rows.append(("licence", manifest.licence or unknown))
    rows.append(("synthetic", "yes, rendered by reidkit" if header.synthetic else "no"))
    rows.append(("training identities", f"{header.num_ids:,}" if header.num_ids else ""))
    rows.append(("fingerprint", header.fingerprint))
    if dataset is None:
        counts = source.counts or {}
        rows += [(split, f"{counts[split]:,} items") for split in SPLITS if split in counts]
    elif dataset.fingerprint != header.fingerprint:
        rows += [("evaluated on", dataset.name), ("its fingerprint", dataset.fingerprint)]
    if dataset is not None:
        rows.append(("protocol", dataset.protocol))
    return [(name, value) for name, value in rows if value]


def _environment(source: ReportSource) -> list[tuple[str, str]]:
    import torch

    header = source.header
    versions = {"Python": platform.python_version(), "PyTorch": torch.__version__}
    versions["NumPy"] = np.__version__
    rows = [
        ("checkpoint", f"sha256 {source.sha256}"),
        ("trained with", f"reidkit {header.reidkit}" + (f", git {header.git}" * bool(header.git))),
        ("training log", source.log),
        ("report by", f"reidkit {reidkit.__version__}, {platform.platform()}"),
        ("with", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, value) for name, value in rows if value]
