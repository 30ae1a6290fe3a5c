"""What a report contains: collected from a run folder, its data set and one evaluation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reidkit.cli.options import open_data
from reidkit.cli.output import progress, stage_progress
from reidkit.cli.report import find_training_manifest, results_of
from reidkit.cli.runs import run_folder, trained_on
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation import Evaluation, EvaluationSettings, evaluate_features
from reidkit.features import Features, read_features
from reidkit.retrieval import OperatingPoint, RankingConfig
from reidkit.runtime.torch_embedder import TorchEmbedder
from reidkit.visualize.report import ReportSource

if TYPE_CHECKING:
    from reidkit.checkpoint import Header
    from reidkit.types import Dataset
    from reidkit.visualize.ranked_lists import RankedRow
    from reidkit.visualize.report_attention import AttentionExample
    from reidkit.visualize.report_settings import RunSettings

log = logging.getLogger(__name__)

ATTENTION_EXAMPLES = 6


@dataclass(frozen=True)
class ReportOptions:
    """The options of `reidkit report`.

    Attributes:
        dataset: None: the one of the training.
        features: files of query and gallery, to embed nothing.
        images: whether the data set is read: for evaluation without `features`, and for pictures.
        worst: number of ranked lists.
        target_fpr: false positive rate of the threshold.
    """

    dataset: str | None
    data_root: Path | None
    features: tuple[Path, Path] | None
    images: bool
    worst: int
    target_fpr: float
    batch: int | None
    device: str


@dataclass(frozen=True)
class _Evaluated:
    """Query and gallery of one evaluation."""

    query: Features
    gallery: Features
    evaluation: Evaluation


def report_source(path: Path, options: ReportOptions) -> ReportSource:
    """Everything that the report of a checkpoint shows.

    Raises:
        ConfigError: the data set of the training is not known, or is missing.
        DataError: an image or a features file cannot be read, or is of another model.
    """
    from reidkit.checkpoint import read_header
    from reidkit.files import sha256

    header, digest, run = read_header(path), sha256(path), run_folder(path)
    table, counts = _settings_table(run, header)
    data_name = options.dataset or (trained_on(path) if header.dataset else "")
    data = _open(path, data_name, options)
    missing = []
    evaluated, lists, attention = None, [], []
    if data is not None and data.task == "classification":
        missing.append("A classification data set: it has no ranked lists.")
    elif data is not None or options.features is not None:
        embedder = _load(path, options.device)
        evaluated = _evaluate(embedder, data, table.get("test", {}), options)
        if data is not None and options.worst:
            lists = _worst(evaluated, data, options.worst)
        if data is not None:
            attention = _attention(embedder, evaluated, data)
    if not options.images:
        command = f"reidkit report {path.parent if run else path}"
        missing.append(f"Made without the images of the data set. With them: {command}")
    settings = _settings(header, table)
    return ReportSource(
        run=str(path.parent if run else path),
        header=header,
        sha256=digest,
        history=_history(run),
        log=_first_line(run),
        results=results_of(path, digest),
        evaluation=None if evaluated is None else evaluated.evaluation,
        point=None if evaluated is None else _threshold(evaluated.evaluation, options.target_fpr),
        dataset=data,
        counts=counts,
        manifest=find_training_manifest(path, header),
        lists=lists,
        attention=attention,
        settings=settings,
        commands=_commands(header, table, settings, data_name),
        missing=missing,
    )


def _settings_table(
    run: Path | None, header: Header
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(the settings as a nested table, `[dataset]` of config.toml); empty and None where there is
    none."""
    from reidkit.config import read_toml

    if run is None:
        return ({} if "imported" in header.recipe else dict(header.recipe)), None
    table = read_toml(run / "config.toml")
    counts = table.pop("dataset", None)
    return table, counts


def _settings(header: Header, table: dict[str, Any]) -> RunSettings | None:
    from reidkit.visualize.report_settings import compare_with_recipe

    if not table:
        return None
    return compare_with_recipe(table, arch=header.arch, dataset=header.dataset)


def _commands(
    header: Header, table: dict[str, Any], settings: RunSettings | None, data: str
) -> list[str]:
    from reidkit.visualize.report_settings import commands

    if settings is None or not data:
        return []
    return commands(settings, table, arch=header.arch, dataset=header.dataset, data=data)


