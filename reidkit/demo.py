"""The whole pipeline on synthetic pedestrians; every stage reads the files of the one before."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from reidkit.config import Layer, load_run_config, preset_layer
from reidkit.data.manifest import locate, open_dataset
from reidkit.device import torch_device
from reidkit.errors import ReidkitError
from reidkit.evaluation import (
    Evaluation,
    EvaluationSettings,
    evaluate,
    evaluate_features,
)
from reidkit.export.exporter import export_onnx
from reidkit.export.verification import Parity
from reidkit.features import Features, read_features, write_features
from reidkit.files import exclusive_lock
from reidkit.masks.prepare import prepare_synthetic
from reidkit.masks.store import MaskStore
from reidkit.retrieval import RankingConfig, RerankConfig, RetrievalMetrics
from reidkit.runtime.embedder import Embedder, load_embedder
from reidkit.runtime.extraction import extract_split
from reidkit.runtime.torch_embedder import TorchEmbedder
from reidkit.synthetic import LAYOUTS
from reidkit.training.setup import build_model
from reidkit.training.trainer import Callbacks, RunOptions, Trainer
from reidkit.types import PARTS, SPLITS, Dataset
from reidkit.visualize.ranked_lists import save_png
from reidkit.visualize.ranks import ranked_rows

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
"""IAUnet's recipe reduced to what two CPU cores train from scratch in two minutes."""

TRAIN_PIDS, TEST_PIDS = 60, 40

UNFINISHED = "UNFINISHED-DEMO"
"""File in the folder of a demo that is under way, or was stopped."""


@dataclass(frozen=True)
class DemoCallbacks:
    """Functions that `run_demo` calls; the command line prints through them.

    Attributes:
        on_stage: at the start of a stage, with its name and the equivalent command.
        on_progress: (done, total) of the stage.
    """

    on_stage: Callable[[str, str], None] = lambda stage, command: None
    on_progress: Callable[[int, int], None] = lambda done, total: None
    training: Callbacks = field(default_factory=Callbacks)


@dataclass(frozen=True)
class DemoResult:
    """Measurements of one demo.

    Attributes:
        metrics: of "untrained", "trained", "trained, re-ranked" and "ONNX".
        seconds: per stage, in order.
        parities: the exported file compared with PyTorch.
        peak_memory: bytes, of this process plus its largest child; None if unknown.
        files: written files, relative to the demo's folder.
    """

    metrics: dict[str, RetrievalMetrics]
    seconds: dict[str, float]
    parities: list[Parity]
    peak_memory: int | None
    files: list[str]


