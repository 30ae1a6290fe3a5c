"""The whole pipeline on drawn pedestrians, each stage by the files the stage before it wrote."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reidkit import retrieval
from reidkit.config import Layer, RunConfig, load_run_config, preset_layer
from reidkit.data.manifest import locate, open_dataset
from reidkit.device import torch_device
from reidkit.errors import ReidkitError
from reidkit.evaluation import as_embeddings, embed_split, evaluate
from reidkit.features import Features, read_features, write_features
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.matching import label_stem, match_labels
from reidkit.masks.prepare import prepare
from reidkit.masks.sources import index_maps
from reidkit.masks.store import MaskStore
from reidkit.retrieval import Report, RerankConfig
from reidkit.runtime.embedder import Embedder, TorchEmbedder, load_embedder
from reidkit.runtime.export import Parity, export_onnx
from reidkit.synthetic import LAYOUTS
from reidkit.training.run import Watch, build_model, run
from reidkit.types import PARTS, Dataset
from reidkit.visualize.plots import RankedRow, plot_ranked_lists

RECIPE = Layer(
    "demo recipe",
    {
        "arch": {"name": "iaunet", "backbone": "resnet18"},
        "input": {"size": [128, 64]},
        "sampler": {"batch": 32},
        "optim": {"lr": 1e-3},
        "schedule": {"epochs": 6, "kind": "cosine", "warmup_epochs": 1, "warmup_lr": 1e-4},
        "test": {"every": 0},
        "weights": "none",
    },
)
"""IAUnet's own recipe, made small: what two CPU cores train from nothing in two minutes."""

TRAIN_PIDS, TEST_PIDS = 60, 40


@dataclass(frozen=True)
class DemoWatch:
    """What is told to whoever watches; the command line prints it."""

    on_stage: Callable[[str, str], None] = lambda stage, command: None
    on_progress: Callable[[int, int], None] = lambda done, total: None
    training: Watch = field(default_factory=Watch)


@dataclass(frozen=True)
class DemoResult:
    """All measured in this run.

    Attributes:
        reports: "untrained", "trained", "trained, re-ranked" and "ONNX".
        seconds: per stage, in order.
        parities: how the exported file compares with PyTorch.
        peak_memory: largest resident size of this process and of any child, bytes (None: unknown).
        files: what was made, relative to the demo's folder.
    """

    reports: dict[str, Report]
    seconds: dict[str, float]
    parities: list[Parity]
    peak_memory: int | None
    files: list[str]


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    train_pids: int = TRAIN_PIDS,
    test_pids: int = TEST_PIDS,
    recipe: Layer = RECIPE,
    watch: DemoWatch | None = None,
) -> DemoResult:
    """Synthesises, prepares masks, trains, evaluates, re-ranks, extracts, exports, evaluates the
    export, and draws ranked lists, all under `out`.

    Args:
        recipe: changes to the architecture's own preset.

    Raises:
        ReidkitError: if `out` is not empty, or the export's mAP is not that of the checkpoint.
    """
    watch = watch or DemoWatch()
    if out.exists() and any(out.iterdir()):
        raise ReidkitError(f"{out} is not empty. Take another place: reidkit demo --out DIR")
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str, command: str) -> Iterator[None]:
        watch.on_stage(name, command)
        started = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - started

    root, masks = out / "data", out / "masks" / "synth-market1501.h5"
    folder, onnx = out / "run", out / "run" / "model.onnx"
    best = folder / "model.safetensors"
    with stage("synth", f"reidkit datasets synth {root} --train-pids {train_pids} ..."):
        LAYOUTS["market1501"](
            root,
            train_pids=train_pids,
            test_pids=test_pids,
            seed=seed,
            on_progress=watch.on_progress,
        )
    data = open_dataset(str(root))
    with stage("prepare-masks", f"reidkit prepare-masks --dataset {root}"):
        _prepare_masks(root, data, masks, watch.on_progress)
    config = load_run_config([preset_layer("iaunet"), recipe, Layer("demo", {"seed": seed})])
    reports = {}
    with stage("evaluate untrained", "the same network before training"):
        reports["untrained"] = evaluate(
            _untrained(config, train_pids, device), data, on_progress=watch.on_progress
        )
    with stage("train", f"reidkit train --arch iaunet --dataset {root} ..."):
        run(
            config,
            data,
            folder=folder,
            masks=MaskStore.open(masks, dataset=data, parts=PARTS),
            device=torch_device(device),
            workers=1,
            watch=watch.training,
        )
    with stage("extract", f"reidkit extract {best} --dataset {root} --split query"):
        embedder = load_embedder(best, device=device)
        files = _extract(embedder, data, out, watch.on_progress)
    query, gallery = (as_embeddings(read_features(path), path.stem) for path in files)
    with stage("eval", f"reidkit eval {best} --dataset {root}"):
        reports["trained"] = retrieval.evaluate(query, gallery, protocol=data.protocol)
    with stage("eval --rerank", f"reidkit eval {best} --dataset {root} --rerank"):
        reports["trained, re-ranked"] = retrieval.evaluate(
            query, gallery, protocol=data.protocol, rerank=RerankConfig()
        )
    with stage("export --onnx", f"reidkit export {best} --onnx"):
        parities = export_onnx(best, onnx)
    with stage("eval ONNX", f"reidkit eval {onnx} --dataset {root}"):
        reports["ONNX"] = evaluate(
            load_embedder(onnx, device="cpu"), data, on_progress=watch.on_progress
        )
    gap = abs(reports["ONNX"].mAP - reports["trained"].mAP)
    if gap > 1e-4:
        raise ReidkitError(f"{onnx} differs from {best} by {gap:.2e} in mAP, expected 1e-4 at most")
    with stage("picture", "query, ten nearest"):
        _picture(data, read_features(files[0]), read_features(files[1]), out / "ranked.png")
    made = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    return DemoResult(reports, seconds, parities, peak_memory(), made)


