"""The same embeddings give the same metrics, from a checkpoint, an ONNX file or features files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reidkit.features import read_features

Run = Callable[..., str]


def third_party_model(path: Path, shape: list[int | str], *, outputs: int = 1) -> Path:
    """Writes a model whose embedding is the mean of each channel over 4x2 cells: 24 numbers."""
    last = shape[-1] == 3
    x = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("vector", TensorProto.FLOAT, [shape[0], 24])
    size = [s for s in (shape[1:3] if last else shape[2:4]) if isinstance(s, int)]
    kernel = [size[0] // 4, size[1] // 2]
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2])
        if last
        else helper.make_node("Identity", ["pixels"], ["nchw"]),
        helper.make_node("AveragePool", ["nchw"], ["cells"], kernel_shape=kernel, strides=kernel),
        helper.make_node("Flatten", ["cells"], ["vector"]),
    ]
    results = [y]
    if outputs == 2:
        nodes.append(helper.make_node("Flatten", ["cells"], ["second"]))
        results.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [shape[0], 24]))
    graph = helper.make_graph(nodes, "g", [x], results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def score(run: Run, *arguments: object) -> dict[str, float]:
    document: dict[str, float] = json.loads(run("eval", *arguments, "--device", "cpu", "--json"))
    return document


def test_third_party_onnx_models_may_have_any_batch_size_and_layout(
    market: Path, run: Run, tmp_path: Path
) -> None:
    shapes: list[list[int | str]] = [
        ["batch", 3, 64, 32],
        [1, 3, 64, 32],
        [5, 3, 64, 32],
        ["batch", 64, 32, 3],
    ]
    scores = [
        score(run, third_party_model(tmp_path / f"m{n}.onnx", shape), "--dataset", market)["mAP"]
        for n, shape in enumerate(shapes)
    ]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-6) and scores[0] > 0.05


def test_preprocessing_of_third_party_onnx_models_is_set_by_options_or_a_sidecar(
    market: Path, run: Run, tmp_path: Path
) -> None:
    model = third_party_model(tmp_path / "m.onnx", ["batch", 3, 64, 32])
    options = ("--mean", "0,0,0", "--std", "1,1,1", "--channels", "bgr", "--resize", "bilinear")
    plain = score(run, model, "--dataset", market)
    options_given = score(run, model, "--dataset", market, *options)
    (tmp_path / "m.toml").write_text(
        'mean = [0, 0, 0]\nstd = [1, 1, 1]\nchannels = "bgr"\ninterpolation = "bilinear"\n'
    )
    sidecar = score(run, model, "--dataset", market)
    assert options_given["mAP"] == sidecar["mAP"] != plain["mAP"]


def test_features_files_of_any_tool_give_the_metrics_of_their_model(
    market: Path, trained: Path, run: Run, tmp_path: Path
) -> None:
    model = trained / "runs/one"
    for split in ("query", "gallery"):
        options = ("--dataset", market, "--split", split, "-o", f"{split}.h5", "--device", "cpu")
        run("extract", model, *options)
        features = read_features(tmp_path / f"{split}.h5")
        kept = features.roles != 1  # a file without roles must not contain junk
        with h5py.File(tmp_path / f"bare-{split}.h5", "w") as file:
            file["features"] = features.features[kept].astype(np.float64)
            file["pids"] = features.pids[kept].astype(np.int32)
            file["camids"] = features.camids[kept].astype(np.int16)
    whole = score(run, model, "--dataset", market)
    for prefix in ("", "bare-"):
        files = [f"{prefix}{split}.h5" for split in ("query", "gallery")]
        found = score(run, "--query-features", files[0], "--gallery-features", files[1])
        assert found["mAP"] == pytest.approx(whole["mAP"], abs=1e-6)
        assert found["cmc"] == whole["cmc"]


def test_results_are_stored_in_the_run_folder_and_can_be_compared(
    market: Path, trained: Path, run: Run, refuse: Run, tmp_path: Path
) -> None:
    model = trained / "runs/one"
    options = ("--dataset", market, "--target-fpr", "0.05", "--device", "cpu")
    table = run("eval", model, *options)
    stored = json.loads((model / "metrics.json").read_text())["results"][-1]
    assert f"{100 * stored['mAP']:.2f}" in table
    assert stored["intervals"]["mAP"]["low"] <= stored["mAP"] <= stored["intervals"]["mAP"]["high"]
    assert stored["operating_point"]["fpr"] <= 0.05
    assert len(stored["per_query"]["average_precision"]) == stored["queries"]
    assert (model / "curves-synth-market1501.png").read_bytes().startswith(b"\x89PNG")

    other = third_party_model(tmp_path / "other.onnx", ["batch", 3, 64, 32])
    run("eval", other, "--dataset", market, "-o", "other", "--device", "cpu")
    tests = json.loads(run("compare", model, "other", "--json"))["tests"]
    assert tests["mAP"]["first"] == pytest.approx(stored["mAP"])
    assert 0 < tests["mAP"]["p_value"] <= 1
    folder = json.loads(run("compare", model, "other", "--dataset", market, "--json"))
    assert folder["dataset"] == "synth-market1501" and folder["tests"] == tests
    elsewhere = shutil.copytree(market, tmp_path / "elsewhere")
    next((elsewhere / "bounding_box_train").glob("*.jpg")).unlink()
    message = refuse("compare", model, "other", "--dataset", elsewhere)
    assert "no result on" in message and "results on synth-market1501" in message
    same = json.loads(run("compare", model, model, "--json"))["tests"]
    assert same["mAP"]["difference"] == 0 and same["mAP"]["p_value"] == 1


def test_results_are_kept_by_data_set_model_and_rule(
    market: Path, trained: Path, tmp_path: Path, run: Run, refuse: Run
) -> None:
    folder = shutil.copytree(trained / "runs/one", tmp_path / "one")
    (folder / "metrics.json").unlink(missing_ok=True)
    options = ("--dataset", market, "--device", "cpu")
    run("export", folder, "--onnx")
    run("eval", folder, *options)
    run("eval", folder, *options, "--flip")
    curves = folder / "curves-synth-market1501.png"
    before = curves.read_bytes()
    run("eval", folder / "model.onnx", *options)
    assert curves.read_bytes() == before  # the exported model's have a file of their own
    assert (folder / "curves-synth-market1501-model-onnx.png").is_file()
    run("eval", folder, *options)  # replaces the first

    def stored() -> list[tuple[str, str]]:
        found = json.loads((folder / "metrics.json").read_text())["results"]
        return [(Path(result["model"]).name, result["rule"]) for result in found]

    rule = "protocol market, cosine, step AP"
    assert stored() == [
        ("model.safetensors", f"{rule}, flip"),
        ("model.onnx", rule),
        ("model.safetensors", rule),
    ]
    run("eval", folder, *options, "--flip", "-o", "flipped")
    assert f"{rule}, flip" in run("compare", folder, "flipped")
    run("eval", folder, *options, "--metric", "euclidean", "-o", "euclidean")
    assert "nothing in common" in refuse("compare", folder, "euclidean")


RESULT = {
    "model": "x",
    "dataset": "market1501",
    "rule": "cosine",
    "ap": "step",
    "mAP": 0.5,
    "cmc": [0.5, 1],
    "reranked": None,
    "per_query": {
        "pid": [1, 2],
        "camid": [1, 1],
        "average_precision": [0.4, 0.6],
        "inverse_negative_penalty": [0.4, None],
        "rank_1": [0, 1.0],
    },
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dataset": 3}, "dataset of result 1"),
        ({"rule": None}, "rule of result 1"),
        ({"model": ["x"]}, "model of result 1"),
        ({"ap": "half"}, "ap of result 1"),
        ({"ap": []}, "ap of result 1"),
        ({"mAP": "0.5"}, "mAP of result 1"),
        ({"mAP": True}, "mAP of result 1"),
        ({"cmc": 0.5}, "cmc of result 1"),
        ({"reranked": "no"}, "reranked of result 1"),
        ({"per_query": []}, "per_query of result 1"),
        ({"per_query": {}}, "per_query.pid of result 1"),
        ({"per_query": {**RESULT["per_query"], "pid": [1]}}, "per_query.camid of result 1"),
        ({"per_query": {**RESULT["per_query"], "pid": [1.5, 2]}}, "per_query.pid of result 1"),
        ({"per_query": {**RESULT["per_query"], "rank_1": ["1", 2]}}, "per_query.rank_1 of result"),
    ],
)
def test_edited_results_are_refused_by_file_and_field(
    change: dict[str, object], expected: str, run: Run, refuse: Run
) -> None:
    Path("metrics.json").write_text(json.dumps({"results": [RESULT]}))
    Path("edited.json").write_text(json.dumps({"results": [{**RESULT, **change}]}))
    run("compare", "metrics.json", "metrics.json")
    message = refuse("compare", "metrics.json", "edited.json")
    assert f"edited.json is damaged or was edited: {expected}" in message


@pytest.mark.parametrize("text", ["", "[]", "3", '{"results": 3}', '{"results', "[" * 9**5])
def test_other_files_are_not_results(text: str, refuse: Run) -> None:
    Path("metrics.json").write_text(text)
    assert "metrics.json was not written by reidkit eval" in refuse(
        "compare", *["metrics.json"] * 2
    )


def test_several_data_sets_are_evaluated_in_one_call(
    market: Path, run: Run, tmp_path: Path
) -> None:
    model = third_party_model(tmp_path / "m.onnx", ["batch", 3, 64, 32])
    other = tmp_path / "other"
    shutil.copytree(market, other)
    next((other / "query").glob("*.jpg")).unlink()
    both = ("--dataset", market, "--dataset", other)
    found = json.loads(run("eval", model, *both, "--device", "cpu", "--json"))["results"]
    names = {result["dataset"] for result in found}
    assert len(names) == 2 and all(name.startswith("synth-market1501-") for name in names)


def test_models_and_data_sets_count_once(market: Path, tmp_path: Path, refuse: Run) -> None:
    model = third_party_model(tmp_path / "m.onnx", ["batch", 3, 64, 32])
    message = refuse("eval", model, "./m.onnx", "--dataset", market)
    assert f"model m.onnx is given more than once, as {model}" in message
    twice = ("--dataset", market, "--dataset", f"{market}/manifest.toml")
    assert "manifest.toml is given more than once" in refuse("eval", model, *twice)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        (["batch", 3, 64, 32], ["--size", "256x128"], "only takes images of 64x32"),
        (["batch", 3, 64, 32], ["--mean", "red"], "write three numbers"),
        (["batch", 3, 64, 32], ["--mean", "0,0"], "mean must be a list of 3 numbers"),
        (["batch", 3, 64, 32], ["--channels", "rbg"], "unknown channels 'rbg': rgb or bgr"),
        (["batch", 3, 64, 32], ["--max-memory", "lots"], "write a number and a unit"),
        (["batch", 3, 64, 32], ["--max-memory", "1KiB"], "too small for one row of distances"),
        (["batch", 3, 64, 32], ["--protocol", "markt"], "unknown protocol 'markt': market, none"),
        (
            ["batch", 3, 64, 32],
            ["--metric", "cosin"],
            "unknown metric 'cosin': cosine or euclidean",
        ),
        (["batch", 3, 64, 32], ["--rerank", "--k1", "5000"], "k1"),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    market: Path,
    refuse: Run,
    tmp_path: Path,
    shape: list[int | str],
    options: list[str],
    expected: str,
) -> None:
    model = third_party_model(tmp_path / "m.onnx", shape)
    assert expected in refuse("eval", model, "--dataset", market, "--device", "cpu", *options)


def test_models_without_a_single_embedding_are_refused(
    market: Path, trained: Path, refuse: Run, tmp_path: Path
) -> None:
    two = third_party_model(tmp_path / "two.onnx", ["batch", 3, 64, 32], outputs=2)
    assert "expected exactly one of shape [batch, D]" in refuse("eval", two, "--dataset", market)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    assert "it is not an ONNX file" in refuse("eval", "bad.onnx", "--dataset", market)
    ours = trained / "runs/one"
    assert "preprocessing" in refuse("eval", ours, "--dataset", market, "--size", "64x32")


def test_features_that_cannot_be_ranked_are_refused(refuse: Run, tmp_path: Path) -> None:
    def write(name: str, rows: np.ndarray) -> str:
        with h5py.File(tmp_path / name, "w") as file:
            file["features"] = rows
            file["pids"] = np.arange(len(rows))
            file["camids"] = np.ones(len(rows), int)
        return name

    good = write("good.h5", np.ones((4, 3)))
    nan = write("nan.h5", np.array([[1, 2, 3], [np.nan, 0, 1]]))
    zero = write("zero.h5", np.array([[1, 2, 3], [0, 0, 0]]))
    wide = write("wide.h5", np.ones((4, 5)))
    huge = write("huge.h5", np.full((4, 3), 1e30))
    for query, gallery, expected in (
        (nan, good, "1 of 2 vectors contain NaN"),
        (good, zero, "1 of 2 vectors are zero"),
        (good, wide, "vectors of length 3"),
        (good, huge, "their squares overflow float32"),
    ):
        message = refuse("eval", "--query-features", query, "--gallery-features", gallery)
        assert expected in message
    assert "pass both" in refuse("eval", "--query-features", good)


def test_multi_query_averages_the_images_of_each_querys_identity_and_camera(
    market: Path, trained: Path, run: Run, tmp_path: Path
) -> None:
    """With the queries alone, metrics stay the same; with gallery images added, they change."""
    model = trained / "runs/one"
    plain = score(run, model, "--dataset", market)
    alone = score(run, model, "--dataset", market, "--multi-query", market / "query")
    assert alone["mAP"] == pytest.approx(plain["mAP"], abs=1e-6)
    more = tmp_path / "gt_bbox"
    shutil.copytree(market / "query", more)
    for image in (market / "bounding_box_test").glob("0[1-9]*.jpg"):
        shutil.copy(image, more)
    for image in (market / "bounding_box_test").glob("00[0-9][1-9]*.jpg"):
        shutil.copy(image, more)
    pooled = score(run, model, "--dataset", market, "--multi-query", more)
    assert pooled["mAP"] != plain["mAP"]


def test_missing_data_are_refused_before_the_model_is_loaded(
    market: Path, trained: Path, refuse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reidkit.runtime.embedder.load_embedder", None)
    given = ("eval", trained / "runs/one", "--dataset", market, "--multi-query", "nothing")
    assert "--multi-query nothing: no such folder" in refuse(*given)
    shutil.copy(trained / "runs/one/model.safetensors", "alone.safetensors")
    assert "unknown data set 'synth-market1501'" in refuse("eval", "alone.safetensors")


def test_embeddings_before_or_after_batch_norm_can_be_evaluated(
    market: Path, trained: Path, run: Run, refuse: Run
) -> None:
    model = trained / "runs/one"
    after = score(run, model, "--dataset", market)
    before = score(run, model, "--dataset", market, "--embedding", "pre-bn")
    same = score(run, model, "--dataset", market, "--embedding", "post-bn")
    assert before["mAP"] != after["mAP"] == same["mAP"]
    message = refuse("eval", model, "--dataset", market, "--embedding", "mid-bn")
    assert "unknown embedding 'mid-bn': post-bn or pre-bn" in message


def test_the_rule_of_average_precision_is_set_and_reported(
    market: Path, trained: Path, run: Run, refuse: Run
) -> None:
    model, options = trained / "runs/one", ("--dataset", market, "--device", "cpu")
    assert "step-wise AP;" in run("eval", model, *options)
    step = json.loads((model / "metrics.json").read_text())["results"][-1]
    assert "trapezoidal AP;" in run("eval", model, *options, "--ap", "trapezoid", "-o", "other")
    (trapezoid,) = json.loads(Path("other/metrics.json").read_text())["results"]
    assert (step["ap"], trapezoid["ap"]) == ("step", "trapezoid")
    assert trapezoid["mAP"] < step["mAP"] and trapezoid["cmc"] == step["cmc"]
    assert "cosine, trapezoid AP): nothing in common" in refuse("compare", model, "other")
    assert "step-wise AP)" in run("compare", model, model)
    assert "unknown ap 'steps': step or trapezoid" in refuse("eval", model, "--ap", "steps")


def test_several_runs_are_evaluated_on_their_own_splits_and_averaged(
    synthetic_dataset: Callable[[str], Path], run: Run, refuse: Run
) -> None:
    root = synthetic_dataset("cuhk03-classic-labeled")
    for split in (1, 4):
        run(
            *("train", "--arch", "baseline", "--dataset", f"{root}@{split}", "-o", f"runs/{split}"),
            *("--set", "arch.backbone=resnet18", "--size", "64x32", "--weights", "none"),
            *("--epochs", 1, "--batch", 8, "--workers", 0, "--device", "cpu"),
        )
    found = json.loads(run("eval", "runs/1", "runs/4", "--device", "cpu", "--json"))
    first, second = found["results"]
    assert first["dataset"] == "synth-cuhk03-classic-labeled@1"
    assert second["dataset"] == "synth-cuhk03-classic-labeled@4"
    (mean,) = found["means"]
    assert (mean["dataset"], mean["runs"]) == ("synth-cuhk03-classic-labeled", 2)
    scores = [100 * first["mAP"], 100 * second["mAP"]]
    assert mean["mAP"]["mean"] == pytest.approx(np.mean(scores))
    assert mean["mAP"]["std"] == pytest.approx(np.std(scores, ddof=1))
    stored = json.loads(Path("runs/4/metrics.json").read_text())["results"]
    assert [result["dataset"] for result in stored] == [second["dataset"]]

    table = run("eval", "runs/1", "runs/4", "--device", "cpu")
    assert "2 models" in table and "mean ± standard deviation" in table
    assert f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}" in table
    assert "the results of one model" in refuse("eval", "runs/1", "runs/4", "-o", "both")
