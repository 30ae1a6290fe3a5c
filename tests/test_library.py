"""`import reidkit` costs nothing and gives the library's functions, which take what users have."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import reidkit
from reidkit import checkpoint, cli
from reidkit.classification import ClassificationResult
from reidkit.data.manifest import load_manifest
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation import EvaluationSettings, evaluate_features
from reidkit.features import Features, read_features, write_features
from reidkit.index.filling import feature_records, header_of
from reidkit.index.opening import create_index
from reidkit.preprocess import Preprocess
from reidkit.retrieval import (
    Embeddings,
    GalleryLabels,
    RankingConfig,
    RerankConfig,
    compute_metrics,
    metrics_from_distances,
    top_n,
)
from reidkit.runtime.extraction import ExtractionSettings, extract_images, extract_split
from reidkit.types import Batch, Dataset, ModelOutput, Sample, Tracklet

ROOT = Path(reidkit.__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights, in the folder of a run."""
    torch.manual_seed(0)
    size, options = (64, 32), {"backbone": "resnet18"}
    network = reidkit.create_model("baseline", num_ids=3, input_size=size, options=options)
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    checkpoint.save(path, network, checkpoint.Header("baseline", options, Preprocess(size), 3))
    return path


@pytest.fixture(scope="module")
def dataset(market: Path) -> Dataset:
    return reidkit.open_dataset(market)


@pytest.fixture(scope="module")
def features(model: Path, dataset: Dataset) -> tuple[Features, Features]:
    """Of the query and the gallery."""
    runtime = reidkit.load(model)
    return extract_split(runtime, dataset, "query"), extract_split(runtime, dataset, "gallery")


def test_a_path_may_begin_with_the_home_folder(
    model: Path, market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "run").symlink_to(model.parent)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Market-1501-v15.09.15").symlink_to(market)
    image = sorted((market / "query").glob("*.jpg"))[0]
    (tmp_path / "who.jpg").symlink_to(image)
    runtime = reidkit.load("~/run/model.safetensors", device="cpu")
    row = runtime.embed("~/who.jpg")
    assert np.array_equal(row, runtime.embed(image))
    dataset = reidkit.open_dataset("market1501", "~/data")
    write_features(tmp_path / "q.h5", extract_split(runtime, dataset, "query"))
    stored = reidkit.read_features("~/q.h5")
    create_index(str(tmp_path / "q.index"), header_of(stored)).add(
        stored.features, feature_records(stored, where=Path("q.h5"))
    )
    for gallery in ("~/q.h5", "~/q.index"):
        (records,) = reidkit.search(row, gallery, 1).records
        assert records[0].path == f"query/{image.name}"


def test_a_negative_number_of_identities_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"found num_ids=-3, expected 0 \(no classifier\) or more"
    ):
        reidkit.create_model("baseline", num_ids=-3)


def run_python(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# The import


def test_every_public_name_can_be_used() -> None:
    assert all(callable(getattr(reidkit, name)) for name in reidkit.__all__)
    assert set(reidkit.__all__) <= set(dir(reidkit))
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = reidkit.serach  # type: ignore[attr-defined]  # that is the test


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(reidkit.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert seen == reidkit._MODULES
    assert sorted(seen) == sorted(reidkit.__all__)
    assert (ROOT / "reidkit/py.typed").is_file()


def test_importing_the_library_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, reidkit; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    assert run_python(code) == "[]"


def test_data_sets_and_features_are_read_without_torch(
    market: Path, features: tuple[Features, Features], tmp_path: Path
) -> None:
    write_features(tmp_path / "query.h5", features[0])
    code = (
        "import sys, reidkit; reidkit.open_dataset(sys.argv[1]); "
        "reidkit.read_features(sys.argv[2]); print('torch' in sys.modules)"
    )
    assert run_python(code, market, tmp_path / "query.h5") == "False"


# Documentation


def test_the_documentation_runs_as_it_is_written(
    market: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REIDKIT_DATA", str(tmp_path / "data"))
    Path("data").mkdir()
    Path("data/Market-1501-v15.09.15").symlink_to(market)
    Path("photos").symlink_to(market / "query")
    shutil.copy(sorted((market / "query").glob("*.jpg"))[0], "who.jpg")
    shutil.copy(model, "model.safetensors")
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) < 150
    (command,) = re.findall(r"`reidkit (index build .*)`", page)
    assert CliRunner().invoke(cli.app, command.split()).exit_code == 0
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, f"docs/python.md: {block.splitlines()[0]}", "exec"), names)
    assert len(blocks) > 8
    np.testing.assert_allclose(names["same"], names["who"].repeat(3, axis=0), atol=1e-5)
    np.testing.assert_allclose(names["bgr"], names["who"], atol=1e-5)
    np.testing.assert_allclose(names["tensor"], names["who"], atol=1e-5)
    first = sorted((market / "query").glob("*.jpg"))[0].name
    assert Path(names["found"].records[0][0].path).name == first  # the photo that who.jpg is
    assert names["distances"].shape == (len(names["photos"]), len(names["dataset"].gallery))


