"""An exported file is verified against PyTorch before it is written."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import reidkit
from reidkit import checkpoint
from reidkit.choices import Consumer
from reidkit.errors import ConfigError, ReidkitError
from reidkit.export.consumers import WrittenModel, settings_for
from reidkit.export.exporter import (
    check_replaceable,
    export_onnx,
    first_accepted,
)
from reidkit.export.precision import float16_graphs
from reidkit.export.settings import ExportSettings
from reidkit.export.verification import (
    Parity,
    SampleCosines,
    Verification,
    Verifier,
    check_verification,
    feed_for,
    parity_shapes,
    random_crops,
    rare_cosine,
    sample_shapes,
)
from reidkit.preprocess import Preprocess
from reidkit.runtime.embedder import load_embedder
from reidkit.runtime.onnx_session import open_session


def metadata(path: Path) -> dict:
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return json.loads(properties["reidkit"])


def pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, 64, 32, 3), np.uint8)


def assert_same_direction(found: np.ndarray, expected: np.ndarray, least: float = 0.9999) -> None:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / norms).min() >= least


def test_a_file_contains_no_local_paths_or_source_lines(exported: Path) -> None:
    content = exported.read_bytes()
    assert str(Path(reidkit.__file__).parent).encode() not in content
    assert b"stack_trace" not in content and b"return self." not in content


def test_the_default_file_has_nothing_that_older_runtimes_refuse(exported: Path) -> None:
    proto = onnx.load(exported)
    assert (proto.ir_version, proto.opset_import[0].version) == (8, 16)
    assert not proto.graph.value_info
    assert "Expand" not in Counter(node.op_type for node in proto.graph.node)
    kinds = {entry.data_type for entry in proto.graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    used = {name for node in proto.graph.node for name in node.input}
    assert not used & {output.name for output in proto.graph.output}


def test_quantisers_of_onnx_runtime_take_the_default_file(exported: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quantize_dynamic(str(exported), str(tmp_path / "dynamic.onnx"))
    quant_pre_process(str(exported), str(tmp_path / "prepared.onnx"))
    image = np.zeros((1, 3, 64, 32), np.float32)
    for file in sorted(tmp_path.glob("*.onnx")):
        assert open_session(file, "cpu").run(["embeddings"], {"images": image})[0].shape == (1, 512)


def test_quantisation_preprocessing_takes_clips_of_any_length(
    exported_iaunet: Path, tmp_path: Path
) -> None:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(exported_iaunet), str(tmp_path / "prepared.onnx"))
    session = open_session(tmp_path / "prepared.onnx", "cpu")
    for frames in (1, 3):
        clips = np.zeros((2, frames, 3, 64, 32), np.float32)
        assert session.run(["embeddings"], {"images": clips})[0].shape == (2, 512)


def test_a_network_of_clips_has_nothing_that_opencv_cannot_run(exported_iaunet: Path) -> None:
    """OpenCV 5 cannot compare booleans, and gives wrong means over axes that are not adjacent."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(exported_iaunet)).graph
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in inferred.value_info}
    compared = [node.input[0] for node in inferred.node if node.op_type == "Equal"]
    assert compared and {kinds[name] for name in compared} == {onnx.TensorProto.INT64}
    for node in inferred.node:
        axes = [a.ints for a in node.attribute if a.name == "axes"]
        assert all(np.all(np.diff(entry) == 1) for entry in axes)


def test_an_export_that_differs_is_not_written(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Verification([Parity(1, 0, 1.0, 0.0), Parity(8, 0, 0.97, 0.03)])
    monkeypatch.setattr(Verifier, "verify", lambda self, path: found)
    with pytest.raises(ReidkitError, match=r"at batch 8 .* cosine 0\.970000 .* was not written"):
        export_onnx(network, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_float16_is_allowed_a_lower_cosine_than_float32() -> None:
    found = Verification([Parity(1, 0, 0.9995, 0.001)])
    paths = {"source": Path("a"), "target": Path("b")}
    check_verification(found, ExportSettings(precision="fp16"), **paths)
    with pytest.raises(ReidkitError, match=r"expected at least 0\.9999"):
        check_verification(found, ExportSettings(), **paths)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (SampleCosines(40, 0.99, 0.98), r"on 40 random inputs .* is 0\.990000, expected .* 0\.999"),
        (SampleCosines(256, 0.9995, 0.998), "one in a thousand is estimated .* below 0.998000"),
    ],
)
def test_float16_that_changes_a_few_images_is_refused(sample: SampleCosines, message: str) -> None:
    settings = ExportSettings(precision="fp16")
    found = Verification([Parity(1, 0, 1.0, 0.0)], sample)
    with pytest.raises(ReidkitError, match=f"{message}.* was not written. Write --precision fp32"):
        check_verification(found, settings, source=Path("a"), target=Path("b"))


