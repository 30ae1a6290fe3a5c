"""Parsers of models and runs: weights, headers, settings, histories, results, requests."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from .mutations import Files, mutate_bytes, mutate_document, mutate_json
from .target import Target


def _safetensors(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _checkpoint_header(**changes: Any) -> dict[str, Any]:
    from reidkit.checkpoint import Header
    from reidkit.preprocess import Preprocess

    config = {"backbone": "resnet18"}
    header = Header("baseline", config, Preprocess(size=(64, 32)), num_ids=3, dataset="fuzz")
    return {**dataclasses.asdict(header), **changes}


def _checkpoint_seeds() -> list[Files]:
    seeds = []
    for arch in ("baseline", "iaunet", "pcb"):
        metadata = {"reidkit": json.dumps(_checkpoint_header(arch=arch))}
        header = {
            "__metadata__": metadata,
            "head.bn.weight": {"dtype": "F32", "shape": [512], "data_offsets": [0, 2048]},
        }
        seeds.append({"model.safetensors": _safetensors(header, bytes(2048))})
    return seeds


def _checkpoint_structured(rng: Random, files: Files) -> Files:
    data = files["model.safetensors"]
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    if rng.random() < 0.75:
        text = mutate_json(rng, header["__metadata__"]["reidkit"].encode())
        header["__metadata__"]["reidkit"] = text.decode("utf-8", "replace")
    else:
        header = mutate_document(rng, header)
    return {"model.safetensors": _safetensors(header, data[8 + size :])}


def _read_checkpoint(folder: Path) -> None:
    """The header; whether or not the weights fit, loading them is no crash."""
    from reidkit import checkpoint
    from reidkit.errors import ReidkitError

    header = checkpoint.read_header(folder / "model.safetensors")
    json.dumps(dataclasses.asdict(header))
    with contextlib.suppress(ReidkitError):
        checkpoint.load(folder / "model.safetensors")


def _state() -> dict[str, Any]:
    import torch

    state = {"conv1.weight": torch.zeros(4, 3, 1, 1), "bn1.weight": torch.ones(4)}
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}


def _saved(document: Any, *, zipped: bool = True) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(document, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _weights_seeds() -> list[Files]:
    from safetensors.torch import save

    plain = save(_state()["state_dict"])
    return [
        {"weights.pth": _saved(_state())},
        {"weights.pth": _saved(_state(), zipped=False)},
        {"weights.safetensors": plain},
    ]


def _rezip(rng: Random, data: bytes) -> bytes:
    """A zip with one member changed and its checksums right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w") as out:
        names = source.namelist()
        pickled = [name for name in names if name.endswith("data.pkl")]
        wrong = rng.choice(pickled if rng.random() < 0.7 else names)
        for name in names:
            content = source.read(name)
            out.writestr(name, mutate_bytes(rng, content) if name == wrong else content)
    return file.getvalue()


def _hostile_tensors() -> Sequence[Any]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they will be gone one day
        quantised = torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)
    return (
        torch.zeros(4).to_sparse(),
        torch.zeros(4, device="meta"),
        quantised,
        torch.zeros(1).expand(1000, 1000),
        torch.zeros((), dtype=torch.complex64),
        torch.full((2, 2), float("nan")),
        torch.zeros(0),
        torch.zeros(3, dtype=torch.uint8),
        torch.nn.Parameter(torch.zeros(2)),
    )


def _tensor_document(rng: Random, document: Any) -> bytes:
    import torch

    tensors = tuple(_hostile_tensors())
    values = (*tensors, None, "x", -1, 2**70, [], {}, {"a": tensors[0]}, [1, tensors[5]], 1e400)
    changed = document
    for _ in range(rng.choice((1, 1, 2))):
        changed = _replace(rng, changed, rng.choice(values))
    with contextlib.suppress(TypeError, RuntimeError):
        torch.manual_seed(0)
    return _saved(changed, zipped=rng.random() < 0.8)