def _threshold(evaluation: Evaluation, target_fpr: float) -> OperatingPoint | None:
    """The verification threshold; None where all pairs are of one kind."""
    pairs = evaluation.plain.pairs
    if pairs is None or not pairs.same.any() or not pairs.other.any():
        return None
    return pairs.operating_point(target_fpr)


def _open(path: Path, name: str, options: ReportOptions) -> Dataset | None:
    if not options.images:
        return None
    if not name:
        raise ConfigError(
            f"{path} does not contain the data set it was trained on. "
            f"Run: reidkit report {path} --dataset NAME, or add --no-images"
        )
    try:
        return open_data(name, options.data_root)
    except DataError as error:
        folder = path.parent if run_folder(path) else path
        raise DataError(
            f"{error}. Pass the data set's folder: reidkit report {folder} --dataset FOLDER. A "
            "report without images needs none: --no-images"
        ) from error


def _load(path: Path, device: str) -> TorchEmbedder:
    from reidkit.runtime.embedder import load_embedder

    embedder = load_embedder(path, device=device)
    assert isinstance(embedder, TorchEmbedder), "a checkpoint"
    return embedder


def _evaluate(
    embedder: TorchEmbedder,
    data: Dataset | None,
    test: dict[str, Any],
    options: ReportOptions,
) -> _Evaluated:
    """Metric and flip are those of the training's own evaluation, the table `[test]`."""
    settings = EvaluationSettings(
        metric=test.get("metric", "cosine"),
        flip=test.get("flip", False),
        thresholds=True,
        by_camera=True,
        batch=options.batch,
    )
    if options.features is not None:
        query, gallery = (_read(file, embedder.source_hash) for file in options.features)
    else:
        assert data is not None, "without features there is a data set"
        query, gallery = _extract(embedder, data, settings)
    with stage_progress() as on_progress:
        evaluation = evaluate_features(
            query, gallery, settings, device=embedder.device, on_progress=on_progress
        )
    return _Evaluated(query, gallery, evaluation)


def _extract(
    embedder: TorchEmbedder, data: Dataset, settings: EvaluationSettings
) -> list[Features]:
    from reidkit.runtime.extraction import extract_split
    from reidkit.types import Split

    log.info("ranked lists and distances need features: embedding query and gallery once")
    splits: tuple[Split, ...] = ("query", "gallery")
    found = []
    for split in splits:
        with progress(f"embedding {data.name} {split}") as on_progress:
            found.append(extract_split(embedder, data, split, settings, on_progress=on_progress))
    return found


def _read(file: Path, source_hash: str) -> Features:
    features = read_features(file)
    if features.attributes.get("model_sha256") != source_hash:
        raise DataError(
            f"{file} was not extracted by this checkpoint. Run: reidkit extract MODEL --dataset "
            f"NAME --split SPLIT -o {file}"
        )
    return features


def _worst(evaluated: _Evaluated, data: Dataset, count: int) -> list[RankedRow]:
    from reidkit.visualize.ranks import choose_rows, ranked_rows

    plain = evaluated.evaluation.plain
    aps = plain.average_precision
    if np.isnan(aps).all():
        return []
    return ranked_rows(
        evaluated.query,
        evaluated.gallery,
        choose_rows(evaluated.query, aps, worst=count),
        root=data.root,
        config=RankingConfig(plain.protocol, metric=plain.metric),
        aps=aps,
    )


def _attention(
    embedder: TorchEmbedder, evaluated: _Evaluated, data: Dataset
) -> list[AttentionExample]:
    """Part attention of the best and the worst queries."""
    from reidkit.visualize.ranks import choose_rows
    from reidkit.visualize.report_attention import attention_examples

    aps = evaluated.evaluation.plain.average_precision
    if np.isnan(aps).all():
        return []
    half = ATTENTION_EXAMPLES // 2
    rows = choose_rows(evaluated.query, aps, best=half, worst=half).tolist()
    paths = [evaluated.query.paths[row] for row in rows]
    captions = [f"{p}, AP {100 * aps[row]:.1f}" for p, row in zip(paths, rows, strict=True)]
    return attention_examples(embedder, [data.root / p for p in paths], captions)


def _history(run: Path | None) -> list[dict[str, Any]]:
    from reidkit.training.logging import read_history

    return [] if run is None else read_history(run)


def _first_line(run: Path | None) -> str:
    file = None if run is None else run / "train.log"
    if file is None or not file.is_file():
        return ""
    with file.open(encoding="utf-8") as lines:
        return lines.readline().strip()
