"""reidkit index: build, add, remove, expire; info and list from their own file."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.choices import MAX_CAMERA, ApproximateSearch
from reidkit.cli import index_contents
from reidkit.cli.galleries import IndexArgument, open_gallery, open_model
from reidkit.cli.options import (
    THIRD_PARTY,
    BatchOption,
    DeviceOption,
    FlipOption,
    JsonOption,
    ModelOption,
    TrustOption,
    option_panels,
    third_party_options,
)
from reidkit.cli.output import print_json, progress
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.index.records import Gallery, Record

log = logging.getLogger(__name__)

app = typer.Typer(help="Keep a gallery to search in.", no_args_is_help=True)

ADD_PANELS = {
    "Images": ("features", "camera", "metadata"),
    "Embedding": ("model", "batch", "device"),
    "Third-party ONNX models": THIRD_PARTY,
    "Search": ("approximate",),
    "Output": ("json",),
}
BUILD_PANELS = ADD_PANELS | {"Embedding": ("model", "flip", "batch", "device")}

ImagesArgument = Annotated[
    list[str] | None, typer.Argument(help="Images: folders, files or globs.", show_default=False)
]
FeaturesOption = Annotated[
    Path | None, typer.Option(help="Features file (.h5, .npz) to add instead of images.")
]
CameraOption = Annotated[
    int | None, typer.Option(min=0, max=MAX_CAMERA, help="Camera number of these images.")
]
MetadataOption = Annotated[
    Path | None,
    typer.Option(help="CSV file with the columns path and any of person, camera and time."),
]
ApproximateOption = Annotated[
    ApproximateSearch | None,
    typer.Option(help="Also build a FAISS index for approximate search.", show_default="exact"),
]


@app.command(cls=option_panels(BUILD_PANELS))
@third_party_options
def build(
    index: IndexArgument,
    images: ImagesArgument = None,
    model: ModelOption = None,
    features: FeaturesOption = None,
    flip: FlipOption = False,
    camera: CameraOption = None,
    metadata: MetadataOption = None,
    approximate: ApproximateOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
    json: JsonOption = False,
    *,
    inputs: dict[str, Any],
) -> None:
    """Build an index of a gallery.

    The index remembers its model and preprocessing, and of each image its path, time, camera and
    person. If it is interrupted, `reidkit index add` with the same images completes it.

    \b
    Examples:
      reidkit index build people.index photos/ --model model.onnx
      reidkit index build people.index photos/ --model theirs.onnx --size 224x224
      reidkit index build people.index --features gallery.h5
      reidkit index build qdrant://localhost:6333/people photos/
    """
    _check_sources(images, features)
    from reidkit.index.records import is_index, is_qdrant

    if is_index(index) and not is_qdrant(index):
        raise ConfigError(f"{index} exists already. Add to it: reidkit index add {index} IMAGES")
    from reidkit.cli.runs import find_model
    from reidkit.index.opening import create_index

    if features is not None:
        from reidkit.features import read_features
        from reidkit.files import sha256
        from reidkit.index.filling import feature_records, header_of

        stored = read_features(features)
        header = header_of(stored)
        if model is not None:
            path = find_model(model)
            header.check_model(sha256(path), model=path, where=str(features))
            header = header_of(stored, model=str(path.resolve()))
        records = feature_records(stored, where=features)
        _check_approximate(approximate, index, len(records))
        gallery = create_index(index, header)
        added = gallery.add(stored.features, records)
    else:
        from reidkit.index.filling import header_of
        from reidkit.runtime.embedder import load_embedder
        from reidkit.runtime.extraction import ExtractionSettings, extract_images

        records = _records(images, camera, metadata)
        _check_approximate(approximate, index, len(records))
        path = find_model(model)
        embedder = load_embedder(path, device=device, inputs=inputs, trust=trust)
        settings = ExtractionSettings(flip, batch=batch)
        first = extract_images(embedder, [[Path(records[0].path)]], settings)
        gallery = create_index(index, header_of(first, model=str(path.resolve())))
        added = _add(gallery, embedder, records, settings)
    facts = camera is not None or metadata is not None
    skipped = len(records) - added
    _report(index, gallery, added, skipped, approximate, facts_stated=facts, json=json)


@app.command(cls=option_panels(ADD_PANELS))
@third_party_options
def add(
    index: IndexArgument,
    images: ImagesArgument = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Model file.", show_default="the one that the index was built with"),
    ] = None,
    features: FeaturesOption = None,
    camera: CameraOption = None,
    metadata: MetadataOption = None,
    approximate: ApproximateOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
    json: JsonOption = False,
    *,
    inputs: dict[str, Any],
) -> None:
    """Add images to an index.

    Images whose path is in the index are skipped, so a repeated command adds nothing twice.

    \b
    Examples:
      reidkit index add people.index new-photos/ --camera 3
      reidkit index add people.index --approximate hnsw
    """
    if not (approximate and images is None and features is None):
        _check_sources(images, features)
    gallery = open_gallery(index)
    records: list[Record] = []
    added = 0
    if features is not None:
        from reidkit.features import read_features
        from reidkit.index.filling import feature_records, header_of

        stored = read_features(features)
        gallery.header.check_same_model(header_of(stored), where=gallery.name)
        records = feature_records(stored, where=features)
        _check_approximate(approximate, index, len(gallery) + len(records))
        added = gallery.add(stored.features, records)
    elif images:
        from reidkit.runtime.extraction import ExtractionSettings

        records = _records(images, camera, metadata)
        _check_approximate(approximate, index, len(gallery) + len(records))
        embedder = open_model(gallery, model, inputs, device, trust)
        added = _add(
            gallery, embedder, records, ExtractionSettings(gallery.header.flip, batch=batch)
        )
    facts = camera is not None or metadata is not None
    skipped = len(records) - added
    _report(index, gallery, added, skipped, approximate, facts_stated=facts, json=json)


@app.command()
def remove(
    index: IndexArgument,
    paths: Annotated[list[str], typer.Argument(help="Paths of images, or folders of them.")],
    json: JsonOption = False,
) -> None:
    """Remove images from an index.

    A folder stands for the images in it now; image files themselves are never touched.

    \b
    Examples:
      reidkit index remove people.index photos/0042.jpg
    """
    from reidkit.errors import DataError

    gallery = open_gallery(index)
    names: set[str] = set()
    for path in paths:
        names |= {path, str(Path(path).resolve())}
        if Path(path).is_dir():
            names |= {str(file.resolve()) for file in Path(path).rglob("*") if file.is_file()}
    removed = gallery.remove(names)
    if not removed:
        raise DataError(
            f"{index} holds none of {', '.join(paths)}. Paths are those that reidkit search prints"
        )
    _print_removed(index, gallery, removed, json=json)


@app.command()
def expire(
    index: IndexArgument,
    older_than: Annotated[
        str | None, typer.Option(help="Age, such as 30d, 12h or 45m.", show_default=False)
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="Date or time, such as 2026-05-17.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Remove what is older than an age or a date.

    The time of an image is its file's modification time unless --metadata stated another one.

    \b
    Examples:
      reidkit index expire people.index --older-than 30d
    """
    limit = parse_limit(older_than, before)
    gallery = open_gallery(index)
    _print_removed(index, gallery, gallery.expire(limit), json=json)