def test_results_decide_on_float16_where_they_are_compared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = {"source": Path("a"), "target": Path("b")}
    found = Verification([Parity(1, 0, 1.0, 0.0)], SampleCosines(40, 0.99, 0.98))
    check_verification(found, ExportSettings(precision="fp16"), **paths, results_decide=True)
    assert "0.990000, expected at least 0.999; the results decide" in caplog.text
    wrong = Verification([Parity(1, 0, 0.99, 0.01)])
    with pytest.raises(ReidkitError, match="was not written"):
        check_verification(wrong, ExportSettings(), **paths, results_decide=True)


def test_replacing_a_file_for_another_program_is_said(
    network: Path, exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A configuration that was written for it stays and describes another input."""
    target = shutil.copy(exported, tmp_path / "m.onnx")
    export_onnx(network, target, settings_for("boxmot"))
    assert "was exported for onnxruntime and is replaced" in caplog.text
    assert metadata(target)["consumer"] == "boxmot"
    caplog.clear()
    export_onnx(network, target, settings_for("boxmot"))
    assert "replaced" not in caplog.text


@pytest.mark.parametrize("option", ["input_name", "output_name"])
def test_names_of_inputs_and_outputs_are_not_empty(option: str) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        ExportSettings(**{option: " "})  # type: ignore[arg-type]


def model_at(path: Path) -> WrittenModel:
    return WrittenModel(path, "baseline", (64, 32), 512, False, ExportSettings())


def test_only_an_export_of_the_same_checkpoint_is_replaced(
    network: Path, bgr_network: Path, exported: Path, tmp_path: Path
) -> None:
    target = tmp_path / "m.onnx"
    shutil.copy(exported, target)
    with pytest.raises(
        ConfigError, match=r"m\.onnx exists and was not exported from .*--overwrite"
    ):
        export_onnx(bgr_network, target)
    assert target.read_bytes() == exported.read_bytes()
    export_onnx(network, target, ExportSettings(outputs="embeddings"))
    assert metadata(target)["outputs"] == ["embeddings"]
    # a training that went on exports again beside its checkpoint
    beside = shutil.copy(exported, bgr_network.parent / "m.onnx")
    check_replaceable(model_at(beside), bgr_network, "other")
    beside.unlink()

    check_replaceable(model_at(tmp_path / "new" / "m.onnx"), network, "any")
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.onnx"):
        export_onnx(network, network, overwrite=True)
    with pytest.raises(ConfigError, match="--opset: found 99, expected 7 to 30"):
        ExportSettings(opset=99)

    target.write_text("notes")
    with pytest.raises(ConfigError, match=r"m\.onnx exists and was not exported from"):
        export_onnx(network, target)
    export_onnx(network, target, overwrite=True)
    assert metadata(target)["arch"] == "baseline"


def test_an_edited_configuration_is_not_replaced(network: Path, tmp_path: Path) -> None:
    edited = tmp_path / "m.botsort.yaml"
    edited.write_text("track_buffer: 90\n")
    with pytest.raises(ConfigError, match=r"botsort\.yaml exists and has other contents.*--overw"):
        export_onnx(network, tmp_path / "m.onnx", settings_for("ultralytics"))
    assert edited.read_text() == "track_buffer: 90\n"
    assert not (tmp_path / "m.onnx").exists()


def test_the_verification_detects_a_wrong_weight(network: Path, exported: Path) -> None:
    model, header = checkpoint.load(network)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "layer2.0.conv1" in name).add_(0.05)
    verifier = Verifier(
        model,
        preprocess=header.preprocess,
        feed=feed_for(header.preprocess, "normalised"),
        batches=random_crops([(1, 0), (3, 0)], header.preprocess.size),
        least=0.9999,
        on_progress=lambda *progress: None,
    )
    found = verifier.verify(exported)
    assert all(parity.cosine < 0.9999 for parity in found.parities)
    assert not found.accepts(0.9999)


def test_a_fixed_batch_is_verified_at_that_batch_only() -> None:
    def shapes(**sizes: int | None) -> list[tuple[int, int]]:
        return parity_shapes(**{"batch": None, "frames": None, "trained_frames": 4} | sizes)

    assert shapes(clips=False) == [(1, 0), (3, 0), (8, 0)]
    assert shapes(clips=True) == [(1, 4), (3, 1), (8, 7)]
    assert shapes(clips=True, batch=2, frames=6) == [(2, 6)]


@pytest.mark.parametrize("consumer", ["boxmot", "ultralytics", "triton"])
def test_a_consumer_may_feed_any_network_its_own_normalisation(
    bgr_network: Path, tmp_path: Path, consumer: Consumer
) -> None:
    target = tmp_path / "repository/reid/1/model.onnx"
    report = export_onnx(bgr_network, target, settings_for(consumer))
    assert min(parity.cosine for parity in report.parities) >= 0.9999  # in its preprocessing

    # and ours reads from the metadata what the consumer would have done
    embedder = load_embedder(target, device="cpu")
    assert embedder.preprocess.channels == "rgb"
    rgb = pixels(3)
    expected = load_embedder(bgr_network, device="cpu").embed(np.ascontiguousarray(rgb[..., ::-1]))
    assert_same_direction(embedder.embed(rgb), expected)
    assert metadata(target)["consumer"] == consumer


def test_input_batch_and_outputs_can_be_chosen(network: Path, tmp_path: Path) -> None:
    settings = ExportSettings(
        pixels="0-255", batch=2, outputs="embeddings", output_name="vector", input_name="crops"
    )
    export_onnx(network, tmp_path / "m.onnx", settings)
    session = open_session(tmp_path / "m.onnx", "cpu")
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("crops", [2, 3, 64, 32])
    assert (output.name, output.shape) == ("vector", [2, 512])
    found = metadata(tmp_path / "m.onnx")
    assert (found["format"], found["pixels"]) == (2, "0-255")
    assert (found["outputs"], found["features_output"]) == (["vector"], "")


def test_a_video_network_can_be_exported_for_images(video_network: Path, tmp_path: Path) -> None:
    report = export_onnx(video_network, tmp_path / "m.onnx", ExportSettings(frames=0))
    assert [parity.frames for parity in report.parities] == [0, 0, 0]
    assert metadata(tmp_path / "m.onnx")["frames"] == 0
    embedder = load_embedder(tmp_path / "m.onnx", device="cpu")
    expected = load_embedder(video_network, device="cpu").embed(pixels(2)[:, None])
    assert_same_direction(embedder.embed(pixels(2)), expected)


def test_clips_are_refused_where_the_consumer_feeds_images(
    video_network: Path, network: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"Ultralytics feeds single images. Write --frames 0"):
        export_onnx(video_network, tmp_path / "m.onnx", settings_for("ultralytics"))
    with pytest.raises(ConfigError, match=r"--frames 4: .* was trained on single images"):
        export_onnx(network, tmp_path / "m.onnx", ExportSettings(frames=4))


def test_float16_covers_whole_networks_that_tolerate_it(
    exported: Path, exported_iaunet: Path, tmp_path: Path
) -> None:
    for file, shape in ((exported, (2, 3, 64, 32)), (exported_iaunet, (2, 3, 3, 64, 32))):
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        proto, share = next(float16_graphs(onnx.load(file)))
        onnx.save(proto, tmp_path / "half.onnx")
        whole, half = (
            open_session(path, "cpu").run(["embeddings"], {"images": images})[0]
            for path in (file, tmp_path / "half.onnx")
        )
        assert share == pytest.approx(1)
        assert_same_direction(half, whole, least=0.999)


def test_the_first_float16_graph_that_is_accurate_is_written() -> None:
    parities = [Parity(1, 0, 1.0, 0.0), Parity(3, 0, 0.9995, 0.0)]
    found = {
        "all": Verification([Parity(3, 0, 0.9, 0.0)]),
        "most": Verification(parities, SampleCosines(16, 0.998, 0.99)),
        "half": Verification(parities, SampleCosines(256, 0.9995, 0.9985)),
        "little": Verification(parities, SampleCosines(256, 0.9999, 0.9992)),
        "last": Verification(parities, SampleCosines(256, 1.0, 1.0)),
    }
    graphs = [("all", 1.0), ("most", 0.8), ("half", 0.6), ("little", 0.4), ("last", 0.2)]
    assert first_accepted(graphs, found.get, least=0.999)[:2] == ("little", 0.4)
    assert first_accepted(graphs[:2], found.get, least=0.999)[:2] == ("most", 0.8)


def test_a_float16_file_has_float32_ends_and_is_compared_with_float32_on_256_images(
    network: Path, tmp_path: Path
) -> None:
    report = export_onnx(network, tmp_path / "m.onnx", ExportSettings(precision="fp16"))
    assert report.float16_share == pytest.approx(1) and report.float16_sample
    assert report.float16_sample.count == 256
    assert 0.999 < report.float16_sample.rare < report.float16_sample.lowest < 1
    assert [parity.batch for parity in report.parities] == [1, 3, 8]  # and with PyTorch on a few

    proto = onnx.load(tmp_path / "m.onnx")
    ends = [*proto.graph.input, *proto.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {onnx.TensorProto.FLOAT}
    kinds = {entry.name: entry.data_type for entry in proto.graph.initializer}
    weights = [kinds[node.input[1]] for node in proto.graph.node if node.op_type == "Conv"]
    assert set(weights) == {onnx.TensorProto.FLOAT16}


def test_a_float16_file_of_clips_is_compared_with_float32_on_256_frames(
    video_network: Path, tmp_path: Path
) -> None:
    settings = ExportSettings(precision="fp16", batch=2)
    report = export_onnx(video_network, tmp_path / "m.onnx", settings)
    assert report.float16_sample and report.float16_sample.count == 64  # of 4 frames
    assert [(parity.batch, parity.frames) for parity in report.parities] == [(2, 4)]


def test_the_float16_sample_has_full_batches_of_256_images_or_frames() -> None:
    assert sample_shapes(batch=None, frames=0) == [(8, 0)] * 32
    assert sample_shapes(batch=None, frames=4) == [(8, 4)] * 8
    assert sample_shapes(batch=100, frames=0) == [(100, 0)] * 3
    assert sample_shapes(batch=1, frames=300) == [(1, 300)]


def test_a_float16_file_is_rejected_at_the_first_image_that_differs(
    network: Path, exported: Path, tmp_path: Path
) -> None:
    changed = onnx.load(exported)
    for entry in changed.graph.initializer:
        if "layer2.0.conv1" in entry.name:
            entry.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(entry) + 0.05, entry.name)
            )
    onnx.save(changed, tmp_path / "float32.onnx")
    model, header = checkpoint.load(network)
    steps: list[tuple[str, int, int]] = []
    verifier = Verifier(
        model,
        preprocess=header.preprocess,
        feed=feed_for(header.preprocess, "normalised"),
        batches=random_crops([(1, 0)], header.preprocess.size),
        least=0.999,
        on_progress=lambda *step: steps.append(step),
    )
    verifier.set_sample(
        tmp_path / "float32.onnx", random_crops([(2, 0)] * 4, header.preprocess.size)
    )
    found = verifier.verify(exported)
    assert found.sample and found.sample.count == 2 and found.sample.lowest < 0.999
    assert [done for stage, done, _ in steps if stage == "verifying float16"] == [1]


def test_the_cosine_of_one_image_in_a_thousand_is_extrapolated() -> None:
    # of 201 images: 1e-6 up to the 90th percentile, 1e-5 at the 99th, so 1e-4 at the 99.9th
    gaps = np.full(201, 1e-6)
    gaps[-20:] = 2e-6
    gaps[-3:] = 1e-5
    assert 1 - rare_cosine(1 - gaps) == pytest.approx(1e-4, rel=1e-3)
    assert rare_cosine(np.ones(64)) == pytest.approx(1, abs=1e-6)
    # a power law: 1 - cosine exceeds 1e-7 / p in a share p of the images
    spread = 1e-7 / np.linspace(1, 0, 10_000, endpoint=False)
    assert 1 - rare_cosine(1 - spread) == pytest.approx(1e-4, rel=0.02)


def test_int8_is_calibrated_and_verified_on_images(network: Path, tmp_path: Path) -> None:
    settings = ExportSettings(precision="int8")
    for few in (list(pixels(2)), [*pixels(2)] * 9):
        with pytest.raises(ConfigError, match=r"int8 needs at least 8 different images .* found 2"):
            export_onnx(network, tmp_path / "m.onnx", settings, calibration=few)
    assert list(tmp_path.iterdir()) == []

    crops = random_crops([(16, 0)], (64, 32))[0]
    report = export_onnx(network, tmp_path / "m.onnx", settings, calibration=list(crops))
    assert min(parity.cosine for parity in report.parities) >= 0.99
    proto = onnx.load(tmp_path / "m.onnx")
    kinds = {entry.name: entry for entry in proto.graph.initializer}
    quantised = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert {kinds[node.input[2]].data_type for node in quantised} == {onnx.TensorProto.UINT8}
    per_channel = [
        kinds[node.input[1]].dims
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].endswith("weight_quantized")
    ]
    assert per_channel and all(len(dims) == 1 and dims[0] >= 64 for dims in per_channel)
    assert metadata(tmp_path / "m.onnx")["precision"] == "int8"


def test_a_callers_input_is_its_preprocessing() -> None:
    crop = np.array([[[[0, 51, 255]]]], np.uint8)  # one image of one RGB pixel
    bgr = Preprocess(channels="bgr", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))
    assert feed_for(bgr, "normalised")(crop).ravel() == pytest.approx([1.0, -0.6, -2.0])
    assert feed_for(Preprocess(), "0-1")(crop).ravel() == pytest.approx([0, 0.2, 1])
    assert feed_for(Preprocess(), "0-255")(crop).shape == (1, 3, 1, 1)
    assert feed_for(Preprocess(), "uint8-nhwc")(crop).dtype == np.uint8
