"""reidkit datasets: list, show, verify, stats, init, subset, unpack, synth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, get_args

import typer

from reidkit.choices import SyntheticLayout
from reidkit.cli.datasets_create import INIT_PANELS, DatasetArgument, init, subset, unpack
from reidkit.cli.options import DataRootOption, JsonOption, option_panels
from reidkit.cli.output import print_json, progress

app = typer.Typer(
    help="List, verify, create and generate data sets.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

LAYOUT_NAMES: tuple[SyntheticLayout, ...] = get_args(SyntheticLayout)


@app.command("list")
def list_(json: JsonOption = False) -> None:
    """List the data sets that can be used by name.

    \b
    Examples:
      reidkit datasets list
    """
    from reidkit.data.manifest import list_manifests, load_manifest

    manifests = [load_manifest(path) for path in list_manifests().values()]
    if json:
        print_json([dataclasses.asdict(manifest) for manifest in manifests])
        return
    for manifest in manifests:
        print(f"{manifest.name:24} {manifest.title}")
        if manifest.note:
            print(f"{'':24} {manifest.note}")


@app.command()
def show(dataset: DatasetArgument, json: JsonOption = False) -> None:
    """Print the manifest of a data set.

    \b
    Examples:
      reidkit datasets show market1501
    """
    from reidkit.config import to_toml
    from reidkit.data.manifest import find_manifest, load_manifest

    manifest = load_manifest(find_manifest(dataset))
    if json:
        print_json(dataclasses.asdict(manifest))
        return
    print(to_toml(dataclasses.asdict(manifest)), end="")


@app.command()
def verify(
    dataset: DatasetArgument,
    data_root: DataRootOption = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every image as well.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare a data set on disk with the counts of its manifest.

    These are the published ones, unless the data set's folder contains a manifest.toml, as
    synthetic data sets and your own do. The exit status is 2 if a count differs or an image cannot
    be decoded.

    \b
    Examples:
      reidkit datasets verify market1501 --data-root /data
      reidkit datasets verify photos/ --deep
    """
    from reidkit.data.manifest import MANIFEST, list_manifests, locate, read_dataset
    from reidkit.data.verify import unreadable
    from reidkit.data.verify import verify as check_counts
    from reidkit.errors import DataError

    manifest, root = locate(dataset, data_root)
    data = read_dataset(manifest, root)
    checks = check_counts(manifest, data)
    problems: list[str] = []
    if deep:
        with progress("decoding images") as on_progress:
            problems = unreadable(data, on_progress=on_progress)
    wrong = [check for check in checks if not check.passed]
    own_manifest = None if data.folder is None else str(data.folder / MANIFEST)
    if json:
        print_json(
            {
                "dataset": manifest.name,
                "root": str(root),
                "synthetic": manifest.synthetic,
                "own_manifest": own_manifest,
                "checks": [{**dataclasses.asdict(c), "passed": c.passed} for c in checks],
                "unreadable": problems if deep else None,
                "passed": not wrong and not problems,
            }
        )
    else:
        print(f"{manifest.name} in {root}")
        if own_manifest is not None:
            is_published = manifest.name.partition("@")[0] in list_manifests()
            what = ", synthetic data" if manifest.synthetic else ""
            print(
                f"  expected counts: {own_manifest}{what}"
                + (f"; not the published counts of {manifest.name}" if is_published else "")
            )
        print(f"  {'split':8} {'count':28} {'found':>9} {'expected':>9}")
        for check in checks:
            expected = "-" if check.expected is None else f"{check.expected:,}"
            verdict = "ok" if check.passed else "WRONG"
            print(f"  {check.split:8} {check.what:28} {check.found:>9,} {expected:>9}  {verdict}")
        if deep:
            print(f"  {len(problems)} unreadable images")
    if wrong or problems:
        parts = [
            f"[{c.split}] found {c.found} {c.what}, expected {c.expected}" for c in wrong
        ] + problems[:5]
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise DataError(f"{manifest.name}: {'; '.join(parts)}{more} under {root}")


@app.command()
def stats(
    dataset: DatasetArgument, data_root: DataRootOption = None, json: JsonOption = False
) -> None:
    """Print statistics of cameras, image sizes and tracklets.

    Also lists files that occur, byte for byte, in both train and test.

    \b
    Examples:
      reidkit datasets stats market1501
    """
    from reidkit.data.manifest import open_dataset
    from reidkit.data.statistics import measure

    data = open_dataset(dataset, data_root)
    with progress("reading image headers") as on_progress:
        found = measure(data, on_progress=on_progress)
    if json:
        print_json({"dataset": data.name, "root": str(data.root), **dataclasses.asdict(found)})
        return
    print(f"{data.name} in {data.root}")
    for split, images in found.images.items():
        for camera, count in images.items():
            ids = found.ids[split][camera]
            print(f"  {split:8} camera {camera:<4} {count:>9,} images {ids:>7,} ids")
    for name, summary in (
        ("height", found.heights),
        ("width", found.widths),
        *((f"frames of {split} tracklets", summary) for split, summary in found.frames.items()),
    ):
        print(f"  {name}: {summary.min} to {summary.max}, median {summary.median}")
    print(f"  {len(found.duplicates)} files occur in both train and test")
    for group in found.duplicates[:10]:
        print(f"    {' = '.join(group)}")


for create, panels in ((init, INIT_PANELS), (subset, {}), (unpack, {})):
    app.command(cls=option_panels(panels))(create)


@app.command()
def synth(
    folder: Annotated[
        Path, typer.Argument(help="Output folder; must be empty or new.", metavar="FOLDER")
    ],
    layout: Annotated[
        SyntheticLayout,
        typer.Option(help=f"On-disk layout: {', '.join(LAYOUT_NAMES)}.", metavar="LAYOUT"),
    ] = "market1501",
    train_pids: Annotated[int, typer.Option(min=1, help="Number of training identities.")] = 100,
    test_pids: Annotated[int, typer.Option(min=1, help="Number of test identities.")] = 100,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed; equal seeds give equal files.")
    ] = 0,
) -> None:
    """Generate a synthetic data set, with label maps for part masks.

    \b
    Examples:
      reidkit datasets synth data/synth-market1501
      reidkit datasets synth data/synth-mars --layout mars --train-pids 20
    """
    from reidkit.synthetic import LAYOUTS

    with progress("rendering images") as on_progress:
        LAYOUTS[layout](
            folder, train_pids=train_pids, test_pids=test_pids, seed=seed, on_progress=on_progress
        )
    print(folder)
