"""Top-1 and top-5 accuracy of a network's classifier."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reidkit.classification import (
    ClassificationResult,
    class_probabilities,
    evaluate_classification,
)
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation import evaluate_by_task, percentages
from reidkit.preprocess import Preprocess
from reidkit.runtime.torch_embedder import TorchEmbedder
from reidkit.types import Dataset, ModelOutput, Sample

GREYS = (0, 40, 80, 120, 160, 200, 240)


class GreyClassifier(nn.Module):
    """Logits are negative distances to the class greys, in the order of labels."""

    def __init__(self, greys: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("greys", torch.tensor(greys, dtype=torch.float32))

    def forward(self, images: Tensor) -> ModelOutput:
        assert not self.training
        grey = images.mean((1, 2, 3)) * 255
        return ModelOutput(grey[:, None], (-(grey[:, None] - self.greys).abs(),))


def embedder(greys: tuple[int, ...] = GREYS, **options: Any) -> TorchEmbedder:
    model: Any = GreyClassifier(greys)
    preprocess = Preprocess(size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1))
    model.train()
    return TorchEmbedder(
        model, preprocess=preprocess, device=torch.device("cpu"), name="greys", **options
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Classes are numbered 10, 20, ... in the order of their greys; of seven test images five are
    of their class's grey, one of the next class's and one of the most distant class's."""
    root = tmp_path_factory.mktemp("classes")
    shown = [*GREYS[:5], GREYS[6], GREYS[0]]
    samples = []
    for n, grey in enumerate(shown):
        Image.new("RGB", (4, 4), (grey,) * 3).save(root / f"{n}.png")
        samples.append(Sample(f"{n}.png", pid=10 * (n + 1), camid=0))
    return Dataset(
        name="greys",
        root=root,
        train=tuple(samples),
        query=tuple(samples),
        gallery=(),
        protocol="",
        fingerprint="f",
        task="classification",
    )


def test_accuracy_is_that_of_the_classifier(data: Dataset) -> None:
    found = evaluate_by_task(embedder(), data)
    assert isinstance(found, ClassificationResult)
    assert found.labels.tolist() == list(range(7))
    assert found.ranks.tolist() == [1, 1, 1, 1, 1, 2, 7]
    assert found.top1 == found.score == pytest.approx(5 / 7)
    assert found.top5 == pytest.approx(6 / 7)


def test_results_do_not_depend_on_the_batch_size_or_mirroring(data: Dataset) -> None:
    expected = evaluate_classification(embedder(), data).ranks.tolist()
    assert evaluate_classification(embedder(), data, batch=2).ranks.tolist() == expected
    assert evaluate_classification(embedder(), data, flip=True).ranks.tolist() == expected


def test_a_result_is_a_json_document_a_table_and_stored_metrics(data: Dataset) -> None:
    found = evaluate_classification(embedder(), data)
    document = json.loads(json.dumps(found.to_dict(per_query=True)))
    assert document["task"] == "classification" and document["dataset"] == "greys"
    assert document["per_query"]["rank"] == found.ranks.tolist()
    assert found.rows() == [["greys", "71.43", "85.71", "7"]]
    assert len(found.columns) == len(found.rows()[0])
    assert found.summary() == "top-1 71.4  top-5 85.7"
    assert percentages(found.metrics()) == pytest.approx({"top-1": 500 / 7, "top-5": 600 / 7})


def test_probabilities_sum_to_one_and_the_network_keeps_its_mode(data: Dataset) -> None:
    network = embedder()
    paths = [data.root / item.path for item in data.query]
    probabilities = class_probabilities(network, paths, batch=3)
    assert probabilities.shape == (7, 7)
    assert probabilities.sum(1) == pytest.approx(np.ones(7), abs=1e-6)
    assert network.model.training


def test_models_without_a_suitable_classifier_are_refused(data: Dataset) -> None:
    class Exported:
        name = "model.onnx"

    exported: Any = Exported()
    with pytest.raises(ConfigError, match=r"model.onnx has no classifier.*Evaluate the checkpoint"):
        evaluate_classification(exported, data)
    with pytest.raises(ConfigError, match="was trained on 3 classes, greys has 7"):
        evaluate_classification(embedder(GREYS[:3]), data)
    with pytest.raises(ConfigError, match="takes clips of 4 frames"):
        evaluate_classification(embedder(frames=4), data)


def test_test_images_of_unknown_classes_are_refused(data: Dataset) -> None:
    fewer = dataclasses.replace(data, train=data.train[:5])
    with pytest.raises(DataError, match=r"query classes \[60, 70\] are not in the training split"):
        evaluate_classification(embedder(), fewer)
