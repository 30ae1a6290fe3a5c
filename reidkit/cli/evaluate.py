"""reidkit eval."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.common import (
    DataRootOption,
    DatasetOption,
    DeviceOption,
    JsonOption,
    print_json,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from reidkit.retrieval import Report

RANKS = (1, 5, 10, 20)


def evaluate(
    model: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint, run folder or .onnx file. [default: the newest run]"),
    ] = None,
    dataset: DatasetOption = "",
    data_root: DataRootOption = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Also re-rank by k-reciprocal encoding.")
    ] = False,
    metric: Annotated[str, typer.Option(help="cosine or euclidean")] = "cosine",
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirror image's embedding.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Judge a network: mAP, mINP and CMC by the data set's protocol."""
    from reidkit import retrieval
    from reidkit.data.manifest import open_dataset
    from reidkit.embed import load_embedder, newest_run
    from reidkit.evaluate import as_embeddings, embed_split

    path = model or newest_run()
    data = open_dataset(dataset or trained_on(path), data_root)
    embedder = load_embedder(path, device=device)
    sets = []
    for split in ("query", "gallery"):
        with progress(f"embedding {split}") as on_progress:
            features = embed_split(
                embedder, data, split, flip=flip, batch=batch, on_progress=on_progress
            )
        sets.append(as_embeddings(features, split))
    query, gallery = sets
    reports = {"plain": retrieval.evaluate(query, gallery, protocol=data.protocol, metric=metric)}
    if rerank:
        reports["re-ranked"] = retrieval.evaluate(
            query,
            gallery,
            protocol=data.protocol,
            metric=metric,
            rerank=retrieval.RerankConfig(),
        )
    if json:
        document: dict[str, Any] = {
            "model": str(path),
            "model_sha256": embedder.source_hash,
            "dataset": data.name,
            "dataset_fingerprint": data.fingerprint,
            "synthetic": data.synthetic,
            "flip": flip,
            **reports["plain"].to_dict(),
            "reranked": reports["re-ranked"].to_dict() if rerank else None,
        }
        print_json(document)
        return
    print_reports(reports, title=f"{embedder.name} on {data.name}")
    if data.synthetic:
        print("synthetic data: not comparable with published numbers", file=sys.stderr)


def print_reports(reports: dict[str, Report], *, title: str) -> None:
    """One line per report, percentages."""
    rows = [
        [
            name,
            *(f"{100 * value:.2f}" for value in (report.mAP, report.mINP)),
            *(f"{100 * report.rank(k):.2f}" for k in RANKS),
        ]
        for name, report in reports.items()
    ]
    print_table(["", "mAP", "mINP", *(f"rank-{k}" for k in RANKS)], rows, title=title)
    first = next(iter(reports.values()))
    print(
        f"protocol {first.protocol}, {first.metric}; {first.queries:,} queries"
        f" ({first.queries_without_match} without a match), {first.gallery_size:,} gallery items"
        f" and {first.junk:,} junk"
    )


def trained_on(path: Path) -> str:
    """The data set in a checkpoint's header, for `eval` without --dataset."""
    from reidkit.checkpoint import read_header
    from reidkit.errors import ConfigError

    name = read_header(path).dataset if path.suffix == ".safetensors" else ""
    if not name:
        raise ConfigError("say on which data set: --dataset NAME")
    return name
