"""reidkit compare."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from reidkit.cli.options import DataRootOption, JsonOption
from reidkit.cli.output import print_json, print_table


def compare(
    first: Annotated[Path, typer.Argument(help="Run folder or metrics.json of reidkit eval.")],
    second: Annotated[Path, typer.Argument(help="Run folder or metrics.json of the other model.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set name, manifest file or folder.", show_default="the first in both results"
        ),
    ] = None,
    data_root: DataRootOption = None,
    json: JsonOption = False,
) -> None:
    """Test whether two models differ by more than chance.

    Differences of mAP, mINP and rank-1 are tested by a paired randomisation test over identities.

    \b
    Examples:
      reidkit compare runs/x runs/y
      reidkit compare runs/x/metrics.json other/metrics.json --dataset market1501
    """
    from reidkit.cli.runs import read_results
    from reidkit.errors import DataError

    results = [read_results(path) for path in (first, second)]
    if dataset is not None:
        dataset = stored_name(dataset, data_root, results[0] + results[1])
    pair = find_pair(results, dataset)
    if pair is None:
        evaluated = (
            ", ".join(dict.fromkeys(f"{r['dataset']} ({r.get('rule')})" for r in found))
            for found in results
        )
        raise DataError(
            f"{first} was evaluated on {next(evaluated)}; {second} on {next(evaluated)}: nothing "
            "in common. Run: reidkit eval MODEL --dataset NAME, with the same options"
        )
    name, ap = str(pair[0]["dataset"]), str(pair[0].get("ap"))
    if pair[0].get("task") == "classification":
        raise DataError(f"{name} is a classification data set: compare tests retrieval metrics")

    from reidkit import retrieval
    from reidkit.retrieval.metrics import AP_NAMES

    tests = retrieval.compare(*pair)
    if json:
        tables = {score: vars(test) for score, test in tests.items()}
        document = {"first": str(first), "second": str(second), "dataset": name, "ap": ap}
        print_json({**document, "tests": tables})
        return
    rows = [
        [
            score,
            f"{100 * test.first:.2f}",
            f"{100 * test.second:.2f}",
            f"{100 * test.difference:+.2f}",
            f"{100 * test.low:+.2f} to {100 * test.high:+.2f}",
            f"{test.p_value:.4f}",
        ]
        for score, test in tests.items()
    ]
    header = ["", "first", "second", "difference", "95 %", "p"]
    print_table(header, rows, title=f"{first} and {second} on {name}: {pair[0]['rule']}")
    test = tests["mAP"]
    verdict = "is" if test.p_value < 0.05 else "is not"
    print(
        f"the difference in mAP {verdict} significant at 5 % "
        f"({test.queries:,} queries of {test.identities:,} identities, {AP_NAMES[ap]})"
    )


def stored_name(dataset: str, data_root: Path | None, results: list[dict[str, Any]]) -> str:
    """The name by which results are stored of a data set given by name, manifest file or folder.

    Raises:
        DataError: there is no such data set, or no result on it.
    """
    from reidkit.data.manifest import open_dataset
    from reidkit.errors import DataError

    names = dict.fromkeys(str(result["dataset"]) for result in results)
    if dataset in names:
        return dataset
    data = open_dataset(dataset, data_root)
    for result in results:
        if result.get("dataset_fingerprint") == data.fingerprint:
            return str(result["dataset"])
    raise DataError(
        f"no result on {dataset}; there are results on {', '.join(names) or 'nothing'}. "
        f"Run: reidkit eval MODEL --dataset {shlex.quote(dataset)}"
    )


def find_pair(
    results: list[list[dict[str, Any]]], dataset: str | None
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The newest results of two models on the same data set by the same rule, those of checkpoints
    before those of exported models."""
    for name in dict.fromkeys(r["dataset"] for r in results[0] if dataset in (None, r["dataset"])):
        first, second = (
            sorted(
                (r for r in found if r["dataset"] == name),
                key=lambda result: not str(result.get("model")).endswith(".onnx"),
            )
            for found in results
        )
        for one in reversed(first):
            for other in reversed(second):
                if one.get("rule") == other.get("rule"):
                    return one, other
    return None
