"""extract with third-party ONNX models, and the formats of its output."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from reidkit.cli import extract as command_module
from reidkit.features import read_features

Run = Callable[..., str]


@pytest.fixture
def mean_colour(tmp_path: Path) -> Path:
    """A third-party model of any input size: the embedding is the mean of each channel."""
    shape = ["n", 3, "h", "w"]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


PLAIN = ("--mean", "0,0,0", "--std", "1,1,1", "--device", "cpu")


def test_preprocessing_of_a_third_party_model_is_set_by_options(
    mean_colour: Path, run: Run
) -> None:
    Image.new("RGB", (10, 30), (255, 0, 51)).save("red.png")

    def embedding(*options: str) -> list[float]:
        run("extract", mean_colour, "--images", "red.png", *PLAIN, *options)
        features = read_features(Path("features.h5"))
        preprocess = json.loads(str(features.attributes["preprocess"]))
        assert preprocess["size"] == ([64, 32] if "--size" in options else [256, 128])
        return np.round(features.features[0], 3).tolist()

    assert embedding("--size", "64x32") == pytest.approx([1, 0, 0.2])
    assert embedding("--channels", "bgr", "--resize", "bilinear") == pytest.approx([0.2, 0, 1])


def test_the_suffix_of_the_output_selects_its_format(
    market: Path, mean_colour: Path, run: Run
) -> None:
    for suffix in ("h5", "npz"):
        for split in ("query", "gallery"):
            options = ("--dataset", market, "--split", split, "-o", f"{split}.{suffix}")
            run("extract", mean_colour, *options, *PLAIN)
    scores = [
        json.loads(
            run("eval", f"--query-features=query.{s}", f"--gallery-features=gallery.{s}", "--json")
        )
        for s in ("h5", "npz")
    ]
    assert scores[0]["mAP"] == scores[1]["mAP"]
    assert scores[0]["dataset"] == scores[1]["dataset"]

    run("extract", mean_colour, "--dataset", market, "-o", "query.csv", *PLAIN)
    lines = Path("query.csv").read_text().splitlines()
    assert lines[0] == "path,pid,camid,role,f0,f1,f2"
    assert len(lines) == 1 + len(read_features(Path("query.h5")).pids)


def test_an_unknown_suffix_is_refused_before_anything_is_computed(refuse: Run) -> None:
    message = refuse("extract", "absent.onnx", "--images", "absent", "-o", "features.txt")
    assert "unknown suffix .txt, expected .h5, .npz, .csv, .parquet" in message
    assert "features.h5" in message


def test_every_option_is_in_a_panel() -> None:
    parameters = set(inspect.signature(command_module.extract).parameters) - {"model"}
    assert {name for names in command_module.PANELS.values() for name in names} == parameters


def test_a_toml_file_sets_the_preprocessing_and_options_override_it(
    mean_colour: Path, run: Run, refuse: Run
) -> None:
    Image.new("RGB", (10, 30), (255, 0, 51)).save("red.png")
    Path("clip.toml").write_text("size = [64, 32]\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n")
    options = ("--images", "red.png", "--preprocess", "clip.toml", "--device", "cpu")
    run("extract", mean_colour, *options, "--channels", "bgr", "--size", "32x16")
    features = read_features(Path("features.h5"))
    assert np.round(features.features[0], 3).tolist() == pytest.approx([0.2, 0, 1])
    preprocess = json.loads(str(features.attributes["preprocess"]))
    assert preprocess["size"] == [32, 16] and preprocess["std"] == [1, 1, 1]

    Path("clip.toml").write_text("size = [64]\n")
    message = refuse("extract", mean_colour, *options)
    assert "clip.toml: size must be a list of 2 whole numbers, got [64]" in message


def test_the_embedding_output_is_chosen_by_name(mean_colour: Path, refuse: Run) -> None:
    Image.new("RGB", (10, 30), (255, 0, 51)).save("red.png")
    options = ("--images", "red.png", *PLAIN)
    message = refuse("extract", mean_colour, *options, "--output", "features")
    assert "m.onnx has no output 'features'. Known: y" in message


def test_options_of_another_runtime_are_refused(
    mean_colour: Path, trained: Path, refuse: Run
) -> None:
    Image.new("RGB", (10, 30), (255, 0, 51)).save("red.png")
    message = refuse("extract", mean_colour, "--images", "red.png", "--precision", "bf16")
    assert "exported with a fixed precision. Leave --precision out" in message
    message = refuse("extract", mean_colour, "--images", "red.png", "--compile")
    assert "run by ONNX Runtime, which compiles nothing" in message
    message = refuse("extract", trained / "runs/one", "--images", "red.png", "--threads", "2")
    assert "is a checkpoint, which PyTorch runs. Set OMP_NUM_THREADS=2" in message
    message = refuse("extract", trained / "runs/one", "--images", "red.png", "--provider", "cpu")
    assert "Leave --provider out" in message


def test_features_files_are_not_evaluated_on_another_data_set(
    market: Path, mean_colour: Path, run: Run, refuse: Run
) -> None:
    run("extract", mean_colour, "--dataset", market, "-o", "query.h5", *PLAIN)
    files = ("--query-features", "query.h5", "--gallery-features", "query.h5")
    message = refuse("eval", *files, "--dataset", market)
    assert "features files state their data set: remove --dataset" in message


def test_data_that_changed_since_the_training_are_reported(
    market: Path, trained: Path, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "market"
    shutil.copytree(market, copy)
    next((copy / "bounding_box_train").glob("*.jpg")).unlink()
    for data, changed in ((market, False), (copy, True)):
        options = ("--dataset", data, "--split", "query", "-o", "query.h5", "--device", "cpu")
        run("extract", trained / "runs" / "one", *options)
        assert ("has other images or labels than when" in caplog.text) == changed
