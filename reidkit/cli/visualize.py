"""reidkit visualize: ranks, embedding, and attention from its own file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.choices import ColourBy, ProjectionMethod
from reidkit.cli import visualize_attention
from reidkit.cli.options import (
    BatchOption,
    DataRootOption,
    DeviceOption,
    FlipOption,
    JsonOption,
    ModelArgument,
    OptionalDatasetOption,
    OverwriteOption,
    TrustOption,
    check_new,
    open_data,
    option_panels,
)
from reidkit.cli.output import print_json, progress, stage_progress
from reidkit.errors import ConfigError
from reidkit.types import Split

if TYPE_CHECKING:
    from reidkit.features import Features
    from reidkit.types import Dataset

EMBEDDING_PANELS = {
    "Data": ("dataset", "data_root", "split", "images_root"),
    "Map": ("method", "colour", "count"),
    "Embedding": ("batch", "device", "trust"),
    "Output": ("png", "html", "overwrite"),
}

app = typer.Typer(help="See what a model finds and looks at.", no_args_is_help=True)
app.command(cls=option_panels(visualize_attention.PANELS))(visualize_attention.attention)


@app.command()
def ranks(
    model: ModelArgument = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set name, manifest file or folder.", show_default="that of the training"
        ),
    ] = None,
    data_root: DataRootOption = None,
    worst: Annotated[
        int | None,
        typer.Option(min=0, help="Queries of the lowest AP.", show_default="20 without the others"),
    ] = None,
    best: Annotated[int, typer.Option(min=0, help="Queries of the highest AP.")] = 0,
    random: Annotated[int, typer.Option(min=0, help="Queries sampled at random.")] = 0,
    query: Annotated[
        list[str] | None, typer.Option(help="Path or file name of a query; repeatable.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=50, help="Hits per query.")] = 10,
    rerank: Annotated[bool, typer.Option("--rerank", help="Re-rank k-reciprocally.")] = False,
    flip: FlipOption = False,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
    png: Annotated[Path, typer.Option(help="Picture to write.")] = Path("ranks.png"),
    html: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Show ranked lists, right and wrong hits marked.

    The HTML page filters by camera pair and AP, and needs no other file.

    \b
    Examples:
      reidkit visualize ranks runs/x --dataset market1501 --worst 20
      reidkit visualize ranks model.onnx --dataset market1501 --html ranks.html
    """
    from reidkit.cli.runs import find_model, trained_on
    from reidkit.data.manifest import locate
    from reidkit.errors import DataError

    if png.suffix.lower() != ".png":
        raise ConfigError(f"--png {png}: choose a name that ends in .png")
    check_new((png, html), overwrite=overwrite)
    path = find_model(model)
    name = dataset or trained_on(path)
    locate(name, data_root)
    if worst is None:
        worst = 0 if best or random or query else 20

    from reidkit.device import torch_device
    from reidkit.evaluation import EvaluationSettings, evaluate_features
    from reidkit.retrieval import RankingConfig, RerankConfig
    from reidkit.runtime.embedder import load_embedder
    from reidkit.runtime.extraction import extract_split
    from reidkit.visualize.ranked_lists import save_html, save_png
    from reidkit.visualize.ranks import choose_rows, ranked_rows

    data = open_data(name, data_root)
    if data.task == "classification":
        raise DataError(f"{data.name} is a classification data set: it has no ranked lists")
    config = RerankConfig() if rerank else None
    settings = EvaluationSettings(rerank=config, flip=flip, batch=batch)
    where = torch_device(device)
    embedder = load_embedder(path, device=str(where), trust=trust)
    splits: tuple[Split, ...] = ("query", "gallery")
    features = []
    for split in splits:
        with progress(f"embedding {data.name} {split}") as on_progress:
            features.append(extract_split(embedder, data, split, settings, on_progress=on_progress))
    queries, gallery = features
    with stage_progress() as on_stage:
        evaluation = evaluate_features(
            queries, gallery, settings, device=where, on_progress=on_stage
        )
    metrics = evaluation.reranked or evaluation.plain
    aps = metrics.average_precision
    rows = choose_rows(queries, aps, worst=worst, best=best, random=random, paths=query or ())
    lists = ranked_rows(
        queries,
        gallery,
        rows,
        root=data.root,
        config=RankingConfig(metrics.protocol, rerank=config),
        top=top,
        aps=aps,
    )
    title = f"{path}, {data.name}: mAP {100 * metrics.mAP:.1f}, rank-1 {100 * metrics.rank(1):.1f}"
    save_png(png, lists, title=title)
    if html:
        save_html(html, lists, title=title)
    if json:
        files = {"png": str(png), "html": None if html is None else str(html)}
        print_json({**files, "queries": [queries.paths[row] for row in rows]})
        return
    print(title)
    for file in (png, html):
        if file is not None:
            print(file)