class Demo:
    """The stages of the demo, all under one folder.

    Args:
        out: a new or empty folder, or that of a demo which was stopped; it starts again.
        recipe: changes to the architecture's own preset.
    """

    def __init__(
        self,
        out: Path,
        *,
        seed: int = 0,
        device: str = "cpu",
        train_pids: int = TRAIN_PIDS,
        test_pids: int = TEST_PIDS,
        recipe: Layer = RECIPE,
        callbacks: DemoCallbacks | None = None,
    ) -> None:
        self.out, self.seed, self.device = out, seed, device
        self.train_pids, self.test_pids = train_pids, test_pids
        self.callbacks = callbacks or DemoCallbacks()
        self.config = load_run_config(
            [preset_layer("iaunet"), recipe, Layer("demo", {"seed": seed})]
        )
        self.root, self.run_folder = out / "data", out / "run"
        self.masks = out / "masks" / "synth-market1501.h5"
        self.features = out / "query.h5", out / "gallery.h5"
        self.ranked = out / "ranked.png"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, command: str) -> Iterator[None]:
        """Announces a stage and measures it."""
        self.callbacks.on_stage(name, command)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def run(self) -> DemoResult:
        """Synthesizes data, prepares masks, trains, evaluates, re-ranks, extracts, exports,
        evaluates the export, and plots ranked lists.

        Raises:
            ReidkitError: if the device is not available, the folder contains anything else or is
                in use by another demo, or the mAP of the export differs from that of the
                checkpoint.
        """
        torch_device(self.device)
        with self._unfinished():
            return self._run_stages()

    @contextmanager
    def _unfinished(self) -> Iterator[None]:
        """Within, a file in the folder says that its demo is unfinished: the next one removes what
        this one has written."""
        mark = self.out / UNFINISHED
        if self.out.exists() and any(self.out.iterdir()) and not mark.is_file():
            raise ReidkitError(f"{self.out} is not empty. Choose another folder with --out")
        self.out.mkdir(parents=True, exist_ok=True)
        mark.write_text("This demo was stopped. The same command starts it again.\n")
        with exclusive_lock(mark):
            for folder in (self.root, self.masks.parent, self.run_folder):
                shutil.rmtree(folder, ignore_errors=True)
            for file in (*self.features, self.ranked):
                file.unlink(missing_ok=True)
            yield
            mark.unlink()

    def _run_stages(self) -> DemoResult:
        root, checkpoint = self.root, self.run_folder / "model.safetensors"
        onnx = self.run_folder / "model.onnx"
        with self.stage("synthesize", f"reidkit datasets synth {root} --train-pids 60 ..."):
            self._synthesize()
        data = open_dataset(str(root))
        with self.stage("prepare-masks", f"reidkit prepare-masks --dataset {root}"):
            self._prepare_masks(data)
        with self.stage("evaluate untrained", "the same network before training"):
            untrained = self._evaluate(self._untrained(), data)
        with self.stage("train", f"reidkit train --arch iaunet --dataset {root} ..."):
            self._train(data)
        with self.stage("extract", f"reidkit extract {checkpoint} --dataset {root} --split query"):
            self._extract(checkpoint, data)
        with self.stage("eval", f"reidkit eval {checkpoint} --dataset {root}"):
            trained = self._evaluate_features(data, EvaluationSettings())
        with self.stage("eval --rerank", f"reidkit eval {checkpoint} --dataset {root} --rerank"):
            reranked = self._evaluate_features(data, EvaluationSettings(rerank=RerankConfig()))
        with self.stage("export --onnx", f"reidkit export {checkpoint} --onnx"):
            parities = export_onnx(checkpoint, onnx).parities
        with self.stage("eval ONNX", f"reidkit eval {onnx} --dataset {root}"):
            exported = self._evaluate(load_embedder(onnx, device="cpu", trust=True), data)
        gap = abs(exported.plain.mAP - trained.plain.mAP)
        if gap > 1e-4:
            raise ReidkitError(
                f"the mAP of {onnx} differs from that of {checkpoint} by {gap:.2e}, expected at "
                "most 1e-4"
            )
        with self.stage("plot", "eight queries with their ten nearest"):
            self._plot(data)
        assert reranked.reranked is not None
        return DemoResult(
            metrics={
                "untrained": untrained.plain,
                "trained": trained.plain,
                "trained, re-ranked": reranked.reranked,
                "ONNX": exported.plain,
            },
            seconds=self.seconds,
            parities=parities,
            peak_memory=_peak_memory(),
            files=sorted(
                path.relative_to(self.out).as_posix()
                for path in self.out.rglob("*")
                if path.is_file() and path.name != UNFINISHED
            ),
        )

    def _synthesize(self) -> None:
        LAYOUTS["market1501"](
            self.root,
            train_pids=self.train_pids,
            test_pids=self.test_pids,
            seed=self.seed,
            on_progress=self.callbacks.on_progress,
        )

    def _prepare_masks(self, data: Dataset) -> None:
        manifest, _ = locate(str(self.root))
        assert manifest.labels is not None, "synthetic data sets include label maps"
        prepare_synthetic(self.masks, data, manifest.labels, progress=self.callbacks.on_progress)

    def _untrained(self) -> Embedder:
        torch.manual_seed(self.seed)
        model = build_model(self.config, num_ids=self.train_pids)
        return TorchEmbedder(model, preprocess=self.config.input, device=torch_device(self.device))

    def _train(self, data: Dataset) -> None:
        Trainer(
            self.config,
            data,
            folder=self.run_folder,
            masks=MaskStore.open(self.masks, dataset=data, parts=PARTS),
            device=torch_device(self.device),
            options=RunOptions(workers=1),
            callbacks=self.callbacks.training,
        ).fit()

    def _extract(self, checkpoint: Path, data: Dataset) -> None:
        embedder = load_embedder(checkpoint, device=self.device)
        for split, path in zip(SPLITS[1:], self.features, strict=True):
            features = extract_split(embedder, data, split, on_progress=self.callbacks.on_progress)
            write_features(path, features)

    def _evaluate(self, embedder: Embedder, data: Dataset) -> Evaluation:
        return evaluate(
            embedder,
            data,
            on_progress=lambda stage, done, total: self.callbacks.on_progress(done, total),
        )

    def _evaluate_features(self, data: Dataset, settings: EvaluationSettings) -> Evaluation:
        query, gallery = (read_features(path) for path in self.features)
        return evaluate_features(query, gallery, settings)

    def _plot(self, data: Dataset) -> None:
        query, gallery = (read_features(path) for path in self.features)
        rows = _one_query_per_person(query, count=8)
        config = RankingConfig(data.protocol)
        ranked = ranked_rows(query, gallery, rows, root=data.root, config=config)
        title = "Queries and their ten nearest by cosine distance"
        save_png(self.ranked, ranked, title=title)


def _one_query_per_person(query: Features, *, count: int) -> np.ndarray:
    """Rows of `count` queries of different persons, sampled with a fixed seed, in order."""
    chosen: dict[int, int] = {}
    for row in np.random.default_rng(0).permutation(len(query.pids)):
        if len(chosen) < count:
            chosen.setdefault(int(query.pids[row]), int(row))
    return np.sort(np.array(list(chosen.values())))


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (own + children) * unit
