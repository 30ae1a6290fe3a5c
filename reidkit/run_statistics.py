"""Mean and standard deviation of results over several runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reidkit.evaluation import Evaluation, EvaluationResult, percentages


@dataclass(frozen=True)
class RunStatistics:
    """Scores of several runs on one data set, or on its splits.

    Attributes:
        dataset: its name without the split.
        ranking: "plain" or "re-ranked"; "" for classification.
        values: by metric, one number in % per run.
    """

    dataset: str
    ranking: str
    values: Mapping[str, Sequence[float]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        runs = len(next(iter(self.values.values()), ()))
        scores = {
            name: dict(zip(("mean", "std"), mean_and_std(values), strict=True))
            for name, values in self.values.items()
        }
        return {"dataset": self.dataset, "ranking": self.ranking, "runs": runs, **scores}


def run_statistics(results: Sequence[EvaluationResult]) -> list[RunStatistics]:
    """Statistics of every data set with at least two results; its splits (`name@3`) count as one
    data set."""
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for result in results:
        dataset = result.dataset.partition("@")[0]
        if isinstance(result, Evaluation):
            for name, metrics in result.rankings.items():
                groups.setdefault((dataset, name), []).append(percentages(metrics.to_dict()))
        else:
            groups.setdefault((dataset, ""), []).append(percentages(result.metrics()))
    return [
        RunStatistics(
            dataset,
            ranking,
            {name: [run[name] for run in runs] for name in runs[0] if all(name in r for r in runs)},
        )
        for (dataset, ranking), runs in groups.items()
        if len(runs) > 1
    ]


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN without values, and for the spread of one value."""
    mean = statistics.fmean(values) if values else float("nan")
    return mean, statistics.stdev(values) if len(values) > 1 else float("nan")