@app.command(cls=option_panels(EMBEDDING_PANELS))
def embedding(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL|FEATURES",
            help="Checkpoint, run folder, ONNX file or features file.",
            show_default="the newest run",
        ),
    ] = None,
    dataset: OptionalDatasetOption = None,
    data_root: DataRootOption = None,
    split: Annotated[Split, typer.Option(help="Split to show.")] = "gallery",
    images_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the paths in a features file, to show its images."),
    ] = None,
    method: Annotated[
        ProjectionMethod, typer.Option(help="Projection to the plane; tsne needs scikit-learn.")
    ] = "pca",
    colour: Annotated[ColourBy, typer.Option(help="What has one colour and marker.")] = "identity",
    count: Annotated[
        int, typer.Option(min=3, help="Images to show, all those of some identities.")
    ] = 200,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
    png: Annotated[Path, typer.Option(help="Picture to write.")] = Path("embedding.png"),
    html: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Show embeddings as a map of images.

    Identities are chosen at random and shown whole. In the HTML page, pointing at an image shows
    the others of its identity or camera.

    \b
    Examples:
      reidkit visualize embedding runs/x --dataset market1501 --html map.html
      reidkit visualize embedding g.h5 --images-root data --method tsne
      reidkit visualize embedding model.onnx --dataset market1501 --colour camera
    """
    from reidkit.cli.runs import find_model, trained_on
    from reidkit.cli.search import FEATURES
    from reidkit.data.manifest import locate
    from reidkit.visualize.embedding_map import (
        embedding_map,
        import_tsne,
        save_map_html,
        save_map_png,
    )

    if png.suffix.lower() != ".png":
        raise ConfigError(f"--png {png}: choose a name that ends in .png")
    check_new((png, html), overwrite=overwrite)
    if method == "tsne":
        import_tsne()
    if source is not None and source.suffix.lower() in FEATURES:
        if dataset is not None:
            raise ConfigError(f"{source} is a features file: leave out --dataset")
        root, features = images_root, _stored_features(source, count)
    else:
        if images_root is not None:
            raise ConfigError("--images-root belongs to a features file, not to a model")
        path = find_model(source)
        name = dataset or trained_on(path)
        locate(name, data_root)
        data = open_data(name, data_root)
        features = _split_features(
            path, data, split, count, batch=batch, device=device, trust=trust
        )
        root = data.root

    shown = embedding_map(features, method=method, colour=colour, root=root)
    title = "newest run" if source is None else source.name if source.is_file() else str(source)
    save_map_png(png, shown, title=title)
    if html is not None:
        save_map_html(html, shown, title=title)
    print(f"{len(shown.points):,} images: {shown.projection.title}")
    for file in (png, html):
        if file is not None:
            print(file)


def _stored_features(file: Path, count: int) -> Features:
    """At most `count` rows of a features file."""
    import dataclasses

    from reidkit.features import read_features
    from reidkit.visualize.embedding_map import choose_items

    stored = read_features(file)
    rows = choose_items(stored.pids, stored.roles, count=count)
    return dataclasses.replace(
        stored,
        features=stored.features[rows],
        pids=stored.pids[rows],
        camids=stored.camids[rows],
        paths=tuple(stored.paths[row] for row in rows),
        roles=stored.roles[rows],
    )


def _split_features(
    model: Path,
    data: Dataset,
    split: Split,
    count: int,
    *,
    batch: int | None,
    device: str,
    trust: bool,
) -> Features:
    """Embeddings of at most `count` images of a split."""
    import dataclasses

    import numpy as np

    from reidkit.errors import DataError
    from reidkit.runtime.embedder import load_embedder
    from reidkit.runtime.extraction import ExtractionSettings, extract_split
    from reidkit.types import ROLES
    from reidkit.visualize.embedding_map import choose_items

    items = getattr(data, split)
    if not items:
        raise DataError(f"{data.name} has no {split} split. Choose another one: --split train")
    pids = np.array([item.pid for item in items], np.int64)
    roles = np.array([ROLES.index(item.role) for item in items], np.uint8)
    chosen: dict[str, Any] = {
        split: tuple(items[row] for row in choose_items(pids, roles, count=count))
    }
    embedder = load_embedder(model, device=device, trust=trust)
    with progress(f"embedding {data.name} {split}") as on_progress:
        return extract_split(
            embedder,
            dataclasses.replace(data, **chosen),
            split,
            ExtractionSettings(batch=batch),
            on_progress=on_progress,
        )
