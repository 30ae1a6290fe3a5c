"""reidkit eval."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from reidkit.choices import ApRule, Metric, ProtocolName
from reidkit.cli.evaluation_output import (
    print_means,
    print_results,
    with_distinct_names,
    write_all_failures,
    write_results,
)
from reidkit.cli.options import (
    THIRD_PARTY,
    BatchOption,
    ClipsOption,
    CompileOption,
    DataRootOption,
    DeviceOption,
    EmbeddingOption,
    FlipOption,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    ThreadsOption,
    TrustOption,
    open_data,
    third_party_options,
)
from reidkit.cli.output import print_json, stage_progress
from reidkit.cli.runs import (
    TABLE_SUFFIXES,
    find_model,
    run_folder,
    trained_on,
    warn_if_data_changed,
)
from reidkit.errors import ConfigError
from reidkit.files import check_regular

if TYPE_CHECKING:
    from reidkit.evaluation import Evaluation, EvaluationResult, EvaluationSettings
    from reidkit.features import Features
    from reidkit.runtime.embedder import Embedder
    from reidkit.types import Dataset

PANELS = {
    "Data": ("dataset", "data_root", "query_features", "gallery_features", "multi_query"),
    "Ranking": (
        *("protocol", "metric", "ap", "rerank", "k1", "k2", "lam", "query_expansion"),
        *("database_augmentation", "alpha", "target_fpr", "max_memory"),
    ),
    "Embedding": ("flip", "clips", "embedding"),
    "Execution": ("batch", "device", "threads", "provider", "precision", "compile_"),
    "Third-party ONNX models": THIRD_PARTY,
    "Output": ("out", "failures", "json"),
}


@third_party_options
def evaluate(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL",
            help="Checkpoints, run folders or ONNX files.",
            show_default="the newest run",
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Data set name, manifest file or folder; repeatable.", show_default="as trained"
        ),
    ] = None,
    data_root: DataRootOption = None,
    query_features: Annotated[
        Path | None, typer.Option(help="Features file of the queries, in place of a model.")
    ] = None,
    gallery_features: Annotated[
        Path | None, typer.Option(help="Features file of the gallery, in place of a model.")
    ] = None,
    protocol: Annotated[
        ProtocolName | None,
        typer.Option(
            metavar="NAME",
            help=f"Evaluation protocol: {', '.join(get_args(ProtocolName))}.",
            show_default="the data set's",
        ),
    ] = None,
    metric: Annotated[Metric, typer.Option(help="Distance metric.")] = "cosine",
    ap: Annotated[
        ApRule,
        typer.Option(help="Rule of average precision; trapezoid is that of RGA's and PFSA's code."),
    ] = "step",
    flip: FlipOption = False,
    clips: ClipsOption = "tclnet",
    rerank: Annotated[
        bool,
        typer.Option("--rerank", help="Also evaluate k-reciprocal re-ranking (Zhong et al. 2017)."),
    ] = False,
    k1: Annotated[int, typer.Option(help="Neighbour list length of re-ranking.")] = 20,
    k2: Annotated[int, typer.Option(help="Neighbours averaged by re-ranking.")] = 6,
    lam: Annotated[
        float, typer.Option("--lambda", help="Weight of the original distance in re-ranking.")
    ] = 0.3,
    query_expansion: Annotated[
        int, typer.Option(min=0, help="Average each query with its N nearest gallery vectors.")
    ] = 0,
    database_augmentation: Annotated[
        int, typer.Option(min=0, help="Average each gallery vector with its N nearest neighbours.")
    ] = 0,
    alpha: Annotated[
        float,
        typer.Option(
            help="Weight neighbours by similarity^alpha (alpha-QE, Radenovic et al. 2018); "
            "0 weights them equally (AQE, Chum et al. 2007)."
        ),
    ] = 0.0,
    multi_query: Annotated[
        Path | None,
        typer.Option(
            help="Average each query over the images of its identity and camera in this folder "
            "(Market-1501: gt_bbox; Zheng et al. 2015)."
        ),
    ] = None,
    target_fpr: Annotated[
        float | None,
        typer.Option(help="Report the verification threshold at this false positive rate."),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(help="Limit memory of ranking beyond the features, e.g. 500MiB or 2GiB."),
    ] = None,
    trust: TrustOption = False,
    embedding: EmbeddingOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
    precision: PrecisionOption = "fp32",
    compile_: CompileOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for metrics.json and curves.", show_default="the run folder"
        ),
    ] = None,
    failures: Annotated[
        Path | None,
        typer.Option(help="Write the queries by AP, the worst first, with paths (CSV)."),
    ] = None,
    json: JsonOption = False,
    *,
    inputs: dict[str, Any],
) -> None:
    """Evaluate a model or extracted features.

    Prints mAP, mINP and CMC, and writes ROC and CMC curves.

    Models are checkpoints, run folders and ONNX files of any origin. Several runs are also
    summarised by mean and standard deviation; the splits of a data set (CUHK03's classic protocol)
    count as one data set. Classification data sets (CIFAR-100) are evaluated by top-1 and top-5
    accuracy.

    \b
    Examples:
      reidkit eval runs/x --dataset market1501 --rerank
      reidkit eval model.onnx --dataset market1501 --dataset dukemtmc-reid
      reidkit eval runs/split0 runs/split1 runs/split2
      reidkit eval --query-features q.h5 --gallery-features g.h5 --protocol market
    """
    from reidkit.cli.options import embedding_option, parse_memory
    from reidkit.config import require
    from reidkit.data.manifest import locate

    check_distinct("--dataset", dataset or [], [locate(name, data_root) for name in dataset or []])
    for features in (query_features, gallery_features):
        if features is not None:
            check_regular(features, ConfigError)
        require(features is None or features.is_file(), f"no such features file: {features}")
        require(
            features is None or features.suffix.lower() not in TABLE_SUFFIXES,
            f"{features}: features are read from .h5 and .npz files only",
        )
    from_files = query_features is not None or gallery_features is not None
    if from_files and (query_features is None or gallery_features is None):
        raise ConfigError("pass both --query-features and --gallery-features")
    if from_files:
        require(not models, "pass either features files or a model, not both")
        require(not dataset, "features files state their data set: remove --dataset")
    memory = None if max_memory is None else parse_memory(max_memory)
    files = [] if from_files else [find_model(path) for path in models or (None,)]
    check_distinct("model", files, [path.resolve() for path in files])
    names = {path: dataset or [trained_on(path)] for path in files}
    for name in dict.fromkeys(name for of_model in names.values() for name in of_model):
        locate(name, data_root)
    require(
        multi_query is None or multi_query.is_dir(), f"--multi-query {multi_query}: no such folder"
    )

    from reidkit.device import torch_device
    from reidkit.evaluation import EvaluationSettings, evaluate_features
    from reidkit.retrieval import RerankConfig
    from reidkit.run_statistics import run_statistics
    from reidkit.runtime.embedder import load_embedder
    from reidkit.runtime.execution import Execution

    settings = EvaluationSettings(
        protocol=protocol,
        metric=metric,
        rerank=RerankConfig(k1, k2, lam) if rerank else None,
        ap=ap,
        query_expansion=query_expansion,
        database_augmentation=database_augmentation,
        alpha=alpha,
        target_fpr=target_fpr,
        max_memory=memory,
        thresholds=True,
        by_camera=True,
        per_query=failures is not None,
        flip=flip,
        clips=clips,
        batch=batch,
    )
    where = torch_device(device)
    options: dict[str, Any] = {"device": where}
    results: list[EvaluationResult] = []
    if from_files:
        assert query_features is not None and gallery_features is not None
        with stage_progress() as on_progress:
            result = evaluate_features(
                query_features, gallery_features, settings, **options, on_progress=on_progress
            )
        results = with_distinct_names([result])
        if out is not None:
            write_results(out, results)
    else:
        require(
            out is None or len(files) == 1,
            "--out takes the results of one model. Leave it out: those of a run are written to its "
            "run folder",
        )
        for path in files:
            embedder = load_embedder(
                path,
                device=str(where),
                inputs=inputs,
                options=embedding_option(embedding),
                execution=Execution(provider, threads, "throughput", precision, compile_),
                trust=trust,
            )
            found = [
                evaluate_model(embedder, name, data_root, settings, options, multi_query)
                for name in names[path]
            ]
            for on_one in found:
                warn_if_data_changed(path, on_one.dataset, on_one.dataset_fingerprint)
            found = [dataclasses.replace(result, model=str(path)) for result in found]
            folder = out or run_folder(path)
            if folder is not None:
                write_results(folder, with_distinct_names(found))
            results += found
    results = with_distinct_names(results)
    if failures is not None:
        write_all_failures(failures, results)
    means = run_statistics(results) if len(files) > 1 else []
    if json:
        documents = [result.to_dict() for result in results]
        table = {"means": [mean.to_dict() for mean in means]} if means else {}
        print_json(documents[0] if len(documents) == 1 else {"results": documents, **table})
    else:
        print_results(results)
        print_means(means)


def check_distinct(what: str, names: Sequence[object], meant: Sequence[object]) -> None:
    """Passes if all names mean different things, so that nothing counts twice in means.

    Args:
        meant: what each name stands for.
    Raises:
        ConfigError: naming the first repetition.
    """
    for number, name in enumerate(names):
        if meant[number] in meant[:number]:
            earlier = names[meant.index(meant[number])]
            same = "" if earlier == name else f", as {earlier}"
            raise ConfigError(f"{what} {name} is given more than once{same}. Leave one of them out")


def evaluate_model(
    embedder: Embedder,
    name: str,
    data_root: Path | None,
    settings: EvaluationSettings,
    options: dict[str, Any],
    multi_query: Path | None,
) -> EvaluationResult:
    """Evaluation on one data set, with progress.

    Args:
        options: of `evaluate_by_task`.
        multi_query: folder of the images to average queries over, if any.
    """
    from reidkit.config import require
    from reidkit.evaluation import evaluate_by_task

    data = open_data(name, data_root)
    with stage_progress() as on_progress:
        options = {**options, "on_progress": on_progress}
        if multi_query is None:
            return evaluate_by_task(embedder, data, settings, **options)
        require(data.task == "retrieval", "--multi-query needs a retrieval data set")
        images = read_folder(multi_query, name, data_root)
        found = evaluate_multi_query(embedder, data, images, settings, options)
        return dataclasses.replace(found, multi_query=str(multi_query))


def evaluate_multi_query(
    embedder: Embedder,
    data: Dataset,
    images: Dataset,
    settings: EvaluationSettings,
    options: dict[str, Any],
) -> Evaluation:
    """Evaluation with each query averaged over the images of its identity by its camera."""
    from reidkit.evaluation import evaluate_features, pool_features
    from reidkit.runtime.extraction import extract_split
    from reidkit.types import Split

    on_progress = options["on_progress"]

    def extract(dataset: Dataset, split: Split) -> Features:
        return extract_split(
            embedder,
            dataset,
            split,
            settings,
            on_progress=lambda done, total: on_progress(
                f"embedding {dataset.name} {split}", done, total
            ),
        )

    query = pool_features(extract(data, "query"), extract(images, "train"))
    return evaluate_features(query, extract(data, "gallery"), settings, **options)


def read_folder(folder: Path, name: str, data_root: Path | None) -> Dataset:
    """The images of a folder as the train split of a data set, labelled by the file names that
    the data set `name` uses."""
    from reidkit.data.manifest import locate, read_dataset
    from reidkit.data.schema import SplitSpec

    manifest, _ = locate(name, data_root)
    splits = {"train": SplitSpec(folder=folder.name)}
    return read_dataset(dataclasses.replace(manifest, splits=splits), folder.resolve().parent)
