"""Parsers are small ONNX graphs made here: a 1x1 convolution scores each pixel's distance to the
colours of LIP's palette, so that its argmax is the label whose colour the pixel has."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch.nn import functional as F
from toy_masks import lip_source, make_labels

from reidkit.choices import ParserPreset
from reidkit.errors import ConfigError, DataError
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.parser_source import ParserSource
from reidkit.masks.parsers.onnx import PRESETS, OnnxParser, ParserOptions
from reidkit.types import Dataset

LIP = load_label_set("lip")
PALETTE = np.array(LIP.palette, np.float32)
RAW = ParserOptions(size=(128, 64), unit=False, mean=(0, 0, 0), std=(1, 1, 1))
Shape = list[int | str]


def session(nodes, weights, inputs: Shape, outputs: dict[str, Shape], kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "parser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def palette_weights() -> dict[str, np.ndarray]:
    # argmax of 2 c.x - |c|^2 is the nearest colour
    return {
        "w": 2 * PALETTE[:, :, None, None],
        "b": -(PALETTE**2).sum(axis=1),
    }


def palette_parser(*, last: bool = False, labels: bool = False, size: Shape | None = None):
    height, width = size or ["h", "w"]
    nodes = [helper.make_node("Conv", ["x2" if last else "x", "w", "b"], ["s"])]
    if last:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["x2"], perm=[0, 3, 1, 2]))
    inputs: Shape = ["n", height, width, 3] if last else ["n", 3, height, width]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0))
        outputs: dict[str, Shape] = {"y": ["n", height, width]}
        return session(nodes, palette_weights(), inputs, outputs, TensorProto.INT64)
    if last:
        nodes.append(helper.make_node("Transpose", ["s"], ["y"], perm=[0, 2, 3, 1]))
        return session(nodes, palette_weights(), inputs, {"y": ["n", height, width, 20]})
    return session(nodes, palette_weights(), inputs, {"s": ["n", 20, height, width]})


def make(model, options: ParserOptions = RAW, labels=LIP) -> OnnxParser:
    return OnnxParser(model, labels=labels, options=options, model_hash="x")


def part_maps(parser: OnnxParser, dataset: Dataset, names: Sequence[str]) -> Iterator[np.ndarray]:
    source = ParserSource(
        name="parser", parser=parser, root=dataset.root, groups=default_grouping(parser.labels)
    )
    return source.part_maps(names)


@pytest.fixture
def painted(toy: Dataset) -> Dataset:
    """The toy set, its images painted in the palette's colours (PNG behind their names)."""
    rng = np.random.default_rng(0)
    for sample in toy.train:
        colours = Image.fromarray(PALETTE.astype(np.uint8)[make_labels(rng)])
        colours.save(toy.root / sample.path, format="PNG")
    return toy


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("size", [None, [128, 64]])
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_scores_and_labels_of_any_layout_and_size(painted, last, labels, size, batch):
    parser = make(
        palette_parser(last=last, labels=labels, size=size),
        replace(RAW, batch=batch),
    )
    names = [sample.path for sample in painted.train]
    expected = lip_source(painted)
    for found, wanted in zip(
        part_maps(parser, painted, names), expected.part_maps(names), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_batches_are_filled_for_a_model_of_fixed_batch_size(painted):
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["s"])]
    model = session(nodes, palette_weights(), [5, 3, 128, 64], {"s": [5, 20, 128, 64]})
    names = [sample.path for sample in painted.train]  # 12 = 5 + 5 + 2
    maps = list(part_maps(make(model), painted, names))
    for found, wanted in zip(maps, lip_source(painted).part_maps(names), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_label_maps_have_the_size_of_their_image():
    parser = make(palette_parser(labels=True))
    small = PALETTE.astype(np.uint8)[make_labels(np.random.default_rng(1), height=64, width=32)]
    (found,) = parser.label_maps([small])
    assert found.shape == (64, 32) and found.dtype == np.uint8
    (found,) = make(palette_parser()).label_maps([small])
    assert found.shape == (64, 32)
    wanted = make_labels(np.random.default_rng(1), height=64, width=32)
    assert (found == wanted).mean() > 0.9  # edges are blurred on the way


def strided_parser(rng: np.random.Generator, outputs: int = 1):
    """A 3x3 convolution of stride 4 with random weights: scores smaller than the image."""
    nodes, weights, described = [], {}, {}
    for i in range(outputs):
        nodes.append(
            helper.make_node("Conv", ["x", f"w{i}"], [f"s{i}"], strides=[4, 4], pads=[1, 1, 1, 1])
        )
        weights[f"w{i}"] = rng.normal(size=(20, 3, 3, 3)).astype(np.float32)
        described[f"s{i}"] = ["n", 20, f"h{i}", f"w{i}"]
    return session(nodes, weights, ["n", 3, "h", "w"], described), weights


def opposite(name: str) -> str:
    side, _, limb = name.partition("-")
    return {"left": f"right-{limb}", "right": f"left-{limb}"}.get(side, name)


def reference(image: np.ndarray, weights: dict[str, np.ndarray], options: ParserOptions):
    """Independent: one pass after another with torch, channels swapped by name."""
    H, W = image.shape[:2]
    x = torch.from_numpy(image).float().permute(2, 0, 1)[None]
    x = x.flip(1) if options.order == "bgr" else x
    x = x / 255 if options.unit else x
    x = (x - torch.tensor(options.mean).view(1, 3, 1, 1)) / torch.tensor(options.std).view(
        1, 3, 1, 1
    )
    other_side = {
        i: next((k for k, b in enumerate(LIP.names) if a != b and opposite(a) == b), i)
        for i, a in enumerate(LIP.names)
    }
    total = torch.zeros(1, 20, H, W)
    for mirror in (False, True) if options.mirror else (False,):
        for scale in options.scales:
            size = [round(side * scale) for side in options.size]
            y = F.interpolate(x.flip(3) if mirror else x, size=size, mode="bilinear")
            for weight in weights.values() if options.all_outputs else [weights["w0"]]:
                s = F.conv2d(y, torch.from_numpy(weight), stride=4, padding=1)
                if mirror:
                    s = s[:, [other_side[i] for i in range(20)]].flip(3)
                total += F.interpolate(s, size=(H, W), mode="bilinear")
    return total[0].numpy()


@pytest.mark.parametrize("preset", ["imagenet", "jppnet"])
def test_presets_match_a_pass_by_pass_reference(preset: str):
    rng = np.random.default_rng(4)
    model, weights = strided_parser(rng, outputs=3)
    options = replace(PRESETS[preset], size=(96, 96))  # the preset's own, only smaller
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((128, 64), (50, 77))]
    for found, image in zip(make(model, options).label_maps(images), images, strict=True):
        scores = reference(image, weights, options)
        best = np.sort(scores, axis=0)
        clear = best[-1] - best[-2] > 1e-3 * abs(best[-1])
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(found[clear], scores.argmax(axis=0)[clear])


