"""reidkit demo."""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.options import DeviceOption, JsonOption
from reidkit.cli.output import print_json, print_table
from reidkit.interrupt import Interrupted

if TYPE_CHECKING:
    from reidkit.demo import DemoResult


def demo(
    out: Annotated[Path, typer.Option("--out", help="Output folder.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Random seed of data and training.")] = 0,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Run the whole pipeline on synthetic pedestrians.

    Takes a few minutes on two CPU cores, and needs no data set and no network.

    \b
    Examples:
      reidkit demo
      reidkit demo --out /tmp/demo --seed 1
    """
    from reidkit.cli.training_progress import log_callbacks
    from reidkit.demo import RECIPE, Demo, DemoCallbacks

    def on_stage(stage: str, command: str) -> None:
        print(f"-- {stage}: {command}", file=sys.stderr)

    callbacks = DemoCallbacks(
        on_stage=on_stage, training=log_callbacks(RECIPE.table["schedule"]["epochs"])
    )
    try:
        result = Demo(out, seed=seed, device=device, callbacks=callbacks).run()
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(number, "Run the same command again to restart the demo") from None
    if json:
        print_json(_document(out, result))
    else:
        _print(out, result)


def _document(out: Path, result: DemoResult) -> dict[str, object]:
    return {
        "out": str(out),
        "metrics": {name: metrics.to_dict() for name, metrics in result.metrics.items()},
        "seconds": result.seconds,
        "total_seconds": sum(result.seconds.values()),
        "peak_memory_bytes": result.peak_memory,
        "export_parity": [dataclasses.asdict(parity) for parity in result.parities],
        "files": result.files,
        "synthetic": True,
    }


def _print(out: Path, result: DemoResult) -> None:
    rows = [
        [
            name,
            *(f"{100 * value:.2f}" for value in (metrics.mAP, metrics.mINP)),
            *(f"{100 * metrics.rank(k):.2f}" for k in (1, 5, 10)),
        ]
        for name, metrics in result.metrics.items()
    ]
    print_table(
        ["", "mAP", "mINP", "rank-1", "rank-5", "rank-10"],
        rows,
        title="Test identities, step-wise AP (synthetic data: not comparable with published "
        "numbers)",
    )
    print("\nseconds")
    for stage, seconds in result.seconds.items():
        print(f"  {stage:20} {seconds:7.1f}")
    print(f"  {'total':20} {sum(result.seconds.values()):7.1f}")
    if result.peak_memory is not None:
        print(f"  peak memory {result.peak_memory / 2**30:.1f} GiB")
    worst = max(parity.error for parity in result.parities)
    batches = ", ".join(str(parity.batch) for parity in result.parities)
    print(f"  ONNX against PyTorch at batches {batches}: absolute error <= {worst:.1e}")
    print(f"\nfiles in {out}")
    folders: dict[str, int] = {}
    for file in result.files:
        parent = Path(file).parent.as_posix()
        if file.startswith("data/") and parent != "data":
            folders[parent] = folders.get(parent, 0) + 1
        else:
            print(f"  {file}")
    for folder, count in folders.items():
        print(f"  {folder}/  {count} files")
