"""ONNX files that loop, allocate, crash or lie are refused by one line, before they run in the
process of the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_onnx import write_mean_channels

from reidkit.cli import app
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.masks.labels import load_label_set
from reidkit.masks.parsers.onnx import OnnxParser, ParserOptions
from reidkit.runtime import Runtime, onnx_trial
from reidkit.runtime.embedder import load_embedder

GIB = 2**30
HUGE = 10**12


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_trial, "SECONDS", 10.0)
    monkeypatch.setattr(onnx_trial, "MEMORY", GIB)


def constant(name: str, values: Sequence[float], dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    output: onnx.ValueInfoProto | None = None,
    domains: Sequence[str] = (),
    metadata: dict[str, object] | None = None,
) -> Path:
    """Writes a model of images `x` [batch, 3, 8, 4] whose embeddings `y` start from their channel
    means `means` [batch, 3]."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 4])
    given = [image] if inputs is None else inputs
    first = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
    ]
    graph = helper.make_graph(
        [*(first if given else []), *nodes],
        "hostile",
        given,
        [output or helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
        list(constants),
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    if metadata is not None:
        helper.set_model_props(model, {"reidkit": json.dumps(metadata)})
    path.write_bytes(model.SerializeToString())
    return path


def endless_loop(path: Path, **options: object) -> Path:
    """A Loop of 2^63 - 1 rounds whose condition stays true."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Abs", ["row"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("row", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    rounds = numpy_helper.from_array(np.array(2**63 - 1), "rounds")
    true = numpy_helper.from_array(np.array(True), "true")
    loop = helper.make_node("Loop", ["rounds", "true", "means"], ["y"], body=body)
    return write(path, [loop], [rounds, true], **options)  # type: ignore[arg-type]


def test_a_model_that_loops_for_ever_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_trial, "SECONDS", 2.0)
    with pytest.raises(CheckpointError, match=r"two images took more than 2 s; refused.*--trust"):
        load_embedder(endless_loop(tmp_path / "m.onnx"), device="cpu")


def test_metadata_of_reidkit_does_not_make_a_file_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_trial, "SECONDS", 2.0)
    forged = {"format": 2, "arch": "x", "outputs": ["y"], "preprocess": {"size": [8, 4]}}
    path = endless_loop(tmp_path / "m.onnx", metadata=forged)
    with pytest.raises(CheckpointError, match="took more than 2 s"):
        load_embedder(path, device="cpu")


def allocating(op: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes that need terabytes for `y`."""
    if op == "ConstantOfShape":
        nodes = [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Add", ["means", "sum"], ["y"]),
        ]
        return nodes, [constant("shape", [HUGE])]
    if op == "Expand":
        nodes = [
            helper.make_node("Unsqueeze", ["means", "last"], ["column"]),
            helper.make_node("Expand", ["column", "shape"], ["wide"]),
            helper.make_node("ReduceSum", ["wide", "last"], ["y"], keepdims=0),
        ]
        return nodes, [constant("last", [2]), constant("shape", [1, 1, HUGE])]
    second = {
        "Tile": constant("c", [1, 2 * 10**8]),  # above 4 GiB ONNX Runtime refuses by itself
        "Pad": constant("c", [0, 0, 0, HUGE]),
        "Resize": constant("c", [1, 1e9], np.float32),
    }[op]
    taken = ["means", "", "c"] if op == "Resize" else ["means", "c"]
    return [helper.make_node(op, taken, ["y"])], [second]


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile", "Pad", "Resize"])
def test_a_model_that_allocates_without_bound_is_refused(tmp_path: Path, op: str) -> None:
    path = write(tmp_path / "m.onnx", *allocating(op))
    with pytest.raises(CheckpointError, match=r"two images took more than 1\.0 GiB of memory"):
        load_embedder(path, device="cpu")


def test_a_fixed_batch_of_a_billion_is_refused(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [10**9, 3, 8, 4])
    path = write(tmp_path / "m.onnx", [helper.make_node("Abs", ["means"], ["y"])], inputs=[image])
    with pytest.raises(CheckpointError, match="batches of 1,000,000,000 images"):
        load_embedder(path, device="cpu")


def failing(name: str, path: Path) -> Path:
    node, info = helper.make_node, helper.make_tensor_value_info
    image = info("x", TensorProto.FLOAT, ["batch", 3, 8, 4])
    match name:
        case "gather":
            return write(
                path, [node("Gather", ["means", "c"], ["y"], axis=1)], [constant("c", [9])]
            )
        case "reshape":
            return write(path, [node("Reshape", ["means", "c"], ["y"])], [constant("c", [7, 11])])
        case "not a number":
            return write(
                path,
                [node("Sub", ["means", "c"], ["d"]), node("Sqrt", ["d"], ["y"])],
                [constant("c", [1e9], np.float32)],
            )
        case "width":
            nodes = [
                node("Shape", ["means"], ["shape"], end=1),
                node("Concat", ["one", "shape"], ["repeats"], axis=0),
                node("Tile", ["means", "repeats"], ["y"]),
            ]
            return write(path, nodes, [constant("one", [1])])
        case "wide":
            return write(path, [node("Tile", ["means", "c"], ["y"])], [constant("c", [1, 10**5])])
        case "fewer rows":
            return write(path, [node("ReduceMean", ["means"], ["y"], axes=[0])])
        case "sequence":
            output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
            return write(path, [node("SequenceConstruct", ["means"], ["y"])], output=output)
        case "map":
            value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
            kind = helper.make_map_type_proto(TensorProto.INT64, value)
            output = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
            zipped = node(
                "ZipMap", ["means"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
            )
            return write(path, [zipped], output=output, domains=["ai.onnx.ml"])
        case "labels":
            output = info("y", TensorProto.INT64, ["batch"])
            return write(
                path, [node("ArgMax", ["means"], ["y"], axis=1, keepdims=0)], output=output
            )
        case "no input":
            return write(
                path,
                [node("Identity", ["c"], ["y"])],
                [constant("c", [[1, 2]], np.float32)],
                inputs=[],
            )
        case "two inputs":
            other = info("z", TensorProto.FLOAT, ["batch", 3])
            return write(path, [node("Add", ["means", "z"], ["y"])], inputs=[image, other])
        case "sequence input":
            given = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
            graph = helper.make_graph(
                [node("SequenceAt", ["x", "i"], ["y"])],
                "g",
                [given],
                [info("y", TensorProto.FLOAT, None)],
                [numpy_helper.from_array(np.array(0), "i")],
            )
            model = helper.make_model(
                graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]
            )
            path.write_bytes(model.SerializeToString())
            return path
        case "domain":
            return write(path, [node("Steal", ["means"], ["y"], domain="evil")], domains=["evil"])
        case "external":
            weights = constant("c", [0.0] * 3, np.float32)
            weights.ClearField("raw_data")
            weights.data_location = TensorProto.EXTERNAL
            weights.external_data.add(key="location", value="../../../../etc/passwd")
            return write(path, [node("Add", ["means", "c"], ["y"])], [weights])
        case "truncated":
            data = write_mean_channels(path).read_bytes()
            path.write_bytes(data[: len(data) // 2])
            return path
        case "length":  # field 7, the graph, that claims almost 2 GiB
            path.write_bytes(b"\x08\x08\x3a\xff\xff\xff\xff\x07" + b"\0" * 100)
            return path
        case _:
            path.write_bytes(b"")
            return path


FAILING = {
    "gather": "Gather node",
    "reshape": "Reshape node",
    "not a number": "values that are not finite",
    "width": "embeddings have 6 numbers in one batch and 3 in another",
    "wide": "embeddings have 300,000 numbers, expected at most 65,536",
    "fewer rows": "for 2 images, expected one embedding per image",
    "sequence": "output y is list",
    "map": "output y is list",
    "labels": "expected one embedding per image",
    "no input": "takes nothing; expected one image input",
    "two inputs": "expected one image input",
    "sequence input": "expected one image input",
    "domain": "needs the operator evil:Steal, which ONNX Runtime does not have",
    "external": "outside its folder",
    "truncated": "not an ONNX file, or a damaged one",
    "length": "not an ONNX file, or a damaged one",
    "empty": "not an ONNX file, or a damaged one",
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", FAILING)
def test_what_fails_is_one_line_that_names_the_file(tmp_path: Path, name: str, trust: bool) -> None:
    path = failing(name, tmp_path / "model.onnx")
    with pytest.raises((CheckpointError, ConfigError), match=FAILING[name]) as caught:
        embedder = load_embedder(path, device="cpu", trust=trust)
        embedder.embed(np.full((2, 8, 4, 3), 9, np.uint8))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_crash_of_onnx_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a fault in ONNX Runtime: the process of the trial ends by a signal."""
    monkeypatch.setattr(onnx_trial.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "python").chmod(0o755)
    path = write_mean_channels(tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=r"ONNX Runtime crashed on two images \(SIGSEGV\)"):
        load_embedder(path, device="cpu")


def test_a_file_that_changed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mean_channels(tmp_path / "m.onnx")
    load_embedder(path, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(onnx_trial.subprocess, "run", None)  # a second trial would fail
        load_embedder(path, device="cpu")
    endless_loop(path)
    monkeypatch.setattr(onnx_trial, "SECONDS", 2.0)
    with pytest.raises(CheckpointError, match="took more than 2 s"):
        load_embedder(path, device="cpu")


def test_a_module_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("open('executed', 'w')")
    load_embedder(write_mean_channels(tmp_path / "m.onnx"), device="cpu")
    assert not (tmp_path / "executed").exists()


def test_a_network_whose_embeddings_depend_on_the_batch_is_refused(tmp_path: Path) -> None:
    """As an export in training mode, whose batch norms take the statistics of the batch."""
    nodes = [
        helper.make_node("ReduceMean", ["means"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["means", "mean"], ["centred"]),
        helper.make_node("Add", ["centred", "c"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, [constant("c", [0.1, 0.0, 0.0], np.float32)])
    with pytest.raises(CheckpointError, match=r"depends on the other images .* model\.eval\(\)"):
        load_embedder(path, device="cpu")
    assert load_embedder(path, device="cpu", trust=True).dimension == 3


def test_a_value_that_is_not_finite_is_refused_by_its_row(tmp_path: Path) -> None:
    """The root of the mean of a channel, less a hundredth: NaN where the channel is black."""
    nodes = [helper.make_node("Sub", ["means", "c"], ["d"]), helper.make_node("Sqrt", ["d"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [constant("c", [0.01], np.float32)])
    inputs = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    embedder = load_embedder(path, device="cpu", inputs=inputs)
    pixels = np.full((5, 8, 4, 3), 9, np.uint8)
    assert np.isfinite(embedder.embed(pixels)).all()
    pixels[3] = 0
    with pytest.raises(CheckpointError, match=r"embedding 3 of a batch of 5 .* not finite"):
        embedder.embed(pixels)


@pytest.mark.parametrize(
    "words",
    [
        "eval --dataset MARKET MODEL",
        "extract MODEL --images MARKET/query -o f.h5",
        "search MODEL --query MARKET/query --gallery MARKET/query",
        "index build new --model MODEL MARKET/query",
        "serve MODEL",
        "visualize ranks MODEL --dataset MARKET",
        "visualize embedding MODEL --dataset MARKET",
        "prepare-masks --dataset MARKET --parser MODEL",
    ],
)
def test_every_command_tries_a_model_before_it_runs_it(
    tmp_path: Path, market: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_trial, "SECONDS", 0.01)  # no process starts as fast
    write_mean_channels(tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=r"took more than 0\.01 s"):
        app(words.replace("MODEL", "m.onnx").replace("MARKET", str(market)).split())


def test_a_trusted_model_is_not_tried(
    tmp_path: Path, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_trial.subprocess, "run", None)  # a trial would fail
    write_mean_channels(tmp_path / "m.onnx")
    arguments = ["--images", str(market / "query"), "-o", "f.h5", "--trust"]
    app(["extract", "m.onnx", *arguments], standalone_mode=False)
    assert Runtime("m.onnx", trust=True).dimension == 3


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.zeros((1, 3, 16, 16), np.float32), r"gives float32 \[1, 3, 16, 16\] for 1 images"),
        (np.zeros((2, 20, 16, 16), np.float32), r"gives float32 \[2, 20, 16, 16\] for 1 images"),
        (np.zeros((1, 20, 0, 16), np.float32), "expected scores of 20 classes per pixel"),
        ([np.zeros((1, 20, 16, 16))], "the parser gives list for 1 images"),
        ({"a": 1.0}, "the parser gives dict for 1 images"),
        (np.full((1, 20, 16, 16), np.nan, np.float32), "scores that are not numbers"),
    ],
)
def test_a_parser_that_does_not_give_what_it_states_is_refused(
    output: object, message: str
) -> None:
    """A parser that states scores of 20 classes, and gives something else."""
    x = SimpleNamespace(name="x", shape=["n", 3, 16, 16], type="tensor(float)")
    y = SimpleNamespace(name="y", shape=["n", 20, "h", "w"], type="tensor(float)")
    session = SimpleNamespace(
        get_inputs=lambda: [x], get_outputs=lambda: [y], run=lambda names, feeds: [output]
    )
    parser = OnnxParser(
        session,
        labels=load_label_set("lip"),
        options=ParserOptions(size=(16, 16)),
        model_hash="",
    )
    with pytest.raises(DataError, match=message):
        parser.label_maps([np.zeros((16, 16, 3), np.uint8)])


def test_numbers_do_not_depend_on_the_trial(tmp_path: Path) -> None:
    path = write_mean_channels(tmp_path / "m.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 4, 3), np.uint8)
    tried, trusted = (load_embedder(path, device="cpu", trust=trust) for trust in (False, True))
    assert np.array_equal(tried.embed(pixels), trusted.embed(pixels))
