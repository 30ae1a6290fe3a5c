"""reidkit eval."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import (
    ClipsOption,
    DataRootOption,
    DeviceOption,
    EmbeddingOption,
    JsonOption,
    open_data,
)
from reidkit.cli.output import print_json, print_table, progress, stage_progress

if TYPE_CHECKING:
    from reidkit.choices import ClipRule
    from reidkit.evaluation import Ranking
    from reidkit.retrieval import Embeddings, Report
    from reidkit.runtime.embedder import Embedder

log = logging.getLogger(__name__)

RANKS = (1, 5, 10, 20)
Options = dict[str, Any]


def evaluate(
    model: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint, run folder or .onnx file. [default: the newest run]"),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Name, manifest or folder; repeat it for several. [default: as trained]"),
    ] = None,
    data_root: DataRootOption = None,
    query_features: Annotated[
        Path | None, typer.Option(help="Features file to judge in place of a model.")
    ] = None,
    gallery_features: Annotated[Path | None, typer.Option(help="Its gallery.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Ranking rule. [default: the data set's]")
    ] = None,
    metric: Annotated[str, typer.Option(help="cosine or euclidean")] = "cosine",
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirror image's embedding.")] = False,
    clips: ClipsOption = "tclnet",
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Also re-rank by k-reciprocal encoding.")
    ] = False,
    k1: Annotated[int, typer.Option(help="Re-ranking: length of neighbour lists.")] = 20,
    k2: Annotated[int, typer.Option(help="Re-ranking: neighbours averaged.")] = 6,
    lam: Annotated[
        float, typer.Option("--lambda", help="Re-ranking: weight of the plain distance.")
    ] = 0.3,
    expand: Annotated[
        int, typer.Option(min=0, help="Query expansion with so many neighbours.")
    ] = 0,
    augment: Annotated[
        int, typer.Option(min=0, help="Database augmentation with so many neighbours.")
    ] = 0,
    alpha: Annotated[float, typer.Option(help="Their weights are cosine to this power.")] = 0.0,
    multi_query: Annotated[
        Path | None,
        typer.Option(help="Pool each query over its person's images by its camera in this folder."),
    ] = None,
    target_fpr: Annotated[
        float | None, typer.Option(help="Store the threshold of this false positive rate.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Budget above the features, such as 500MiB or 2GiB.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Another tool's ONNX: input HEIGHTxWIDTH. [default: 256x128]")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Another tool's ONNX: three numbers. [default: ImageNet's]")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Another tool's ONNX: three numbers. [default: ImageNet's]")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Another tool's ONNX: rgb or bgr. [default: rgb]")
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(help="Another tool's ONNX: bilinear or bicubic. [default: bicubic]"),
    ] = None,
    embedding: EmbeddingOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: DeviceOption = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for metrics.json and curves. [default: the run]"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Judge a network or features: mAP, mINP, CMC, ROC, by the data set's protocol."""
    from reidkit.cli.options import embedding_option, external_inputs, parse_memory
    from reidkit.config import require
    from reidkit.device import torch_device
    from reidkit.evaluation import Ranking
    from reidkit.retrieval import RerankConfig
    from reidkit.runtime.embedder import load_embedder, newest_run

    ranking = Ranking(
        protocol=protocol,
        metric=metric,
        rerank=RerankConfig(k1, k2, lam) if rerank else None,
        expand=expand,
        augment=augment,
        alpha=alpha,
        max_memory=None if max_memory is None else parse_memory(max_memory),
    )
    inputs = external_inputs(size=size, mean=mean, std=std, channels=channels, resize=resize)
    require(target_fpr is None or 0 < target_fpr < 1, f"--target-fpr {target_fpr}: between 0 and 1")
    both = query_features is not None, gallery_features is not None
    require(both[0] == both[1], "give both --query-features and --gallery-features")
    require(not (any(both) and (model or dataset)), "give features files or a model, not both")
    where = torch_device(device)
    results: list[tuple[Options, dict[str, Report]]] = []
    if query_features is not None and gallery_features is not None:
        named, query, gallery = _read_files(query_features, gallery_features)
        judged = _judge(query, gallery, ranking, str(named["protocol"]), where)
        results.append((named, judged))
    else:
        path = model or newest_run()
        embedder = load_embedder(
            path, device=str(where), inputs=inputs, options=embedding_option(embedding)
        )
        out = out or run_folder(path)
        for name in dataset or [trained_on(path)]:
            named, query, gallery = _embed(embedder, path, name, data_root, flip, batch, clips)
            if multi_query is not None:
                named["multi_query"] = str(multi_query)
                query = _pool(embedder, query, multi_query, name, data_root, flip, batch)
            judged = _judge(query, gallery, ranking, str(named["protocol"]), where)
            results.append((named, judged))
    _tell_apart([named for named, _ in results])
    documents = [_document(named, judged, target_fpr) for named, judged in results]
    if out is not None:
        _write(out, results, documents)
    if json:
        for document in documents:
            document.pop("per_query")
        print_json(documents[0] if len(documents) == 1 else {"results": documents})
        return
    _print(results, documents)


