"""reidkit compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reidkit.cli.options import JsonOption
from reidkit.cli.output import print_json, print_table


def compare(
    first: Annotated[Path, typer.Argument(help="Run folder or metrics.json of reidkit eval.")],
    second: Annotated[Path, typer.Argument(help="Run folder or metrics.json of the other model.")],
    dataset: Annotated[
        str | None, typer.Option(help="Data set.", show_default="the first in both results")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Test whether two models differ by more than chance.

    Differences of mAP, mINP and rank-1 are tested by a paired randomisation test over identities.

    \b
    Examples:
      reidkit compare runs/x runs/y
      reidkit compare runs/x/metrics.json other/metrics.json --dataset market1501
    """
    from reidkit import retrieval
    from reidkit.errors import DataError
    from reidkit.retrieval.metrics import AP_NAMES

    results = [read_results(path) for path in (first, second)]
    shared = [name for name in results[0] if name in results[1]]
    if dataset is not None:
        shared = [name for name in shared if name == dataset]
    if dataset is not None and not shared:
        raise DataError(f"{first} and {second} were not both evaluated on {dataset}")
    if not shared:
        raise DataError(
            f"{first} was evaluated on {', '.join(results[0])}, {second} on "
            f"{', '.join(results[1])}: no data set in common. "
            "Run: reidkit eval MODEL --dataset NAME"
        )
    name = shared[0]
    if results[0][name].get("task") == "classification":
        raise DataError(f"{name} is a classification data set: compare tests retrieval metrics")
    tests = retrieval.compare(results[0][name], results[1][name])
    ap = results[0][name]["ap"]
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
    print_table(header, rows, title=f"{first} and {second} on {name}")
    test = tests["mAP"]
    verdict = "is" if test.p_value < 0.05 else "is not"
    print(
        f"the difference in mAP {verdict} significant at 5 % "
        f"({test.queries:,} queries of {test.identities:,} identities, {AP_NAMES[ap]})"
    )


def read_results(path: Path) -> dict[str, Any]:
    """Results in a metrics.json by data set name.

    Raises:
        DataError: the file is missing or was not written by `reidkit eval`.
    """
    import json

    from reidkit.errors import DataError

    file = path / "metrics.json" if path.is_dir() else path
    try:
        results = json.loads(file.read_text())["results"]
        return {result["dataset"]: result for result in results}
    except FileNotFoundError as error:
        is_run = (path / "model.safetensors").is_file()
        advice = f"Run: reidkit eval {path}" if is_run else "Pass a run folder or a metrics.json"
        raise DataError(f"{file} does not exist. {advice}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} was not written by reidkit eval. Run: reidkit eval MODEL --dataset NAME -o "
            f"{file.parent}"
        ) from error