def _replace(rng: Random, document: Any, value: Any) -> Any:
    """The document with one value replaced, at any depth, or one key removed."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = rng.choice(list(document))
        if rng.random() < 0.1:
            return {name: inner for name, inner in document.items() if name != key}
        return {**document, key: _replace(rng, document[key], value)}
    if isinstance(document, list) and document and rng.random() < 0.7:
        at = rng.randrange(len(document))
        return [*document[:at], _replace(rng, document[at], value), *document[at + 1 :]]
    return value


def _weights_structured(rng: Random, files: Files) -> Files:
    name = next(iter(files))
    if name.endswith(".safetensors"):
        size = struct.unpack("<Q", files[name][:8])[0]
        header = mutate_document(rng, json.loads(files[name][8 : 8 + size]))
        return {name: _safetensors(header, files[name][8 + size :])}
    if files[name][:2] == b"PK" and rng.random() < 0.5:
        return {name: _rezip(rng, files[name])}
    return {name: _tensor_document(rng, _state())}


def _read_weights(folder: Path) -> None:
    from reidkit.errors import ReidkitError
    from reidkit.external import import_weights
    from reidkit.models.weights import read_tensors

    path = next(folder.glob("weights.*"))
    tensors = read_tensors(path)
    assert all(isinstance(name, str) for name in tensors)
    for tensor in tensors.values():
        tensor.sum()
    if sum(map(ord, "".join(tensors))) % 16 == 0:  # it builds a network, which takes long
        with contextlib.suppress(ReidkitError):
            import_weights(path, format="torchvision", arch="baseline")


def _varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value)


def _block(content: bytes) -> bytes:
    from reidkit.masks.parsers.crc32c import masked_crc32c

    return content + b"\0" + struct.pack("<I", masked_crc32c(content + b"\0"))


def _pairs(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    text = b"".join(
        b"\0" + _varint(len(key)) + _varint(len(value)) + key + value for key, value in entries
    )
    return text + struct.pack("<II", 0, 1)


def _tensorflow(rng: Random | None = None) -> Files:
    """A checkpoint of two variables; with `rng`, changed before its checksums are computed."""
    from reidkit.masks.parsers.crc32c import masked_crc32c

    data = struct.pack("<4f", 1, 2, 3, 4)

    def changed(content: bytes, share: float) -> bytes:
        return mutate_bytes(rng, content) if rng and rng.random() < share else content

    def number(value: int) -> int:
        magic = (0, 1, 2**31, 2**62, 2**63, 2**64 - 1, value + 1)
        return rng.choice(magic) if rng and rng.random() < 0.15 else value

    def entry(offset: int, count: int) -> bytes:
        part = data[offset : offset + 4 * count]
        shape = b"".join(_field(2, _field(1, number(side))) for side in (count,))
        crc = struct.pack("<I", masked_crc32c(part))
        message = _field(1, number(1)) + _field(2, shape) + _field(3, number(0))
        message += _field(4, number(offset)) + _field(5, number(len(part)))
        return changed(message, 0.3) + _varint(6 << 3 | 5) + crc

    header = changed(_field(1, number(1)), 0.1)
    entries = [(b"", header), (b"a/weights", entry(0, 3)), (b"b", entry(12, 1))]
    first = _block(changed(_pairs(entries), 0.3))
    meta = _block(changed(_pairs([]), 0.1))
    handle = _varint(number(0)) + _varint(number(len(first) - 5))
    index = _block(changed(_pairs([(b"b", handle)]), 0.2))
    footer = _varint(len(first)) + _varint(len(meta) - 5)
    footer += _varint(len(first) + len(meta)) + _varint(len(index) - 5)
    end = footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return {
        "tf/m.index": first + meta + index + end,
        "tf/m.data-00000-of-00001": data,
        "tf/checkpoint": b'model_checkpoint_path: "m"\n',
    }


def _read_tensorflow(folder: Path) -> None:
    from reidkit.masks.parsers.tensorflow_checkpoint import TensorFlowCheckpoint

    checkpoint = TensorFlowCheckpoint(folder / "tf")
    for name, variable in checkpoint.variables.items():
        assert checkpoint.read(name).shape == variable.shape


def _export_metadata() -> dict[str, Any]:
    from reidkit.preprocess import Preprocess

    return {
        "format": 2,
        "arch": "mean",
        "preprocess": dataclasses.asdict(Preprocess(size=(8, 4))),
        "frames": 0,
        "pixels": "normalised",
        "outputs": ["y"],
        "features_output": "y",
        "precision": "fp32",
        "assumes": None,
    }


PARSER = {
    "name": "schp",
    "procedure": "schp",
    "label_set": "lip",
    "size": 473,
    "weights": "x",
    "reidkit": "0",
    "format": 1,
}


def _onnx_document() -> dict[str, Any]:
    """What ONNX Runtime says of a file: inputs, outputs, metadata."""
    return {
        "inputs": [{"name": "x", "type": "tensor(float)", "shape": ["n", 3, 8, 4]}],
        "outputs": [{"name": "y", "type": "tensor(float)", "shape": ["n", 3]}],
        "metadata": {"reidkit": _export_metadata(), "reidkit_parser": PARSER},
    }


def _onnx_seeds() -> list[Files]:
    third_party = {**_onnx_document(), "metadata": {}}
    sidecar = b'size = [8, 4]\nmean = [0.5, 0.5, 0.5]\nchannels = "bgr"\noutput = "y"\n'
    documents = (_onnx_document(), third_party)
    return [{"onnx.json": json.dumps(d).encode(), "model.toml": sidecar} for d in documents]


def _onnx_structured(rng: Random, files: Files) -> Files:
    """Metadata and shapes that a real file may have: those are always lists and strings."""
    document = json.loads(files["onnx.json"])
    kind = rng.random()
    if kind < 0.4:
        document["metadata"] = mutate_document(rng, document["metadata"] or {"reidkit": 1})
    elif kind < 0.8:
        values = ("n", None, 0, 1, 3, -1, 8, 2**31, 2**62)
        value = rng.choice(document["inputs"] + document["outputs"])
        value["shape"] = [rng.choice(values) for _ in range(rng.choice((0, 1, 2, 3, 4, 4, 5, 9)))]
        value["type"] = rng.choice(("tensor(float)", "tensor(uint8)", "seq(tensor(float))"))
    else:
        name = rng.choice(("inputs", "outputs"))
        document[name] = document[name] * rng.choice((0, 2))
    return {**files, "onnx.json": json.dumps(document).encode()}


class _Value:
    def __init__(self, table: dict[str, Any]) -> None:
        self.name, self.type, self.shape = str(table["name"]), str(table["type"]), table["shape"]
        if not isinstance(self.shape, list):
            raise TypeError("not a session's")


class _Session:
    """Stands for ONNX Runtime's session; its graph is `onnx-file`'s to test."""

    def __init__(self, document: Any) -> None:
        self.values = {k: [_Value(table) for table in document[k]] for k in ("inputs", "outputs")}
        metadata = document["metadata"]
        self.custom_metadata_map = {
            str(name): value if isinstance(value, str) else json.dumps(value)
            for name, value in metadata.items()
        }

    def get_inputs(self) -> list[_Value]:
        return self.values["inputs"]

    def get_outputs(self) -> list[_Value]:
        return self.values["outputs"]

    def get_modelmeta(self) -> _Session:
        return self


def _read_contract(folder: Path) -> None:
    from reidkit.errors import ReidkitError
    from reidkit.masks.parsers.exported import open_exported, read_header
    from reidkit.runtime.onnx_contract import read_contract

    try:
        session = _Session(json.loads((folder / "onnx.json").read_bytes()))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ReidkitError("no session says this") from error
    with contextlib.suppress(ReidkitError):
        header = read_header(session)
        if header is not None and session.get_inputs():
            open_exported(session, header)
    contract = read_contract(session, folder / "model.onnx", {})
    assert isinstance(contract.input, str) and isinstance(contract.output, str)


def _onnx_file_seeds() -> list[Files]:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    seeds = []
    for metadata in (None, _export_metadata()):
        graph = helper.make_graph(
            nodes,
            "mean",
            [value("x", TensorProto.FLOAT, ["n", 3, 8, 4])],
            [value("y", TensorProto.FLOAT, ["n", 3])],
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        if metadata is not None:
            helper.set_model_props(model, {"reidkit": json.dumps(metadata)})
        seeds.append({"model.onnx": model.SerializeToString()})
    return seeds


def _load_onnx(folder: Path) -> None:
    import numpy as np

    from reidkit.runtime.embedder import load_embedder

    embedder = load_embedder(folder / "model.onnx", device="cpu")
    rows = embedder.embed(np.zeros((2, *embedder.preprocess.size, 3), np.uint8))
    assert rows.shape[0] == 2 and rows.dtype == np.float32


SETTINGS = b"""seed = 1
precision = "fp32"
weights = "none"
[arch]
name = "iaunet"
backbone = "resnet18"
stages = [2]
[input]
size = [64, 32]
interpolation = "bicubic"
[sampler]
batch = 16
[schedule]
epochs = 2
milestones = [1]
[optim]
lr = 3e-4
[augment]
erase_area = [0.02, 0.4]
[dataset]
name = "fuzz"
"""
ASSIGNMENTS = (
    *("optim.lr=3e-4", "arch.backbone=resnet18", "arch=iaunet", "input.size=[64, 32]", "seed=1"),
    *("schedule.milestones=[1, 2]", "arch.stages=[2]", "weights='none'", "loss.triplet=1"),
)


def _settings_seeds() -> list[Files]:
    return [{"config.toml": SETTINGS, "set.txt": text.encode()} for text in ASSIGNMENTS]


def _settings_structured(rng: Random, files: Files) -> Files:
    key, _, value = files["set.txt"].decode().partition("=")
    values = ("nan", "-1", "1e400", "1_000", "{a=1}", "[" * 3000, '"""', "'\\u0000'", "x" * 5000)
    value = rng.choice((*values, value, "2026-05-17", "9" * 5000, "[[1], 2]", "0x" + "f" * 300))
    key = rng.choice((key, key, "optim", "", ".", "a..b", "arch.name", "optim.lr.x", "é", key * 2))
    return {**files, "set.txt": f"{key}={value}".encode()}


