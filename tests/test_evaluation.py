"""One evaluation from an embedder, from features in memory, or from features files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.data.manifest import open_dataset
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation import (
    Evaluation,
    EvaluationSettings,
    evaluate,
    evaluate_by_task,
    evaluate_features,
    percentages,
    pool_features,
)
from reidkit.features import write_features
from reidkit.preprocess import Preprocess
from reidkit.retrieval import RerankConfig
from reidkit.runtime.extraction import extract_split
from reidkit.types import Dataset


class ColourEmbedder:
    """Embeds an image as the mean colours of 4x2 cells."""

    name = "colours"
    source_hash = "abc"
    frames = 0
    concurrency = 1
    preprocess = Preprocess(size=(64, 32), mean=(0, 0, 0), std=(1, 1, 1))

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        B, H, W, C = pixels.shape
        cells = pixels.reshape(B, 4, H // 4, 2, W // 2, C).mean((2, 4), dtype=np.float32)
        return cells.reshape(B, -1) / 255


@pytest.fixture(scope="module")
def data(market: Path) -> Dataset:
    return open_dataset(str(market))


@pytest.fixture(scope="module")
def evaluation(data: Dataset) -> Evaluation:
    settings = EvaluationSettings(rerank=RerankConfig(5, 2), target_fpr=0.05, by_camera=True)
    return evaluate(ColourEmbedder(), data, settings)


def test_features_of_different_models_are_refused(data: Dataset) -> None:
    query, gallery = (extract_split(ColourEmbedder(), data, s) for s in ("query", "gallery"))
    other = dataclasses.replace(gallery, attributes={**gallery.attributes, "model_sha256": "def"})
    with pytest.raises(DataError, match="query and gallery contain features of different models"):
        evaluate_features(query, other)


@pytest.mark.parametrize(
    ("key", "value"), [("flip", True), ("preprocess", "{}"), ("image_backend", "torchvision")]
)
def test_features_that_were_extracted_in_different_ways_are_refused(
    data: Dataset, key: str, value: object
) -> None:
    query, gallery = (extract_split(ColourEmbedder(), data, s) for s in ("query", "gallery"))
    other = dataclasses.replace(gallery, attributes={**gallery.attributes, key: value})
    with pytest.raises(DataError, match=f"extracted in different ways: {key} is .* and {value!r}"):
        evaluate_features(query, other)


def test_clips_by_different_rules_are_refused_and_other_data_sets_are_named(
    data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    query, gallery = (
        dataclasses.replace(
            extract_split(ColourEmbedder(), data, split),
            attributes={"clips": rule, "dataset": name},
        )
        for split, rule, name in (("query", "tclnet", "one"), ("gallery", "first", "other"))
    )
    with pytest.raises(DataError, match="clips is 'tclnet' and 'first'"):
        evaluate_features(query, gallery)
    gallery.attributes["clips"] = ""  # of images
    evaluate_features(query, gallery)
    assert "are of different data sets, one and other" in caplog.text


def test_an_evaluation_contains_model_data_set_settings_and_metrics(
    data: Dataset, evaluation: Evaluation
) -> None:
    assert (evaluation.model, evaluation.model_sha256) == ("colours", "abc")
    assert evaluation.dataset == data.name and evaluation.synthetic
    assert evaluation.dataset_fingerprint == data.fingerprint
    assert evaluation.plain.protocol == data.protocol == "market"
    assert evaluation.reranked is not None and evaluation.plain.cameras
    assert evaluation.operating_point is not None and evaluation.operating_point.fpr <= 0.05
    assert evaluation.score == evaluation.plain.rank(1)


def test_features_in_memory_and_in_files_give_the_same_metrics(
    data: Dataset, evaluation: Evaluation, tmp_path: Path
) -> None:
    query, gallery = (extract_split(ColourEmbedder(), data, s) for s in ("query", "gallery"))
    in_memory = evaluate_features(query, gallery, evaluation.settings)
    assert in_memory.to_dict() == evaluation.to_dict()
    files = tmp_path / "q.h5", tmp_path / "g.h5"
    for path, features in zip(files, (query, gallery), strict=True):
        write_features(path, features)
    from_files = evaluate_features(*files, evaluation.settings)
    expected = {**evaluation.to_dict(), "query_features": str(files[0])}
    assert from_files.to_dict() == {**expected, "gallery_features": str(files[1])}


def test_features_without_attributes_are_ranked_as_market_and_named_after_their_file(
    data: Dataset, tmp_path: Path
) -> None:
    files = []
    for split in ("query", "gallery"):
        features = extract_split(ColourEmbedder(), data, split)
        files.append(tmp_path / f"{split}.h5")
        write_features(files[-1], dataclasses.replace(features, attributes={}))
    found = evaluate_features(*files)
    assert (found.dataset, found.plain.protocol, found.model) == ("query", "market", "")


def test_an_evaluation_is_one_json_document(evaluation: Evaluation) -> None:
    document = json.loads(json.dumps(evaluation.to_dict(per_query=True)))
    assert document["mAP"] == evaluation.plain.mAP
    assert document["reranked"]["rerank"] == {"k1": 5, "k2": 2, "lambda": 0.3}
    assert document["intervals"]["mAP"]["low"] <= document["mAP"]
    assert document["operating_point"]["target"] == 0.05
    assert len(document["per_query"]["pid"]) == document["queries"]
    assert "per_query" not in evaluation.to_dict()
    assert document["clips"] is None and document["frames"] == 0


def test_a_table_has_one_row_per_ranking(evaluation: Evaluation) -> None:
    rows = evaluation.rows()
    assert [row[1] for row in rows] == ["plain", "re-ranked"]
    assert all(len(row) == len(evaluation.columns) for row in rows)
    assert rows[0][2] == f"{100 * evaluation.plain.mAP:.2f}"


def test_stored_metrics_give_the_percentages_of_the_summary(evaluation: Evaluation) -> None:
    stored = json.loads(json.dumps(evaluation.metrics()))
    found = percentages(stored)
    assert list(found) == ["mAP", "rank-1", "rank-5", "rank-10"]
    assert evaluation.summary() == f"mAP {found['mAP']:.1f}  rank-1 {found['rank-1']:.1f}"


def test_the_protocol_of_the_settings_overrides_that_of_the_data_set(data: Dataset) -> None:
    found = evaluate(ColourEmbedder(), data, EvaluationSettings(protocol="none"))
    assert found.plain.protocol == "none"
    assert found.plain.pairs is None  # thresholds were not requested


def test_query_expansion_and_database_augmentation_change_the_ranking(data: Dataset) -> None:
    plain = evaluate(ColourEmbedder(), data).plain.mAP
    for settings in (
        EvaluationSettings(query_expansion=3, alpha=3),
        EvaluationSettings(database_augmentation=3),
    ):
        assert evaluate(ColourEmbedder(), data, settings).plain.mAP != plain


def test_pooling_queries_over_themselves_changes_only_their_length(data: Dataset) -> None:
    query = extract_split(ColourEmbedder(), data, "query")
    pooled = pool_features(query, query)
    unit = query.features / np.linalg.norm(query.features, axis=1, keepdims=True)
    assert pooled.features == pytest.approx(unit, abs=1e-6)
    assert pooled.attributes == query.attributes


def test_progress_is_reported_by_stage(data: Dataset) -> None:
    stages: dict[str, tuple[int, int]] = {}

    def on_progress(stage: str, done: int, total: int) -> None:
        stages[stage] = done, total

    evaluate(ColourEmbedder(), data, on_progress=on_progress)
    assert list(stages) == [f"embedding {data.name} {s}" for s in ("query", "gallery")] + [
        "ranking"
    ]
    assert all(done == total for done, total in stages.values())


def test_classification_data_sets_are_refused_and_the_message_names_the_alternative(
    data: Dataset,
) -> None:
    classes = dataclasses.replace(data, task="classification", protocol="")
    with pytest.raises(ConfigError, match="evaluate_by_task"):
        evaluate(ColourEmbedder(), classes)
    assert isinstance(evaluate_by_task(ColourEmbedder(), data), Evaluation)


def test_an_empty_split_is_refused(data: Dataset) -> None:
    with pytest.raises(DataError, match="has no gallery split"):
        evaluate(ColourEmbedder(), dataclasses.replace(data, gallery=()))


def test_a_target_fpr_outside_0_to_1_is_refused() -> None:
    for rate in (0.0, 1.0):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            EvaluationSettings(target_fpr=rate)