def _embed(
    embedder: Embedder,
    path: Path,
    name: str,
    data_root: Path | None,
    flip: bool,
    batch: int,
    clips: ClipRule,
) -> tuple[Options, Embeddings, Embeddings]:
    from reidkit.data.clips import has_tracklets
    from reidkit.evaluation import as_embeddings, embed_split

    data = open_data(name, data_root)
    sets = []
    for split in ("query", "gallery"):
        with progress(f"embedding {data.name} {split}") as on_progress:
            features = embed_split(
                embedder, data, split, flip=flip, batch=batch, clips=clips, on_progress=on_progress
            )
        sets.append(as_embeddings(features, split))
    named = {
        "model": str(path),
        "model_sha256": embedder.source_hash,
        "dataset": data.name,
        "dataset_fingerprint": data.fingerprint,
        "synthetic": data.synthetic,
        "flip": flip,
        "frames": embedder.frames,
        "clips": clips if has_tracklets(data.gallery) else None,
        "protocol": data.protocol,
    }
    return named, sets[0], sets[1]


def _pool(
    embedder: Embedder,
    query: Embeddings,
    folder: Path,
    name: str,
    data_root: Path | None,
    flip: bool,
    batch: int,
) -> Embeddings:
    """Multi-query: Market-1501 gives the further images of each query in its folder gt_bbox."""
    from dataclasses import replace

    from reidkit.data.manifest import locate, read_dataset
    from reidkit.data.schema import SplitSpec
    from reidkit.evaluation import as_embeddings, embed_split
    from reidkit.retrieval import pool_queries

    manifest, _ = locate(name, data_root)
    alone = replace(manifest, splits={"train": SplitSpec(folder=folder.name)})
    data = read_dataset(alone, folder.resolve().parent)
    with progress(f"embedding {folder.name}") as on_progress:
        images = embed_split(
            embedder, data, "train", flip=flip, batch=batch, on_progress=on_progress
        )
    return pool_queries(query, as_embeddings(images, str(folder)))


def _tell_apart(named: list[Options]) -> None:
    """Two data sets of one name get their fingerprints' beginnings after it."""
    prints: dict[str, set[str]] = {}
    for one in named:
        prints.setdefault(one["dataset"], set()).add(one.get("dataset_fingerprint", ""))
    for one in named:
        if len(prints[one["dataset"]]) > 1:
            one["dataset"] += f"-{one['dataset_fingerprint'][:8]}"


def _read_files(query: Path, gallery: Path) -> tuple[Options, Embeddings, Embeddings]:
    from reidkit.evaluation import as_embeddings
    from reidkit.features import read_features

    files = [read_features(path) for path in (query, gallery)]
    attributes = files[0].attributes
    named = {
        "query_features": str(query),
        "gallery_features": str(gallery),
        "dataset": str(attributes.get("dataset", query.stem)),
        "protocol": str(attributes.get("protocol", "market")),
    }
    sets = [as_embeddings(f, str(p)) for f, p in zip(files, (query, gallery), strict=True)]
    return named, sets[0], sets[1]