# Networks and models


def test_create_model_builds_a_network_by_name_and_options() -> None:
    network = reidkit.create_model(
        "baseline", num_ids=3, input_size=(64, 32), options={"backbone": "resnet18"}
    ).eval()
    with torch.inference_mode():
        assert network.embed(torch.zeros(2, 3, 64, 32)).shape == (2, 512)
    with pytest.raises(ConfigError, match="baseline options: unknown key backbon"):
        reidkit.create_model("baseline", options={"backbon": "resnet18"})


def test_load_takes_a_file_or_the_folder_of_a_run(model: Path) -> None:
    for path in (model, str(model), model.parent):
        assert reidkit.load(path).dimension == 512


def test_what_load_returns_is_what_evaluation_and_extraction_take(
    model: Path, market: Path, dataset: Dataset, features: tuple[Features, Features]
) -> None:
    runtime, query = reidkit.load(model), features[0]
    expected = evaluate_features(*features).to_dict()
    assert reidkit.evaluate(runtime, dataset).to_dict() == expected
    assert reidkit.evaluate(str(model), str(market)).to_dict() == expected
    files = [market / path for path in query.paths]
    np.testing.assert_array_equal(
        extract_images(runtime, [[path] for path in files]).features, query.features
    )
    rows = runtime.embed(files, normalise=False)
    np.testing.assert_allclose(rows, query.features, rtol=1e-4, atol=1e-5)
    flipped = extract_split(runtime, dataset, "query", ExtractionSettings(flip=True))
    assert (flipped.features != query.features).any()


def test_results_on_torchvisions_pixels_are_of_another_rule(model: Path, dataset: Dataset) -> None:
    settings = [EvaluationSettings(image_backend=name) for name in ("pillow", "torchvision")]
    plain, fast = (reidkit.evaluate(model, dataset, each) for each in settings)
    assert fast.rule == f"{plain.rule}, torchvision pixels"
    assert fast.plain.mAP == pytest.approx(plain.plain.mAP, abs=0.01)


def test_a_bare_network_is_not_evaluated(dataset: Dataset) -> None:
    network = reidkit.create_model("baseline", options={"backbone": "resnet18"})
    with pytest.raises(ConfigError, match=r"expected a model from reidkit\.load"):
        reidkit.evaluate(network, dataset)  # type: ignore[arg-type]  # that is the test


# Search and re-ranking