def _read_settings(folder: Path) -> None:
    from reidkit.config import (
        check_layers,
        environment_layer,
        file_layer,
        load_run_config,
        set_layer,
        to_table,
        to_toml,
        with_recipe,
    )
    from reidkit.errors import ReidkitError

    text = (folder / "set.txt").read_bytes().decode("utf-8", "surrogateescape")
    layers = [file_layer(folder / "config.toml")]
    refusal = None
    key, _, value = text.partition("=")
    for make in (
        lambda: set_layer([text]),
        lambda: environment_layer({f"REIDKIT_{key.replace('.', '__')}": value}),
    ):
        try:
            check_layers([make()])
            layers.append(make())
        except ReidkitError as error:
            refusal = error
    check_layers(layers)
    config = load_run_config(with_recipe(layers, preset="none", dataset="fuzz"))
    to_toml(to_table(config))
    if refusal is not None:
        raise refusal


def _history() -> bytes:
    record = {
        "epoch": 1,
        "lr": 0.1,
        "accuracy": 0.5,
        "images": 10,
        "seconds": 1.0,
        "losses": {"id": 1.0, "total": 2.0},
        "test": {"mAP": 0.5, "mINP": None, "cmc": [0.1, 0.2, 0.3, 0.4, 0.5]},
        "validation": {"task": "classification", "top1": 0.5, "top5": 0.9},
    }
    return b"".join(json.dumps({**record, "epoch": k}).encode() + b"\n" for k in (1, 2, 3))


