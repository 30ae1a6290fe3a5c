"""What is written for a program is what that program reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from reidkit.choices import Consumer
from reidkit.errors import ConfigError
from reidkit.export.consumers import (
    CONSUMERS,
    WrittenModel,
    check_target,
    default_target,
    feed_boxmot,
    feed_deepstream,
    feed_ultralytics,
    settings_for,
)


def configuration(consumer: Consumer, *, clips: bool = False) -> tuple[Path, str]:
    model = WrittenModel(
        path=Path("repository/iaunet/1/model.onnx"),
        name="iaunet",
        size=(256, 128),
        dimension=2048,
        clips=clips,
        settings=settings_for(consumer),
    )
    ((path, text),) = CONSUMERS[consumer].configuration(model).items()
    return path, text


def test_deepstream_reads_pixels_that_the_graph_normalises() -> None:
    path, text = configuration("deepstream")
    assert path.name == "model.nvtracker.yml"
    for line in (
        "  reidFeatureSize: 2048",
        "  inferDims: [3, 256, 128]",
        "  offsets: [0, 0, 0]",
        "  netScaleFactor: 1.0",
    ):
        assert line in text.splitlines()


def test_triton_gets_a_repository_with_dynamic_batching() -> None:
    path, text = configuration("triton")
    assert path == Path("repository/iaunet/config.pbtxt")
    assert 'name: "iaunet"' in text and "dynamic_batching {" in text
    assert '{ name: "images" data_type: TYPE_UINT8 dims: [256, 128, 3] }' in text
    assert '{ name: "embeddings" data_type: TYPE_FP32 dims: [2048] }' in text
    assert "dims: [-1, 256, 128, 3]" in configuration("triton", clips=True)[1]


def test_triton_refuses_a_file_outside_a_repository() -> None:
    check_target("triton", Path("models/reid/1/model.onnx"))
    with pytest.raises(ConfigError) as refused:
        check_target("triton", Path("out/model.onnx"))
    advice = re.search(r"-o (\S+)$", str(refused.value))
    assert advice is not None
    check_target("triton", Path(advice[1]))
    check_target("triton", default_target("triton", Path("runs/a/model.safetensors"), "rga-s//c"))


def test_ultralytics_gets_a_tracker_with_the_network() -> None:
    _, text = configuration("ultralytics")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    settings = dict(line.split(": ") for line in lines)
    assert settings["with_reid"] == "True" and settings["tracker_type"] == "botsort"
    assert Path(json.loads(settings["model"])).is_absolute()


def test_openvino_is_told_to_compute_in_float32() -> None:
    _, text = configuration("openvino")
    assert json.loads(text) == {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}


def test_consumers_feed_what_their_documentation_says() -> None:
    crop = np.array([[[[0, 51, 255]]]], np.uint8)  # one image of one RGB pixel
    found = feed_boxmot(crop).ravel()
    assert found == pytest.approx([-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert feed_ultralytics(crop).ravel() == pytest.approx([0, 0.2, 1])
    assert feed_deepstream(crop).ravel() == pytest.approx([0, 51, 255])


def test_settings_that_a_consumer_cannot_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--input normalised: Ultralytics needs 0-1. Leave"):
        settings_for("ultralytics", pixels="normalised")
    with pytest.raises(ConfigError, match="--outputs embeddings,features: BoxMOT needs embeddings"):
        settings_for("boxmot", outputs="embeddings,features")
    with pytest.raises(ConfigError, match="--precision int8: DeepStream takes fp32"):
        settings_for("deepstream", precision="int8")
    with pytest.raises(ConfigError, match="--batch 4: Triton collects batches of any size"):
        settings_for("triton", batch=4)
    assert settings_for("boxmot", pixels="normalised").outputs == "embeddings"
