"""Checkpoints in the authors' formats with random weights, for networks of any width.

keys/*.txt lists the tensors of the published files: name, and shape in the file's own order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reidkit.masks.parsers import weights
from reidkit.masks.parsers.crc32c import masked_crc32c
from reidkit.masks.parsers.jppnet import JppNet
from reidkit.masks.parsers.schp import Schp

Tensors = dict[str, np.ndarray]
FIXED = (2, 3, 6, 16, 20)
"""Channels that do not follow the width: edges, colours, edge maps, joints, classes."""


def published_keys(parser: str) -> dict[str, tuple[int, ...]]:
    lines = (Path(__file__).parent / "keys" / f"{parser}.txt").read_text().splitlines()
    return {name: tuple(map(int, shape.split("x"))) for name, shape in map(str.split, lines)}


def random_tensors(parser: str, *, width: int, num_classes: int = 20, seed: int = 0) -> Tensors:
    """Weights that keep the size of activations; some batch normalisations have negative ones."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, shape in published_keys(parser).items():
        kernel = slice(0, 2) if parser == "jppnet" else slice(2, 4)
        sides = shape[kernel] if len(shape) == 4 else ()
        channels = [n if n in FIXED else n * width // 64 for n in shape if len(shape) == 1] or [
            n if n in FIXED else n * width // 64
            for n in (shape[2:] if parser == "jppnet" else shape[:2])
        ]
        if "fushion.3" in name or "decoder.conv4" in name:
            channels[0] = num_classes
        if len(shape) == 4:
            fan_in = np.prod(sides) * channels[0 if parser == "jppnet" else 1]
            order = (*sides, *channels) if parser == "jppnet" else (*channels, *sides)
            values = rng.normal(0, np.sqrt(2 / fan_in), order)
        elif name.endswith(("var", "variance")):
            values = rng.uniform(0.5, 1.5, channels)
        elif name.endswith(("bn1.weight", "bn2.weight", "bn3.weight", ".1.weight", "gamma")):
            values = rng.uniform(0.3, 1, channels) * rng.choice([-1, 1], channels)
        else:
            values = rng.normal(0, 0.1, channels)
        tensors[name] = values.astype(np.float32)
    return tensors


def use_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Checkpoints are loaded into networks of this width."""
    monkeypatch.setattr(weights, "Schp", partial(Schp, width=width))
    monkeypatch.setattr(weights, "JppNet", partial(JppNet, width=width))


def write_pth(path: Path, tensors: Mapping[str, np.ndarray], *, zipped: bool = False) -> Path:
    """As SCHP's training script saves it; its files are older than PyTorch's zip format."""
    state = {name: torch.from_numpy(values) for name, values in tensors.items()}
    content = {"cycle_n": 0, "state_dict": state}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def field(number: int, value: int | bytes, *, fixed: bool = False) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if fixed:
        return varint(number << 3 | 5) + struct.pack("<I", value)
    return varint(number << 3) + varint(value)


def bundle_entry(values: np.ndarray, *, dtype: int, offset: int) -> bytes:
    shape = b"".join(field(2, field(1, side)) for side in values.shape)
    data = values.tobytes()
    return (
        field(1, dtype)
        + field(2, shape)
        + (field(4, offset) if offset else b"")
        + field(5, len(data))
        + field(6, masked_crc32c(data), fixed=True)
    )


def table_block(entries: list[tuple[bytes, bytes]], *, compression: int = 0) -> bytes:
    """A block of a LevelDB table with its trailer; every 16th key is stored whole."""
    block, restarts, previous = b"", [], b""
    for i, (key, value) in enumerate(entries):
        if i % 16 == 0:
            restarts.append(len(block))
            previous = b""
        shared = 0
        while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
            shared += 1
        block += varint(shared) + varint(len(key) - shared) + varint(len(value))
        block += key[shared:] + value
        previous = key
    restarts = restarts or [0]
    block += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    block += bytes([compression])
    return block + struct.pack("<I", masked_crc32c(block))


def write_table(path: Path, entries: dict[bytes, bytes], *, compression: int = 0) -> None:
    """A LevelDB table of blocks of 40 entries each."""
    content, handles = b"", []
    ordered = sorted(entries.items())
    for start in range(0, len(ordered), 40):
        chunk = ordered[start : start + 40]
        block = table_block(chunk, compression=compression)
        handles.append((chunk[-1][0], varint(len(content)) + varint(len(block) - 5)))
        content += block
    footer = b""
    for last in (table_block([]), table_block(handles)):
        footer += varint(len(content)) + varint(len(last) - 5)
        content += last
    path.write_bytes(content + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))


def write_bundle(
    folder: Path, tensors: Mapping[str, np.ndarray], name: str = "model.ckpt-1"
) -> Path:
    """As TensorFlow's Saver writes it: the prefix of NAME.index and NAME.data-00000-of-00001."""
    folder.mkdir(exist_ok=True)
    types = {"float32": 1, "int64": 9}
    entries = {b"": field(1, 1) + field(3, field(1, 1))}
    offset = 0
    with (folder / f"{name}.data-00000-of-00001").open("wb") as file:
        for key, values in sorted(tensors.items()):
            dtype = types[values.dtype.name]
            entries[key.encode()] = bundle_entry(values, dtype=dtype, offset=offset)
            offset += file.write(values.tobytes())
    write_table(folder / f"{name}.index", entries)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "/data/JPPNet-s2/{name}"\n')
    return folder / name


def mutations(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Damaged copies: flipped bytes, cuts, insertions."""
    for i in range(count):
        damaged = bytearray(data)
        at = int(rng.integers(len(data)))
        if i % 5 < 3:
            for position in rng.integers(0, len(data), 1 + i % 3):
                damaged[position] = int(rng.integers(256))
        elif i % 5 == 3:
            del damaged[at : at + int(rng.integers(1, 100))]
        else:
            damaged[at:at] = rng.bytes(int(rng.integers(1, 10)))
        yield bytes(damaged)
