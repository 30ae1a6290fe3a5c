"""What reidkit eval prints and writes."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit.cli.output import mean_cell, print_table
from reidkit.cli.runs import store_results
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.evaluation import EvaluationResult
    from reidkit.run_statistics import RunStatistics

log = logging.getLogger(__name__)


def with_distinct_names(results: Sequence[EvaluationResult]) -> list[EvaluationResult]:
    """Results with the start of the fingerprint appended to the name if data sets share it."""
    fingerprints: dict[str, set[str]] = {}
    for result in results:
        fingerprints.setdefault(result.dataset, set()).add(result.dataset_fingerprint)
    return [
        dataclasses.replace(result, dataset=f"{result.dataset}-{result.dataset_fingerprint[:8]}")
        if len(fingerprints[result.dataset]) > 1
        else result
        for result in results
    ]


def write_results(folder: Path, results: Sequence[EvaluationResult]) -> None:
    """Adds to metrics.json, and for retrieval writes curves-<data set>.png, with the file's name
    in it for an exported model, which lies beside its checkpoint."""
    from reidkit.evaluation import Evaluation
    from reidkit.visualize.plots import plot_curves

    store_results(folder, results)
    for result in results:
        if isinstance(result, Evaluation):
            model = Path(result.model)
            exported = f"-{model.stem}-onnx" if model.suffix == ".onnx" else ""
            path = folder / f"curves-{result.dataset}{exported}.png"
            title = f"{result.model or 'features'} on {result.dataset}"
            plot_curves(result.rankings, path, title=title)
            log.info("%s", path)


def write_all_failures(file: Path, results: Sequence[EvaluationResult]) -> None:
    """Writes the queries of one evaluation.

    Raises:
        ConfigError: there are several, or it is a classification.
    """
    from reidkit.evaluation import Evaluation
    from reidkit.query_results import write_failures

    if len(results) != 1 or not isinstance(results[0], Evaluation):
        raise ConfigError("--failures takes one model on one re-identification data set")
    write_failures(file, results[0].queries)


def print_results(results: Sequence[EvaluationResult]) -> None:
    """Prints one table per task, and what the numbers are based on."""
    from reidkit.evaluation import Evaluation
    from reidkit.retrieval.metrics import AP_NAMES

    first = results[0]
    source = first.query_features if isinstance(first, Evaluation) else ""
    models = list(dict.fromkeys(result.model for result in results))
    for columns in dict.fromkeys(result.columns for result in results):
        shown = [result for result in results if result.columns == columns]
        if len(models) == 1:
            rows = [row for result in shown for row in result.rows()]
            print_table(list(columns), rows, title=source or first.model)
        else:
            rows = [[result.model, *row] for result in shown for row in result.rows()]
            print_table(["model", *columns], rows, title=f"{len(models)} models")
    for result in results:
        if isinstance(result, Evaluation):
            plain, point = result.plain, result.operating_point
            print(
                f"{result.dataset}: protocol {plain.protocol}, {plain.metric}, "
                f"{AP_NAMES[plain.ap]}; {plain.queries:,} queries "
                f"({plain.queries_without_match} without a match), "
                f"{plain.gallery_size:,} gallery items and {plain.junk:,} junk"
            )
            if point is not None:
                print(
                    f"{result.dataset}: same identity below distance {point.threshold:.4f}: true "
                    f"positive rate {100 * point.tpr:.2f} %, false {100 * point.fpr:.4f} %"
                )
        if result.synthetic:
            print("synthetic data: not comparable with published numbers", file=sys.stderr)


def print_means(means: Sequence[RunStatistics]) -> None:
    """Prints mean and standard deviation of several runs, one table per set of metrics."""
    from reidkit.run_statistics import mean_and_std

    for metrics in dict.fromkeys(tuple(mean.values) for mean in means):
        rows = [
            [
                mean.dataset,
                mean.ranking,
                str(len(next(iter(mean.values.values())))),
                *(mean_cell(*mean_and_std(mean.values[name])) for name in metrics),
            ]
            for mean in means
            if tuple(mean.values) == metrics
        ]
        title = "mean ± standard deviation"
        print_table(["data set", "", "runs", *metrics], rows, title=title)
