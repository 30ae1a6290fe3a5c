"""reidkit visualize: ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import (
    BatchOption,
    DataRootOption,
    DeviceOption,
    FlipOption,
    JsonOption,
    ModelArgument,
    open_data,
)
from reidkit.cli.output import print_json, progress, stage_progress
from reidkit.errors import ConfigError
from reidkit.types import Split

app = typer.Typer(help="See what a model finds and looks at.", no_args_is_help=True)


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
    batch: BatchOption = 64,
    device: DeviceOption = "auto",
    png: Annotated[Path, typer.Option(help="Picture to write.")] = Path("ranks.png"),
    html: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
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
    embedder = load_embedder(path, device=str(where))
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