def test_every_preset_is_a_choice_of_the_command_line():
    assert tuple(PRESETS) == get_args(ParserPreset)


def test_jppnets_preset_is_its_published_preprocessing():
    preset = PRESETS["jppnet"]
    assert preset.size == (384, 384) and preset.order == "bgr" and not preset.unit
    assert preset.mean == (104.00698793, 116.66876762, 122.67891434)
    assert preset.scales == (1.0, 0.75, 1.25) and preset.mirror and preset.all_outputs


def test_left_stays_left_in_the_average_with_the_mirrored_image():
    # a parser that always gives left-arm (14) on the left half and right-arm (15) on the right:
    # without the swap the two halves would cancel
    scores = np.zeros((1, 20, 16, 8), np.float32)
    scores[0, 14, :, :4] = scores[0, 15, :, 4:] = 1
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["m", "zero"], ["z"]),
        helper.make_node("Add", ["z", "scores"], ["s"]),
    ]
    weights = {"zero": np.zeros(1, np.float32), "scores": scores}
    model = session(nodes, weights, ["n", 3, 16, 8], {"s": ["n", 20, 16, 8]})
    for mirror in (False, True):
        parser = make(model, replace(RAW, size=(16, 8), mirror=mirror))
        (found,) = parser.label_maps([np.zeros((16, 8, 3), np.uint8)])
        assert (found[:, :4] == 14).all() and (found[:, 4:] == 15).all()


def test_padding_keeps_the_aspect_of_the_image():
    parser = make(palette_parser(), replace(RAW, size=(96, 96), fit="pad"))
    labels = make_labels(np.random.default_rng(1), height=96, width=48)
    (found,) = parser.label_maps([PALETTE.astype(np.uint8)[labels]])
    np.testing.assert_array_equal(found, labels)  # 96 high stays 96 high: nothing is resampled


def test_a_model_of_another_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"expected an output of 18 class scores.*--label-set"):
        make(palette_parser(), labels=load_label_set("atr"))


def test_labels_beyond_the_set_are_refused():
    with pytest.raises(DataError, match="gives labels 0 to 19, expected 0 to 6"):
        parser = make(palette_parser(labels=True), labels=load_label_set("pascal-person-part"))
        parser.label_maps([PALETTE.astype(np.uint8)[make_labels(np.random.default_rng(0))]])


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({"labels": True}, {"mirror": True}, "gives labels, which cannot be averaged"),
        ({"labels": True}, {"scales": (1.0, 2.0)}, "gives labels, which cannot be averaged"),
        ({"size": [128, 64]}, {"scales": (1.0, 2.0)}, "takes 128x64 and no other size"),
    ],
)
def test_averages_that_a_model_cannot_compute_are_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        make(palette_parser(**model), replace(RAW, **options))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (4, 4)},
        {"scales": ()},
        {"scales": (9.0,)},
        {"std": (1, 0, 1)},
        {"batch": 0},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="parser"):
        replace(RAW, **wrong)


def test_a_graph_that_is_not_a_parser_is_refused():
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(ConfigError, match="expected one input"):
        make(session(nodes, {}, ["n", 7], {"y": ["n", 7]}))
    with pytest.raises(ConfigError, match="expected an output of 20 class scores"):
        make(session(nodes, {}, ["n", 3, 8, 8], {"y": ["n", 3, 8, 8]}))


def test_the_key_depends_on_model_and_options():
    one = make(palette_parser())
    assert one.key == make(palette_parser()).key
    assert one.key != make(palette_parser(), replace(RAW, mirror=True)).key