def peak_memory() -> int | None:
    """Largest resident size so far of this process plus that of its largest child, bytes."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (own + children) * unit


def _prepare_masks(
    root: Path, data: Dataset, path: Path, on_progress: Callable[[int, int], None]
) -> None:
    manifest, _ = locate(str(root))
    assert manifest.labels is not None, "synthetic sets carry their label maps"
    samples = [item for item in data.train if not hasattr(item, "frames")]
    matching = match_labels([s.path for s in samples], root / manifest.labels, stem=label_stem)
    source = index_maps(root, matching.complete(), default_grouping(load_label_set("lip")))
    prepare(path, data, samples, source, split="train", progress=on_progress)


def _untrained(config: RunConfig, num_ids: int, device: str) -> Embedder:
    import torch

    torch.manual_seed(config.seed)
    model = build_model(config, num_ids=num_ids)
    return TorchEmbedder(model, preprocess=config.input, device=torch_device(device))


def _extract(
    embedder: Embedder, data: Dataset, out: Path, on_progress: Callable[[int, int], None]
) -> tuple[Path, Path]:
    paths = (out / "query.h5", out / "gallery.h5")
    write_features(paths[0], embed_split(embedder, data, "query", on_progress=on_progress))
    write_features(paths[1], embed_split(embedder, data, "gallery", on_progress=on_progress))
    return paths


def _picture(data: Dataset, query: Features, gallery: Features, path: Path) -> None:
    """Eight queries of eight people, evenly spread, each with its ten nearest."""
    chosen: list[int] = []
    seen: set[int] = set()
    for row in np.random.default_rng(0).permutation(len(query.pids)):
        if query.pids[row] not in seen and len(chosen) < 8:
            seen.add(query.pids[row])
            chosen.append(int(row))
    rows = np.sort(np.array(chosen))
    lists = retrieval.top_n(
        as_embeddings(query, "query").take(rows),
        as_embeddings(gallery, "gallery"),
        10,
        protocol=data.protocol,
    )
    ranked = []
    for row, found, distances in zip(rows, lists.indices, lists.distances, strict=True):
        kept = [(int(g), float(d)) for g, d in zip(found, distances, strict=True) if g >= 0]
        ranked.append(
            RankedRow(
                query=data.root / query.paths[row],
                query_caption=f"id {query.pids[row]} cam {query.camids[row]}",
                found=[data.root / gallery.paths[g] for g, _ in kept],
                matches=[bool(gallery.pids[g] == query.pids[row]) for g, _ in kept],
                captions=[f"cam {gallery.camids[g]}  {d:.2f}" for g, d in kept],
            )
        )
    plot_ranked_lists(ranked, path, title="Queries and their ten nearest by cosine distance")
