"""reidkit datasets init, subset and unpack: commands that write data sets."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.options import DataRootOption
from reidkit.cli.output import progress
from reidkit.types import SPLITS, frames

if TYPE_CHECKING:
    from reidkit.data.scaffold import Scaffold

DatasetArgument = Annotated[
    str, typer.Argument(help="Data set name, manifest file or folder.", metavar="DATASET")
]

INIT_PANELS = {
    "File names": ("pattern", "cameras", "camera_map", "tracklets"),
    "Table": ("root",),
    "Splits": ("test_fraction", "seed"),
    "Output": ("dry_run", "overwrite"),
}


def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder of images, or your own table (CSV).", metavar="FOLDER")
    ],
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Regular expression with the group pid, and optionally camid, that is searched in"
            " file names, or in paths if it contains a slash.",
            show_default="the person is the folder",
        ),
    ] = None,
    cameras: Annotated[
        str,
        typer.Option(
            help="Regular expression with one group that matches the camera in a path, or none."
        ),
    ] = "none",
    camera_map: Annotated[
        str | None,
        typer.Option(help="Cameras of the captured texts, such as 1=1,2=1,3=2,4=2."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of a table's images.", show_default="the table's folder"),
    ] = None,
    test_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of the people that are for testing.")
    ] = 0.5,
    tracklets: Annotated[
        bool, typer.Option("--tracklets", help="Treat each innermost folder as a tracklet.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the training and test split.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the summary and examples; write nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing manifest.toml and data.csv.")
    ] = False,
) -> None:
    """Create a data set from your own folder of images.

    Writes manifest.toml and data.csv into the folder; both can be edited afterwards. Without
    --pattern, each subfolder is a person. Whole people are for training or for testing; of a test
    person, the first image of each camera is a query and the others are the gallery.

    \b
    Examples:
      reidkit datasets init photos/ --cameras 'cam(\\w+)'
      reidkit datasets init photos/ --pattern '(?P<pid>\\d+)_c(?P<camid>\\d+)'
      reidkit datasets init videos/ --tracklets
      reidkit datasets init table.csv --root /images
    """
    from reidkit.config import require
    from reidkit.data.names import NamePattern, parse_camera_map
    from reidkit.data.scaffold import MANIFEST, TABLE, check_new, plan_dataset, plan_table

    if folder.suffix.lower() == ".csv":
        options = (pattern, camera_map, tracklets, cameras != "none")
        require(not any(options), f"{folder} states people and cameras: pass only --root")
        if not (dry_run or overwrite):
            check_new(folder.parent)
        scaffold = plan_table(folder, root)
        print_summary(scaffold)
        if not dry_run:
            scaffold.write(overwrite=overwrite)
            print(folder.parent / MANIFEST)
        return
    require(root is None, f"--root is for a table: reidkit datasets init TABLE.csv --root {root}")
    mapping = parse_camera_map(camera_map) if camera_map is not None else {}
    names = NamePattern(pattern or "", cameras, mapping, tracklets)
    if not (dry_run or overwrite):
        check_new(folder)
    scaffold = plan_dataset(folder, names, test_fraction=test_fraction, seed=seed)
    print_summary(scaffold)
    if dry_run:
        print("examples:")
        for row in scaffold.examples():
            camera = f", camera {row.camid}" if scaffold.has_cameras else ""
            tracklet = f", tracklet {row.tracklet}" if row.tracklet else ""
            print(f"  {row.path}: person {row.pid}{camera}{tracklet}, {row.split}")
        print("nothing written (--dry-run)")
        return
    scaffold.write(overwrite=overwrite)
    print(folder / MANIFEST)
    print(folder / TABLE)


def count(number: int, one: str, many: str = "") -> str:
    """(2, "image") -> "2 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def print_summary(scaffold: Scaffold) -> None:
    """Prints people, images and cameras, in all and of each split; warnings go to stderr."""

    def text(split: str | None = None) -> str:
        people, images, cameras = scaffold.counts(split)
        of_cameras = count(cameras, "camera") if scaffold.has_cameras else "cameras unknown"
        return f"{count(people, 'person', 'people')}, {count(images, 'image')}, {of_cameras}"

    print(f"{scaffold.folder}: {text()}")
    for split in SPLITS:
        if scaffold.counts(split)[1]:
            print(f"  {split:8} {text(split)}")
    for warning in scaffold.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def subset(
    dataset: DatasetArgument,
    ids: Annotated[
        int, typer.Option(min=1, help="Number of training identities and of test identities.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest number of images (or tracklets) of an identity in each split.",
            show_default="all",
        ),
    ] = None,
    data_root: DataRootOption = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed; equal seeds give equal subsets.")
    ] = 0,
) -> None:
    """Write a small part of a data set for quick trials.

    The protocol is that of the whole data set, and every query has a match. Images are linked, not
    copied, where the file system allows it: do not edit them.

    \b
    Examples:
      reidkit datasets subset market1501 --ids 50 -o data/market-50
      reidkit datasets subset msmt17 --ids 20 --images 4 -o data/msmt17-20
    """
    from reidkit.data.manifest import locate, open_dataset, read_dataset
    from reidkit.data.subset import select_subset, write_subset

    manifest, folder = locate(dataset, data_root)
    whole = read_dataset(manifest, folder)
    part = select_subset(whole, ids=ids, images=images, seed=seed)
    limit = "" if images is None else f", at most {images} images each"
    with progress("linking images") as on_progress:
        kinds = write_subset(
            out,
            part,
            manifest,
            name=f"{manifest.name.replace('@', '-')}-{ids}ids",
            title=f"{count(ids, 'identity', 'identities')} of {manifest.title}{limit}, seed {seed}",
            on_progress=on_progress,
        )
    written = open_dataset(str(out))
    made = ", ".join(
        count(number, kind, "copies" if kind == "copy" else "") for kind, number in kinds.items()
    )
    print(f"{out}: {written.name} ({made})")
    for split in SPLITS:
        items = getattr(written, split)
        people = len({item.pid for item in items if item.role == "person"})
        total = sum(1 for _ in frames(items))
        if items:
            print(f"  {split:8} {count(people, 'person', 'people')}, {count(total, 'image')}")


