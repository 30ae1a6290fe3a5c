"""reidkit extract."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import (
    ClipsOption,
    DataRootOption,
    DeviceOption,
    EmbeddingOption,
    JsonOption,
    open_data,
)
from reidkit.cli.output import print_json, progress

log = logging.getLogger(__name__)


def extract(
    model: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint, run folder or .onnx file. [default: the newest run]"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A known name, a manifest.toml, or a folder with one.")
    ] = None,
    split: Annotated[str, typer.Option(help="query, gallery or train")] = "query",
    images: Annotated[
        str | None, typer.Option(help="Your own pictures: a folder, a file or a glob.")
    ] = None,
    tracklets: Annotated[
        Path | None, typer.Option(help="Your own tracklets: a folder with a folder of frames each.")
    ] = None,
    clips: ClipsOption = "tclnet",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path("features.h5"),
    data_root: DataRootOption = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirror image's embedding.")] = False,
    embedding: EmbeddingOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Write embeddings of a data set's split, or of your own pictures, to an HDF5 file.

    Processes share a data set's split under torchrun.
    """
    from reidkit.cli.options import embedding_option
    from reidkit.config import require
    from reidkit.data.clips import check_rule
    from reidkit.data.manifest import SPLITS
    from reidkit.errors import suggest
    from reidkit.features import write_features
    from reidkit.runtime.distributed import join_process_group
    from reidkit.runtime.embedder import load_embedder, newest_run
    from reidkit.runtime.extraction import extract_images, extract_split

    require(
        sum(source is not None for source in (dataset, images, tracklets)) == 1,
        "give either --dataset NAME or --images PATH or --tracklets FOLDER",
    )
    rule = check_rule(clips)
    require(split in SPLITS, f"unknown split {split!r}. {suggest(split, SPLITS)}")
    with join_process_group(device) as (group, own_device), progress("embedding") as on_progress:
        embedder = load_embedder(
            model or newest_run(), device=own_device, options=embedding_option(embedding)
        )
        if dataset is not None:
            features = extract_split(
                embedder,
                open_data(dataset, data_root),
                split,  # type: ignore[arg-type]  # checked above
                flip=flip,
                batch=batch,
                clips=rule,
                group=group,
                on_progress=on_progress,
            )
        else:
            own = find_tracklets(tracklets) if tracklets else [[p] for p in find_images(images)]
            features = extract_images(
                embedder, own, clips=rule, flip=flip, batch=batch, on_progress=on_progress
            )
        if not group.is_main:
            return
        write_features(out, features)
    rows, length = features.features.shape
    if json:
        print_json({"file": str(out), "images": rows, "dimension": length})
    else:
        print(f"{out}: {rows:,} embeddings of length {length}")


def find_tracklets(folder: Path) -> list[list[Path]]:
    """The frames in every folder below `folder` that holds images, in the order of their names."""
    from reidkit.data.readers.rows import list_images
    from reidkit.errors import DataError

    found: dict[Path, list[Path]] = {}
    for name in list_images(folder):
        found.setdefault((folder / name).parent, []).append(folder / name)
    if not found or folder in found:
        where = "nothing" if not found else f"images in {folder} itself"
        raise DataError(
            f"--tracklets {folder}: found {where}, expected one sub-folder per tracklet"
        )
    return list(found.values())


def find_images(images: str | None) -> list[Path]:
    """Image files in a folder (and below), at a path, or by a glob, sorted."""
    from reidkit.data.readers.rows import IMAGE_SUFFIXES, list_images
    from reidkit.errors import DataError

    assert images is not None
    path = Path(images).expanduser()
    if path.is_dir():
        found = [path / name for name in list_images(path)]
        others = sum(p.is_file() for p in path.rglob("*")) - len(found)
        if others:
            log.info("%d files in %s are not images by their names and are left out", others, path)
    elif path.is_file():
        found = [path]
    else:
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute ones too
        found = [Path(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        raise DataError(f"no image found: {images}. Looked for {', '.join(IMAGE_SUFFIXES)}")
    return found