app.command()(index_contents.info)
app.command("list")(index_contents.list_)


def parse_limit(older_than: str | None, before: str | None) -> float:
    """The time, in seconds since 1970, before which records expire."""
    if (older_than is None) == (before is None):
        raise ConfigError("give exactly one of --older-than AGE and --before TIME")
    if before is not None:
        from reidkit.index.records import parse_time

        return parse_time(before, where="--before")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", older_than or "")
    if match is None:
        raise ConfigError(f"--older-than {older_than}: expected a number and d, h, m or s")
    return time.time() - float(match[1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[match[2]]


def _check_sources(images: list[str] | None, features: Path | None) -> None:
    if bool(images) == (features is not None):
        raise ConfigError("give either images (folders, files or globs) or --features FILE")


def _records(images: list[str] | None, camera: int | None, metadata: Path | None) -> list[Record]:
    from reidkit.cli.extract import find_images
    from reidkit.index.filling import image_records, read_metadata

    stated = read_metadata(metadata) if metadata else None
    files = [file for name in images or () for file in find_images(name)]
    records = image_records(files, camera=camera, metadata=stated)
    if stated and not stated.keys() & {Path(record.path) for record in records}:
        raise ConfigError(f"--metadata {metadata}: none of its paths is among the images")
    return records


def _add(gallery: Gallery, embedder: Any, records: list[Record], settings: Any) -> int:
    from reidkit.index.filling import add_images

    with progress("embedding") as on_progress:
        return add_images(gallery, embedder, records, settings, on_progress=on_progress)


def _check_approximate(approximate: ApproximateSearch | None, index: str, most: int) -> None:
    """Refuses an approximate index of at most `most` vectors before anything is embedded, if they
    are too few for one."""
    if approximate:
        from reidkit.index.approximate import check_count

        check_count(most, index)


def _report(
    index: str,
    gallery: Gallery,
    added: int,
    skipped: int,
    approximate: ApproximateSearch | None,
    *,
    facts_stated: bool,
    json: bool,
) -> None:
    """Builds the approximate index, if requested, and prints what was done.

    Args:
        facts_stated: whether person, camera or time of the images were stated.
    """
    approximation = None
    if approximate:
        from reidkit.index.approximate import build_approximation
        from reidkit.index.directory import IndexDirectory

        if not isinstance(gallery, IndexDirectory):
            raise ConfigError("--approximate is for index directories; Qdrant has its own")
        approximation = asdict(build_approximation(gallery, approximate))
    total = len(gallery)
    if json:
        document = {"index": index, "vectors": total, "added": added, "skipped": skipped}
        print_json({**document, "approximate": approximation})
        return
    print(f"{index}: {added:,} added, {skipped:,} already there, {total:,} vectors")
    if skipped and facts_stated:
        print(
            f"person, camera and time of the {skipped:,} are unchanged. To change them, remove the "
            f"images and add them again: reidkit index remove {index} IMAGES"
        )
    if approximation:
        print(
            f"{approximation['kind']}: recall at 10 is {approximation['recall']:.3f}, measured on "
            "vectors of this index"
        )


def _print_removed(index: str, gallery: Gallery, removed: int, *, json: bool) -> None:
    total = len(gallery)
    if json:
        print_json({"index": index, "vectors": total, "removed": removed})
    else:
        print(f"{index}: {removed:,} removed, {total:,} vectors")
