"""reidkit extract."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.common import DataRootOption, DeviceOption, JsonOption, print_json, progress

if TYPE_CHECKING:
    from reidkit.embed import Embedder
    from reidkit.features import Features


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
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path("features.h5"),
    data_root: DataRootOption = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirror image's embedding.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Write embeddings of a data set's split, or of your own pictures, to an HDF5 file."""
    from reidkit.config import require
    from reidkit.data.manifest import SPLITS, open_dataset
    from reidkit.embed import load_embedder, newest_run
    from reidkit.errors import suggest
    from reidkit.evaluate import embed_split
    from reidkit.features import write_features

    require((dataset is None) != (images is None), "give either --dataset NAME or --images PATH")
    require(split in SPLITS, f"unknown split {split!r}. {suggest(split, SPLITS)}")
    embedder = load_embedder(model or newest_run(), device=device)
    with progress("embedding") as on_progress:
        if dataset is not None:
            features = embed_split(
                embedder,
                open_dataset(dataset, data_root),
                split,  # type: ignore[arg-type]  # checked above
                flip=flip,
                batch=batch,
                on_progress=on_progress,
            )
        else:
            assert images is not None
            features = _embed_pictures(embedder, images, flip, batch, on_progress)
    write_features(out, features)
    rows, length = features.features.shape
    if json:
        print_json({"file": str(out), "images": rows, "dimension": length})
    else:
        print(f"{out}: {rows:,} embeddings of length {length}")


def _embed_pictures(
    embedder: Embedder, images: str, flip: bool, batch: int, on_progress: object
) -> Features:
    import numpy as np

    from reidkit.embed import embed_images
    from reidkit.evaluate import provenance
    from reidkit.features import Features

    paths = find_images(images)
    rows = embed_images(embedder, paths, flip=flip, batch=batch, on_progress=on_progress)  # type: ignore[arg-type]
    N = len(paths)
    return Features(
        features=rows,
        pids=np.full(N, -1, np.int64),
        camids=np.full(N, -1, np.int64),
        paths=tuple(path.as_posix() for path in paths),
        roles=np.zeros(N, np.uint8),
        attributes=provenance(embedder, flip=flip),
    )


def find_images(images: str) -> list[Path]:
    """Image files in a folder (and below), at a path, or by a glob, sorted."""
    from reidkit.data.readers.rows import IMAGE_SUFFIXES, list_images
    from reidkit.errors import DataError

    path = Path(images).expanduser()
    if path.is_dir():
        found = [path / name for name in list_images(path)]
    elif path.is_file():
        found = [path]
    else:
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute ones too
        found = [Path(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        raise DataError(f"no image found: {images}. Looked for {', '.join(IMAGE_SUFFIXES)}")
    return found