def _history_structured(rng: Random, files: Files) -> Files:
    lines = files["metrics.jsonl"].splitlines()
    at = rng.randrange(len(lines))
    lines[at] = mutate_json(rng, lines[at])
    return {"metrics.jsonl": b"\n".join(lines) + b"\n"}


def _read_history(folder: Path) -> None:
    """The history, and what a resumed run makes of it; the curves take too long for each."""
    from reidkit.training.logging import RunLogger, plot_training_curves, read_history

    records = read_history(folder)
    logger = RunLogger(folder)
    logger.last_plot = float("inf")
    new = json.loads(_history().splitlines()[0])
    logger.epoch({**new, "epoch": 9}, last=False)
    data = (folder / "metrics.csv").read_bytes()
    if sum(data) % 64 == 0:
        plot_training_curves(records, folder / "curves.png")


def _training_state() -> Any:
    import torch

    from reidkit.training.optim import TrainState

    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))


def _resume_document() -> dict[str, Any]:
    import torch

    state = _training_state()
    return {
        "position": [0, 1, -1.0, 0],
        "running": [{"total": torch.tensor(1.0)}, torch.tensor(1), torch.tensor(-1), 4, 0.5],
        "model": dict(state.model.state_dict()),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "ema": {},
        "random": [(torch.get_rng_state(), [])],
    }


def _resume_structured(rng: Random, files: Files) -> Files:
    if rng.random() < 0.4:
        return {"resume.pt": _rezip(rng, files["resume.pt"])}
    return {"resume.pt": _tensor_document(rng, _resume_document())}


def _read_resume(folder: Path) -> None:
    import torch

    from reidkit.runtime.distributed import ProcessGroup
    from reidkit.training.checkpoints import has_run, load_resume_point

    has_run(folder)
    state = _training_state()
    position = load_resume_point(folder, state, ProcessGroup())
    assert position.epoch >= 0 and position.step >= 0
    position.running.means(max(position.step, 1))
    state.update(state.model(torch.ones(1, 2)).sum())


def _result(**changes: Any) -> dict[str, Any]:
    result = {
        "dataset": "fuzz",
        "dataset_fingerprint": "0",
        "model": "m.safetensors",
        "model_sha256": "0",
        "rule": "cosine",
        "ap": "step",
        "mAP": 0.5,
        "mINP": None,
        "cmc": [0.5, 1.0],
        "reranked": None,
        "per_query": {
            "pid": [1, 1, 2],
            "camid": [1, 2, 1],
            "average_precision": [0.5, 1.0, None],
            "inverse_negative_penalty": [0.5, 1.0, None],
            "rank_1": [0, 1, None],
        },
    }
    return {**result, **changes}