def unit(rows: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_search_finds_the_nearest_rows_by_cosine() -> None:
    query, gallery = unit(4, 0), unit(30, 1)
    found = reidkit.search(query, 3 * gallery, top=5)
    cosines = query @ gallery.T
    np.testing.assert_array_equal(found.indices, np.argsort(-cosines, axis=1)[:, :5])
    np.testing.assert_allclose(
        found.distances, 1 - np.sort(cosines, axis=1)[:, ::-1][:, :5], atol=1e-6
    )
    assert found.distances.dtype == np.float32 and found.records == ()
    assert reidkit.search(query, gallery, top=99).indices.shape == (4, 30)


def test_search_takes_lists_tensors_embeddings_and_files(
    features: tuple[Features, Features], tmp_path: Path
) -> None:
    query = features[0]
    gallery = replace(features[1], roles=np.zeros_like(features[1].roles))  # no junk
    write_features(tmp_path / "q.npz", query)
    write_features(tmp_path / "g.h5", gallery)
    expected = reidkit.search(query.features, gallery.features).indices
    for q, g in [
        (query, gallery),
        (str(tmp_path / "q.npz"), tmp_path / "g.h5"),
        (torch.from_numpy(query.features), gallery.features.astype(np.float64)),
        (query.features.tolist(), Embeddings.without_labels(gallery.features)),
    ]:
        np.testing.assert_array_equal(reidkit.search(q, g).indices, expected)
    records = reidkit.search(query, gallery).records
    assert records[1][2].path == gallery.paths[expected[1, 2]]
    assert records[1][2].person == str(gallery.pids[expected[1, 2]])


def test_no_queries_find_nothing() -> None:
    nobody, gallery = np.empty((0, 16), np.float32), unit(30, 1)
    found = reidkit.search(nobody, gallery, top=5)
    assert found.indices.shape == found.distances.shape == (0, 5)
    assert reidkit.rerank(nobody, gallery).shape == (0, 30)
    assert reidkit.search([], gallery).indices.shape == (0, 10)


def test_search_in_an_index_names_what_it_finds(
    features: tuple[Features, Features], tmp_path: Path
) -> None:
    query, gallery = features
    index = create_index(str(tmp_path / "people.index"), header_of(gallery))
    people = np.flatnonzero(gallery.roles != 1)  # an index has no junk
    records = feature_records(gallery, where=tmp_path)
    index.add(gallery.features[people], [records[row] for row in people])
    expected = reidkit.search(query, gallery, top=3)
    for q in (query, query.features):
        found = reidkit.search(q, tmp_path / "people.index", top=3)
        paths = [[record.path for record in row] for row in found.records]
        assert paths == [[record.path for record in row] for row in expected.records]
        np.testing.assert_allclose(found.distances, expected.distances, atol=1e-6)
        assert (found.indices == -1).all()
    assert reidkit.search(query.features[:0], tmp_path / "people.index").records == ()
    with pytest.raises(ConfigError, match="cannot be re-ranked"):
        reidkit.search(query, tmp_path / "people.index", rerank=True)
    with pytest.raises(DataError, match="another model"):
        other = replace(query, attributes={**query.attributes, "model_sha256": "0"})
        reidkit.search(other, tmp_path / "people.index")


def test_rerank_gives_the_distances_that_evaluation_ranks_by(
    features: tuple[Features, Features],
) -> None:
    query, gallery = features
    config = RankingConfig("market", rerank=RerankConfig(5, 3, 0.2))
    Q, G = (Embeddings(part.features, part.pids, part.camids, part.roles) for part in features)
    distances = reidkit.rerank(query, gallery, k1=5, k2=3, lam=0.2)
    expected = compute_metrics(Q, G, config)
    people = gallery.roles != 1  # junk is infinitely far
    assert np.isinf(distances[:, ~people]).all() and np.isfinite(distances[:, people]).all()
    labels = GalleryLabels(gallery.pids[people], gallery.camids[people], gallery.roles[people])
    found = metrics_from_distances(distances[:, people], query.pids, query.camids, labels)
    np.testing.assert_allclose(found.average_precision, expected.average_precision)
    nearest = reidkit.search(query, gallery, top=4, rerank=RerankConfig(5, 3, 0.2))
    rows = np.arange(len(distances))[:, None]
    np.testing.assert_array_equal(distances[rows, nearest.indices], nearest.distances)


def test_a_memory_budget_changes_no_reranked_distance() -> None:
    query, gallery = unit(300, 0), unit(600, 1)
    found = reidkit.rerank(query, gallery, max_memory=24 << 20)
    np.testing.assert_allclose(found, reidkit.rerank(query, gallery), atol=1e-6)
    with pytest.raises(ConfigError, match="a memory budget of 8 MiB is too small"):
        reidkit.rerank(query, gallery, max_memory=8 << 20)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (unit(4, 0)[0], r"query: features have shape \[16\], expected \[N, D\].*features\[None\]"),
        (unit(4, 0)[:, :8], "query has vectors of length 8, gallery of length 16"),
        (torch.tensor(1.0), r"query: features have shape \[\], expected \[N, D\]"),
        (np.zeros((2, 16)), "query: 2 of 2 vectors are zero"),
        ([[1.0, 2.0], [3.0]], r"query: features are not one array \[N, D\]"),
        (np.array([["a"]]), r"query: features are <U1 \[1, 1\], expected numbers"),
        (np.array([None, 1]), r"query: features are object \[2\], expected numbers"),
        ("missing.h5", "no such features file: missing.h5"),
        ("who.jpg", r"query: who.jpg is an image.*embed\('who.jpg'\)"),
    ],
)
def test_wrong_vectors_are_refused_with_what_was_found(query: Any, message: str) -> None:
    for function in (reidkit.search, reidkit.rerank):
        with pytest.raises(DataError, match=message):
            function(query, unit(30, 1))


