"""reidkit datasets: list, show, verify, stats, init, unpack, synth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import DataRootOption, JsonOption
from reidkit.cli.output import print_json, progress

app = typer.Typer(help="Data sets: what is known, what is on disk, and built-in synthetic ones.")


@app.command("list")
def list_(json: JsonOption = False) -> None:
    """Data sets that reidkit knows by name."""
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
def show(dataset: str, json: JsonOption = False) -> None:
    """What a data set's manifest says."""
    from reidkit.config.tables import to_toml
    from reidkit.data.manifest import find_manifest, load_manifest

    manifest = load_manifest(find_manifest(dataset))
    if json:
        print_json(dataclasses.asdict(manifest))
        return
    print(to_toml(dataclasses.asdict(manifest)), end="")


@app.command()
def verify(
    dataset: str,
    data_root: DataRootOption = None,
    deep: Annotated[bool, typer.Option("--deep", help="Open every image as well.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare every count with the published one; exit status 2 if one differs."""
    from reidkit.data.manifest import locate, read_dataset
    from reidkit.data.verify import unreadable
    from reidkit.data.verify import verify as check_counts
    from reidkit.errors import DataError

    manifest, root = locate(dataset, data_root)
    data = read_dataset(manifest, root)
    checks = check_counts(manifest, data)
    problems: list[str] = []
    if deep:
        with progress("opening images") as on_progress:
            problems = unreadable(data, on_progress=on_progress)
    wrong = [check for check in checks if not check.passed]
    if json:
        print_json(
            {
                "dataset": manifest.name,
                "root": str(root),
                "synthetic": manifest.synthetic,
                "checks": [{**dataclasses.asdict(c), "passed": c.passed} for c in checks],
                "unreadable": problems if deep else None,
                "passed": not wrong and not problems,
            }
        )
    else:
        print(f"{manifest.name} in {root}")
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
def stats(dataset: str, data_root: DataRootOption = None, json: JsonOption = False) -> None:
    """Images and ids per camera, sizes, tracklet lengths, files that train and test share."""
    from reidkit.data.manifest import open_dataset
    from reidkit.data.statistics import measure

    data = open_dataset(dataset, data_root)
    with progress("reading headers") as on_progress:
        found = measure(data, on_progress=on_progress)
    if json:
        print_json({"dataset": data.name, "root": str(data.root), **dataclasses.asdict(found)})
        return
    print(f"{data.name} in {data.root}")
    for split, images in found.images.items():
        for camera, count in images.items():
            ids = found.ids[split][camera]
            print(f"  {split:8} camera {camera:<4} {count:>9,} images {ids:>7,} ids")
    for name, spread in (
        ("height", found.heights),
        ("width", found.widths),
        *((f"frames of {split} tracklets", spread) for split, spread in found.frames.items()),
    ):
        print(f"  {name}: {spread.least} to {spread.most}, median {spread.median}")
    print(f"  {len(found.twins)} files of train are also in test, byte for byte")
    for group in found.twins[:10]:
        print(f"    {' = '.join(group)}")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Holds a folder per person.")],
    cameras: Annotated[
        str,
        typer.Option(help="Expression with one group that finds the camera in a path, or none."),
    ] = "none",
    tracklets: Annotated[
        bool, typer.Option("--tracklets", help="The innermost folders are tracklets.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides who is for training.")] = 0,
) -> None:
    """Write manifest.toml and data.csv for your own images."""
    from reidkit.data.own import MANIFEST, TABLE, init_dataset

    init_dataset(folder, cameras=cameras, tracklets=tracklets, seed=seed)
    print(folder / MANIFEST)
    print(folder / TABLE)


@app.command()
def unpack(
    dataset: str,
    archive: Annotated[
        Path | None, typer.Option(help="A zip or tar file to unpack under the data root first.")
    ] = None,
    data_root: DataRootOption = None,
) -> None:
    """Unpack an archive, and make images of cuhk-03.mat or CIFAR-100's records."""
    import os

    from reidkit.data.manifest import find_manifest, find_root, load_manifest
    from reidkit.data.unpack import extract_archive, unpack_cifar100, unpack_cuhk03

    manifest = load_manifest(find_manifest(dataset))
    if archive is not None:
        target = data_root or Path(os.environ.get("REIDKIT_DATA", "data"))
        with progress(f"unpacking {archive.name}") as on_progress:
            extract_archive(archive, target, on_progress=on_progress)
    root = find_root(manifest, data_root)
    with progress("writing images") as on_progress:
        if (root / "cuhk-03.mat").exists():
            unpack_cuhk03(root, on_progress=on_progress)
        elif (root / "train.bin").exists():
            unpack_cifar100(root, on_progress=on_progress)
    print(root)


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Where to write; must be empty or new.")],
    layout: Annotated[str, typer.Option(help="On-disk layout to write.")] = "market1501",
    train_pids: Annotated[int, typer.Option(min=1, help="Training identities.")] = 100,
    test_pids: Annotated[int, typer.Option(min=1, help="Test identities.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
) -> None:
    """Draw synthetic pedestrians and write them as a data set with label maps."""
    from reidkit.errors import ConfigError, suggest
    from reidkit.synthetic import LAYOUTS

    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}. {suggest(layout, LAYOUTS)}")
    with progress("drawing pedestrians") as on_progress:
        LAYOUTS[layout](
            folder, train_pids=train_pids, test_pids=test_pids, seed=seed, on_progress=on_progress
        )
    print(folder)
