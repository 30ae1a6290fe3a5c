"""reidkit search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.conditions import (
    AfterOption,
    BeforeOption,
    CamerasOption,
    PeopleOption,
    read_filter,
)
from reidkit.cli.options import (
    THIRD_PARTY,
    BatchOption,
    DeviceOption,
    FlipOption,
    JsonOption,
    OverwriteOption,
    TrustOption,
    check_new,
    third_party_options,
)
from reidkit.cli.output import print_json, progress
from reidkit.errors import ConfigError
from reidkit.files import check_regular, printable

if TYPE_CHECKING:
    from reidkit.features import Features
    from reidkit.index.records import Hit
    from reidkit.index.searching import RankedQuery

PANELS = {
    "Query and gallery": ("query", "gallery", "images_root"),
    "Search": ("top", "threshold", "rerank", "exclude_self", "exact"),
    "Conditions": ("camera", "person", "after", "before"),
    "Embedding": ("flip", "batch", "device"),
    "Third-party ONNX models": THIRD_PARTY,
    "Output": ("png", "html", "csv", "overwrite", "json"),
}

FEATURES = (".h5", ".hdf5", ".npz")


@third_party_options
def search(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint, run folder or ONNX file that embeds images.",
            show_default="the index's model, or the newest run",
        ),
    ] = None,
    query: Annotated[
        str, typer.Option(help="Image, folder, glob or features file.", show_default=False)
    ] = "",
    gallery: Annotated[
        str,
        typer.Option(
            help="Folder, glob, features file, index directory or qdrant://HOST:6333/COLLECTION.",
            show_default=False,
        ),
    ] = "",
    images_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the paths in features files, to show their images."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Hits per query.")] = 10,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=2, help="Largest cosine distance of a hit.", show_default="none"),
    ] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Re-rank k-reciprocally.")] = False,
    exclude_self: Annotated[
        bool, typer.Option("--exclude-self", help="Leave out the query's own file.")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Ignore an index's FAISS index.")] = False,
    camera: CamerasOption = None,
    person: PeopleOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    flip: FlipOption = False,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
    png: Annotated[Path | None, typer.Option(help="Write the ranked lists as a picture.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write them as one HTML page.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write them as CSV.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    *,
    inputs: dict[str, Any],
) -> None:
    """Find the nearest gallery images of a query.

    Distances are 1 - cosine (re-ranked ones with --rerank). No labels are needed.

    \b
    Examples:
      reidkit search model.onnx --query who.jpg --gallery photos/
      reidkit search theirs.onnx --query who.jpg --gallery photos/ --size 224x224
      reidkit search --query who.jpg --gallery people.index --png who.png
      reidkit search --query query.h5 --gallery gallery.h5 --rerank --csv hits.csv
    """
    _check(query, gallery, model, rerank=rerank, png=png, html=html)
    check_new((png, html, csv), overwrite=overwrite)
    from reidkit.index.records import is_index

    condition = read_filter(camera, person, after, before)
    query_images = _find_images(query)
    gallery_images = None if is_index(gallery) else _find_images(gallery)
    if gallery_images is not None and condition:
        raise ConfigError(
            "--camera, --person, --after and --before need an index, which stores them with every "
            f"image. Build one: reidkit index build people.index {gallery}"
        )
    timed = condition.after is not None or condition.before is not None
    if timed and not is_index(gallery):
        raise ConfigError("--after and --before need an index, which stores times")

    from reidkit.cli.galleries import open_model
    from reidkit.index.opening import open_index
    from reidkit.index.searching import ranked_queries, search_features, search_images, search_index

    wanted = top + 1 if exclude_self else top
    if is_index(gallery):
        index = open_index(gallery, exact=exact)
        embedder = None
        if not _is_features(query):
            embedder = open_model(index, model, inputs, device, trust)
        queries = _features(query, query_images, embedder, flip=index.header.flip, batch=batch)
        lists = search_index(queries, index, wanted, condition)
    else:
        embedder = None
        if query_images or gallery_images:
            embedder = _model(model, inputs, device, trust)
        queries = _features(query, query_images, embedder, flip=flip, batch=batch)
        stored = _features(gallery, gallery_images, embedder, flip=flip, batch=batch)
        if query_images and gallery_images and not rerank:  # the case without torch
            lists = search_images(queries, stored, wanted)
        else:
            from reidkit.retrieval import RerankConfig

            config = RerankConfig() if rerank else None
            lists = search_features(queries, stored, wanted, rerank=config, condition=condition)
    ranked = ranked_queries(queries, lists, top=top, threshold=threshold, exclude_self=exclude_self)
    _write(ranked, png=png, html=html, csv=csv, root=images_root)
    if json:
        print_json([_as_dict(item) for item in ranked])
    else:
        _print(ranked)


def _check(
    query: str,
    gallery: str,
    model: Path | None,
    *,
    rerank: bool,
    png: Path | None,
    html: Path | None,
) -> None:
    """What can be refused before anything is loaded."""
    from reidkit.index.records import is_index

    if not query or not gallery:
        raise ConfigError("give --query IMAGE and --gallery FOLDER, a features file or an index")
    for option, name in (("--query", query), ("--gallery", gallery)):
        if not Path(name).is_dir():
            check_regular(Path(name), ConfigError)
        if _is_features(name) and not Path(name).is_file():
            raise ConfigError(f"{option} {name}: no such features file")
    for option, file, suffixes in (("--png", png, (".png",)), ("--html", html, (".html", ".htm"))):
        if file is not None and file.suffix.lower() not in suffixes:
            raise ConfigError(f"{option} {file}: choose a name that ends in {suffixes[0]}")
    if rerank and is_index(gallery):
        raise ConfigError(
            "--rerank needs all gallery vectors: search a folder or a features file, or remove "
            "--rerank"
        )
    if model is not None and _is_features(str(model)):
        raise ConfigError(
            f"{model} is a features file: pass it as --query or --gallery. The argument is a model"
        )


def _is_features(name: str) -> bool:
    return name.lower().endswith(FEATURES)


def _model(model: Path | None, inputs: Mapping[str, Any], device: str, trust: bool) -> Any:
    from reidkit.cli.runs import find_model
    from reidkit.runtime.embedder import load_embedder

    return load_embedder(find_model(model), device=device, inputs=inputs, trust=trust)


def _find_images(name: str) -> list[Path] | None:
    """The images of a query or a gallery; None for a features file."""
    from reidkit.cli.extract import find_images

    return None if _is_features(name) else find_images(name)


def _features(
    name: str, images: list[Path] | None, embedder: Any, *, flip: bool, batch: int | None
) -> Features:
    """The features file, or the embeddings of images."""
    from reidkit.features import read_features
    from reidkit.runtime.extraction import ExtractionSettings, extract_images

    if images is None:
        return read_features(Path(name))
    files = [[path] for path in images]
    with progress(f"embedding {name}") as on_progress:
        settings = ExtractionSettings(flip, batch=batch)
        return extract_images(embedder, files, settings, on_progress=on_progress)


def _write(
    ranked: list[RankedQuery],
    *,
    png: Path | None,
    html: Path | None,
    csv: Path | None,
    root: Path | None,
) -> None:
    from reidkit.index.searching import write_csv

    if csv:
        write_csv(csv, ranked)
    if png or html:
        from reidkit.visualize.ranked_lists import save_html, save_png

        rows = [_row(item, root) for item in ranked]
        if png:
            save_png(png, rows, title=f"{len(rows)} queries" if len(rows) > 1 else "")
        if html:
            save_html(html, rows)


def _row(item: RankedQuery, root: Path | None) -> Any:
    from reidkit.visualize.ranked_lists import RankedRow, Tile

    base = root or Path()
    hits = tuple(
        Tile(
            base / hit.record.path,
            (f"{k}. {hit.distance:.3f}", *hit_facts(hit)),
            camera=hit.record.camera,
        )
        for k, hit in enumerate(item.hits, start=1)
    )
    return RankedRow(Tile(base / item.path, ("query", Path(item.path).name)), hits, item.path)


def hit_facts(hit: Hit) -> list[str]:
    """Person and camera of a hit, else its file's name."""
    record = hit.record
    words = [f"person {record.person}"] if record.person else []
    words += [f"camera {record.camera}"] if record.camera is not None else []
    return words or [Path(record.path).name]


def _as_dict(item: RankedQuery) -> dict[str, Any]:
    return {"query": item.path, "hits": [hit.to_dict() for hit in item.hits]}


def _print(ranked: list[RankedQuery]) -> None:
    for item in ranked:
        print(printable(item.path))
        if not item.hits:
            print("  nothing found")
        for rank, hit in enumerate(item.hits, start=1):
            record = hit.record
            extra = ", ".join(hit_facts(hit)) if record.person or record.camera is not None else ""
            print(f"  {rank:>3}  {hit.distance:z.4f}  {printable(record.path)}  {extra}".rstrip())
