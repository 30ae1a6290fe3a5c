"""reidkit datasets: list, show, verify, stats, init, subset, unpack, synth."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from reidkit.choices import SyntheticLayout
from reidkit.cli.options import DataRootOption, JsonOption, option_panels
from reidkit.cli.output import print_json, progress
from reidkit.types import SPLITS, frames

if TYPE_CHECKING:
    from reidkit.data.scaffold import Scaffold

app = typer.Typer(
    help="List, verify, create and generate data sets.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

LAYOUT_NAMES: tuple[SyntheticLayout, ...] = get_args(SyntheticLayout)
DatasetArgument = Annotated[
    str, typer.Argument(help="Data set name, manifest file or folder.", metavar="DATASET")
]


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


INIT_PANELS = {
    "File names": ("pattern", "cameras", "camera_map", "tracklets"),
    "Splits": ("test_fraction", "seed"),
    "Output": ("dry_run",),
}


@app.command(cls=option_panels(INIT_PANELS))
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of images.", metavar="FOLDER")],
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
) -> None:
    """Create a data set from your own folder of images.

    Writes manifest.toml and data.csv into the folder; both can be edited afterwards. Without
    --pattern, each subfolder is a person. Whole people are for training or for testing; of a test
    person, the first image of each camera is a query and the others are the gallery.

    \b
    Examples:
      reidkit datasets init photos/ --cameras 'cam(\\w+)'
      reidkit datasets init photos/ --pattern '^(?P<pid>\\d+)_c(?P<camid>\\d+)' --dry-run
      reidkit datasets init videos/ --tracklets
    """
    from reidkit.data.names import NamePattern, parse_camera_map
    from reidkit.data.scaffold import MANIFEST, TABLE, check_new, plan_dataset

    mapping = parse_camera_map(camera_map) if camera_map is not None else {}
    names = NamePattern(pattern or "", cameras, mapping, tracklets)
    if not dry_run:
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
    scaffold.write()
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


@app.command(cls=option_panels({}))
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


@app.command(cls=option_panels({}))
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
            unpack_archive(file, manifest, target, on_progress=on_progress)
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
                f"also needed: {protocol} from {manifest.home}. Then run: reidkit datasets unpack "
                f"{dataset} --archive {protocol}{where}",
                file=sys.stderr,
            )
            return
    print(f"check it: reidkit datasets verify {dataset}{where}", file=sys.stderr)


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