def _judge(
    query: Embeddings, gallery: Embeddings, ranking: Ranking, protocol: str, device: Any
) -> dict[str, Report]:
    from reidkit.evaluation import judge
    from reidkit.retrieval import forecast

    expected = forecast(
        len(query),
        len(gallery),
        query.dim,
        rerank=ranking.rerank,
        max_memory=ranking.max_memory,
        device=device,
    )
    if expected.seconds > 10:
        log.info(
            "ranking %s x %s will take about %.0f s and %.0f MiB above the features",
            f"{len(query):,}",
            f"{len(gallery):,}",
            expected.seconds,
            expected.memory / 2**20,
        )
    with stage_progress() as on_progress:
        return judge(
            query, gallery, ranking, protocol=protocol, device=device, on_progress=on_progress
        )


def _document(named: Options, judged: dict[str, Report], target_fpr: float | None) -> Options:
    plain = judged["plain"]
    document = {**named, **plain.to_dict(per_query=True)}
    if plain.queries_without_match < plain.queries:
        document["intervals"] = {name: vars(i) for name, i in plain.intervals().items()}
    if target_fpr is not None:
        assert plain.pairs is not None
        document["operating_point"] = vars(plain.pairs.operating_point(target_fpr))
    document["reranked"] = judged["re-ranked"].to_dict() if "re-ranked" in judged else None
    return document


def _write(
    folder: Path, results: list[tuple[Options, dict[str, Report]]], documents: list[Options]
) -> None:
    import json

    from reidkit.files import atomic
    from reidkit.visualize.plots import plot_curves

    with atomic(folder / "metrics.json") as partial:
        partial.write_text(json.dumps({"results": documents}, indent=1))
    for named, judged in results:
        path = folder / f"curves-{named['dataset']}.png"
        plot_curves(judged, path, title=f"{named.get('model', 'features')} on {named['dataset']}")
        log.info("%s", path)


def _print(results: list[tuple[Options, dict[str, Report]]], documents: list[Options]) -> None:
    rows = []
    for (named, judged), document in zip(results, documents, strict=True):
        for name, report in judged.items():
            interval = document.get("intervals", {}).get("mAP") if name == "plain" else None
            spread = f"{100 * interval['low']:.1f}-{100 * interval['high']:.1f}" if interval else ""
            numbers = [report.mAP, report.mINP, *(report.rank(k) for k in RANKS)]
            cells = [f"{100 * value:.2f}" for value in numbers]
            rows.append([named["dataset"], name, cells[0], spread, *cells[1:]])
    header = ["data set", "", "mAP", "95 %", "mINP", *(f"rank-{k}" for k in RANKS)]
    source = results[0][0].get("model") or results[0][0]["query_features"]
    print_table(header, rows, title=str(source))
    for (named, judged), document in zip(results, documents, strict=True):
        plain = judged["plain"]
        print(
            f"{named['dataset']}: protocol {plain.protocol}, {plain.metric}; "
            f"{plain.queries:,} queries ({plain.queries_without_match} without a match), "
            f"{plain.gallery_size:,} gallery items and {plain.junk:,} junk"
        )
        if "operating_point" in document:
            point = document["operating_point"]
            print(
                f"{named['dataset']}: same person below distance {point['threshold']:.4f}: "
                f"true positives {100 * point['tpr']:.2f} %, false {100 * point['fpr']:.4f} %"
            )
        if named.get("synthetic"):
            print("synthetic data: not comparable with published numbers", file=sys.stderr)


def run_folder(path: Path) -> Path | None:
    """The run that a model belongs to, which keeps its results; None for a file of its own."""
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "config.toml").is_file() else None


def trained_on(path: Path) -> str:
    """The data set in a checkpoint's header, for `eval` without --dataset."""
    from reidkit.checkpoint import read_header
    from reidkit.config.tables import read_toml
    from reidkit.errors import ConfigError

    file = path / "model.safetensors" if path.is_dir() else path
    run = run_folder(path)
    root = read_toml(run / "config.toml").get("dataset", {}).get("root") if run else None
    if root and (Path(root) / "manifest.toml").is_file():
        return str(root)  # a set of its own, known by its place
    name = read_header(file).dataset if file.suffix == ".safetensors" else ""
    if not name:
        raise ConfigError("say on which data set: --dataset NAME")
    return name