def test_a_folder_is_not_a_gallery_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reidkit index build"):
        reidkit.search(unit(1, 0), tmp_path)
    with pytest.raises(DataError, match="gallery: features have shape"):
        reidkit.search(unit(1, 0), unit(1, 0)[:0])
    with pytest.raises(ConfigError, match="found top=0, expected at least 1"):
        reidkit.search(unit(1, 0), unit(2, 0), top=0)


def test_bfloat16_tensors_become_float32_arrays() -> None:
    rows = torch.eye(3, dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(Embeddings.without_labels(rows).features, np.eye(3))


def test_features_files_are_read_by_str_paths(
    features: tuple[Features, Features], tmp_path: Path
) -> None:
    write_features(tmp_path / "q.h5", features[0])
    np.testing.assert_array_equal(
        reidkit.read_features(str(tmp_path / "q.h5")).features,
        read_features(tmp_path / "q.h5").features,
    )


# Representations


@pytest.fixture
def examples(model: Path, dataset: Dataset, features: tuple[Features, Features]) -> list[Any]:
    query, gallery = features
    Q = Embeddings(query.features, query.pids, query.camids, query.roles, "a/long/path" * 20)
    G = Embeddings(gallery.features, gallery.pids, gallery.camids, gallery.roles)
    settings = EvaluationSettings(rerank=RerankConfig(5, 3), thresholds=True)
    evaluation = reidkit.evaluate(model, dataset, settings)
    frame = Sample("a/long/path" * 20, 7, 2)
    zeros = np.zeros(1000, np.int64)
    return [
        reidkit.load(model),
        dataset,
        dataset.gallery,
        load_manifest(ROOT / "data_manifests/market1501.toml"),
        Tracklet((frame,) * 500),
        query,
        Q,
        evaluation,
        evaluation.plain,
        evaluation.plain.pairs,
        top_n(Q, G, 3),
        reidkit.search(query, gallery),
        GalleryLabels(gallery.pids, gallery.camids, gallery.roles),
        ClassificationResult(zeros, zeros, "m" * 99, "", "d" * 99, "", False),
        Batch(torch.zeros(4, 3, 64, 32), torch.zeros(4), torch.zeros(4)),
        ModelOutput(torch.zeros(4, 512), (torch.zeros(4, 9),)),
    ]


def test_every_representation_is_one_short_line(examples: list[Any]) -> None:
    for example in examples:
        text = repr(example)
        assert text.startswith(type(example).__name__ + "(") and text.endswith(")")
        assert "\n" not in text and len(text) <= 100, text


def test_representations_say_what_a_value_is(examples: list[Any]) -> None:
    texts = [repr(example) for example in examples]
    assert texts[0] == "Runtime(baseline, 512-d, 64x32, cpu)"
    assert texts[2] == "Items(92 images, 5 identities, 6 cameras)"
    counts = [len(getattr(examples[1], split)) for split in ("train", "query", "gallery")]
    assert texts[1] == "Dataset({}: {} train, {} query, {} gallery)".format(
        "synth-market1501", *counts
    )
    assert texts[5] == f"Features(synth-market1501 query: {counts[1]} of 512-d, 5 identities)"
    assert texts[13] == "ClassificationResult({}: top-1 100.0, top-5 100.0, 1000 images)".format(
        "d" * 30
    )
    assert texts[15] == "ModelOutput(features [4, 512], logits [4, 9])"
