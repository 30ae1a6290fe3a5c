"""reidkit compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reidkit.cli.options import JsonOption
from reidkit.cli.output import print_json, print_table


def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder, or a metrics.json of eval.")],
    second: Annotated[Path, typer.Argument(help="Another one, judged on the same data set.")],
    dataset: Annotated[
        str | None, typer.Option(help="Which data set. [default: the first they share]")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Is the second better than the first, or is it noise? A paired test over identities."""
    from reidkit import retrieval
    from reidkit.errors import DataError

    results = [read_results(path) for path in (first, second)]
    shared = [name for name in results[0] if name in results[1]]
    if dataset is not None:
        shared = [name for name in shared if name == dataset]
    if not shared:
        raise DataError(
            f"{first} was judged on {', '.join(results[0])}, {second} on {', '.join(results[1])}: "
            "no data set in common. Run: reidkit eval MODEL --dataset NAME"
        )
    name = shared[0]
    tests = retrieval.compare(results[0][name], results[1][name])
    if json:
        tables = {score: vars(test) for score, test in tests.items()}
        print_json({"first": str(first), "second": str(second), "dataset": name, "tests": tables})
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
    verdict = "differ" if test.p_value < 0.05 else "do not differ by more than chance"
    print(f"in mAP they {verdict} ({test.queries:,} queries of {test.identities:,} identities)")


def read_results(path: Path) -> dict[str, Any]:
    """What `eval` wrote, by data set.

    Raises:
        DataError: if there is none, or it is not eval's.
    """
    import json

    from reidkit.errors import DataError

    file = path / "metrics.json" if path.is_dir() else path
    try:
        results = json.loads(file.read_text())["results"]
        return {result["dataset"]: result for result in results}
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing. Run: reidkit eval {path} --dataset NAME") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} was not written by reidkit eval") from error