def unpack(
    dataset: DatasetArgument,
    archive: Annotated[
        list[Path] | None,
        typer.Option(help="Zip, tar or .mat file to unpack into the data root; repeatable."),
    ] = None,
    data_root: DataRootOption = None,
) -> None:
    """Unpack archives, cuhk-03.mat or CIFAR-100 into images.

    Archives may be as published, or contain the data set's files in any folder. Archives with links
    or with members that point outside the target are refused before anything is written.

    \b
    Examples:
      reidkit datasets unpack market1501 --archive Market-1501-v15.09.15.zip
      reidkit datasets unpack msmt17@v2 --archive MSMT17_V2.tar.gz
      reidkit datasets unpack mars --archive bbox_train.zip --archive bbox_test.zip
      reidkit datasets unpack cuhk03-np-labeled --archive cuhk03_release.zip
    """
    import os

    from reidkit.data.archives import protocol_file, unpack_archive
    from reidkit.data.manifest import find_manifest, find_root, load_manifest
    from reidkit.data.unpack import unpack_records

    manifest = load_manifest(find_manifest(dataset))
    for file in archive or []:
        target = data_root or Path(os.environ.get("REIDKIT_DATA", "data"))
        with progress(f"unpacking {file.name}") as on_progress:
            unpacked = unpack_archive(file, manifest, target, on_progress=on_progress)
        there = f", {unpacked.present:,} were there already" if unpacked.present else ""
        print(f"{file}: {count(unpacked.written, 'file')} written{there}", file=sys.stderr)
    root = find_root(manifest, data_root, variant=dataset.partition("@")[2])
    if any((root / name).exists() for name in ("cuhk-03.mat", "train.bin")):
        with progress("writing images") as on_progress:
            unpack_records(root, on_progress=on_progress)
    print(root)
    where = "" if data_root is None else f" --data-root {shlex.quote(str(data_root))}"
    if manifest.reader == "cuhk03" and not manifest.variants and (root / "cuhk-03.mat").exists():
        protocol = protocol_file(manifest)
        if not (root / protocol).exists():
            print(
                f"{protocol} is also needed, from {manifest.home}. Run: reidkit datasets unpack "
                f"{dataset} --archive {protocol}{where}",
                file=sys.stderr,
            )
            return
    print(f"Run: reidkit datasets verify {dataset}{where}", file=sys.stderr)