def _results_seeds() -> list[Files]:
    first, second = ({"results": [_result(model=name)]} for name in ("a", "b.onnx"))
    return [{"a.json": json.dumps(first).encode(), "b.json": json.dumps(second).encode()}]


def _compare(folder: Path) -> None:
    from reidkit import retrieval
    from reidkit.cli.compare import find_pair
    from reidkit.cli.runs import read_results
    from reidkit.errors import DataError

    results = [read_results(folder / f"{name}.json") for name in "ab"]
    pair = find_pair(results, None)
    if pair is None:
        raise DataError("nothing in common")
    if pair[0].get("task") != "classification":
        retrieval.compare(*pair, samples=20)


def _read_result(folder: Path) -> None:
    from reidkit.reproduce.runs import _read_result as read
    from reidkit.reproduce.runs import scores

    _, metrics = read(folder / "result.json")
    scores(metrics)


def _reproduced() -> bytes:
    metrics = {"epoch": 3, "mAP": 0.5, "cmc": [0.1, 0.2, 0.3], "mINP": None}
    return json.dumps({"settings": {"seed": 0}, "metrics": metrics}).encode()


def _run_settings(folder: Path) -> None:
    """config.toml of a run that is resumed."""
    from reidkit.config import load_run_config
    from reidkit.training.checkpoints import check_settings
    from reidkit.types import Dataset

    data = Dataset("fuzz", folder, (), (), (), "market", "0" * 64)
    check_settings(folder, load_run_config([]), data)


def _run_settings_seed() -> bytes:
    from reidkit.config import load_run_config, to_table, to_toml

    dataset = {"name": "fuzz", "identities": 0, "train": 0, "query": 0, "gallery": 0}
    dataset |= {"fingerprint": "0" * 64}
    return to_toml({**to_table(load_run_config([])), "dataset": dataset}).encode()


REQUEST: dict[str, Any] = {
    "id": "1",
    "inputs": [
        {
            "name": "images",
            "datatype": "UINT8",
            "shape": [1, 2, 2, 3],
            "data": [0] * 12,
            "parameters": {},
        }
    ],
    "outputs": [{"name": "embeddings", "parameters": {"binary_data": True}}],
}


def _request_seeds() -> list[Files]:
    from reidkit.serve.protocol import INPUT, OUTPUT

    request = json.loads(json.dumps(REQUEST).replace("images", INPUT).replace("embeddings", OUTPUT))
    return [{"request.json": json.dumps(request).encode(), "length.txt": b"none"}]


def _read_request(folder: Path) -> None:
    import numpy as np

    from reidkit.serve.protocol import format_response, input_shape, parse_request

    length = (folder / "length.txt").read_bytes().decode("latin1")
    body = (folder / "request.json").read_bytes()
    shape = input_shape((2, 2), 0)
    request = parse_request(body, None if length == "none" else length, shape)
    assert request.pixels.shape[1:] == (2, 2, 3) and request.pixels.dtype == np.uint8
    rows = np.zeros((len(request.pixels), 3), np.float32)
    format_response(rows, model="m", id=request.id, binary=request.binary)


TARGETS = (
    Target("checkpoint", _checkpoint_seeds, _read_checkpoint, _checkpoint_structured),
    Target("external-weights", _weights_seeds, _read_weights, _weights_structured),
    Target(
        "tf-checkpoint", lambda: [_tensorflow()], _read_tensorflow, lambda rng, _: _tensorflow(rng)
    ),
    Target("onnx-contract", _onnx_seeds, _read_contract, _onnx_structured),
    Target("onnx-file", _onnx_file_seeds, _load_onnx),
    Target("settings", _settings_seeds, _read_settings, _settings_structured),
    Target("run-settings", lambda: [{"config.toml": _run_settings_seed()}], _run_settings),
    Target("history", lambda: [{"metrics.jsonl": _history()}], _read_history, _history_structured),
    Target(
        "resume-point",
        lambda: [{"resume.pt": _saved(_resume_document())}],
        _read_resume,
        _resume_structured,
    ),
    Target("results", _results_seeds, _compare),
    Target("reproduced", lambda: [{"result.json": _reproduced()}], _read_result),
    Target("request", _request_seeds, _read_request),
)
