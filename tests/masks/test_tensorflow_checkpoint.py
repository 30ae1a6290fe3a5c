"""Checkpoints are written here, byte by byte, in the documented format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from parser_checkpoints import (
    bundle_entry,
    field,
    mutations,
    table_block,
    varint,
    write_bundle,
    write_table,
)

from reidkit.errors import CheckpointError
from reidkit.masks.parsers.crc32c import crc32c, masked_crc32c
from reidkit.masks.parsers.tensorflow_checkpoint import TensorFlowCheckpoint


def tensors(count: int = 100) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(), (5,), (3, 3, 4, 2), (0,), (1, 1, 7, 3)]
    return {
        f"block{i // 7}/layer{i}/weights": rng.normal(size=shapes[i % 5]).astype(np.float32)
        for i in range(count)
    }


def crc_bit_by_bit(data: bytes) -> int:
    state = 0xFFFFFFFF
    for value in data:
        state ^= value
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def test_the_crc_is_castagnolis():
    # the check values of RFC 3720, appendix B.4, and of the catalogue of CRCs
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@pytest.mark.parametrize("length", [*range(1, 20), 100, 1023, 4096, 4 * 65536 - 1, 4 * 65536 + 5])
def test_the_crc_equals_one_computed_bit_by_bit(length: int):
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == crc_bit_by_bit(data)
    view = np.frombuffer(b"x" + data, np.uint8)[1:]  # not aligned to words
    assert crc32c(view) == crc_bit_by_bit(data)


def test_every_variable_is_read_in_its_shape(tmp_path: Path):
    written = tensors()
    checkpoint = TensorFlowCheckpoint(write_bundle(tmp_path / "c", written))
    assert set(checkpoint.variables) == set(written)
    for name, values in written.items():
        np.testing.assert_array_equal(checkpoint.read(name), values)
        assert checkpoint.read(name).shape == values.shape


def test_a_checkpoint_is_found_by_folder_by_file_and_by_prefix(tmp_path: Path):
    prefix = write_bundle(tmp_path / "c", tensors(3))
    index = prefix.with_name("model.ckpt-1.index")
    data = prefix.with_name("model.ckpt-1.data-00000-of-00001")
    for path in (prefix, prefix.parent, index, data):
        assert len(TensorFlowCheckpoint(path).variables) == 3


def test_of_several_checkpoints_in_a_folder_the_one_in_its_list_is_read(tmp_path: Path):
    write_bundle(tmp_path, tensors(2), "model.ckpt-1")
    write_bundle(tmp_path, tensors(4), "model.ckpt-2")
    assert len(TensorFlowCheckpoint(tmp_path).variables) == 4
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(CheckpointError, match=r"model.ckpt-1.index, model.ckpt-2.index.*Pass"):
        TensorFlowCheckpoint(tmp_path)


def test_paths_without_a_checkpoint_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"found the .index files: none"):
        TensorFlowCheckpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"model.ckpt.index: no such file"):
        TensorFlowCheckpoint(tmp_path / "model.ckpt")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "../../etc/passwd"\n')
    with pytest.raises(CheckpointError, match=r"found the .index files: none"):
        TensorFlowCheckpoint(tmp_path)


def test_a_truncated_data_file_is_refused(tmp_path: Path):
    prefix = write_bundle(tmp_path, {"a": np.ones(100, np.float32), "b": np.ones(50, np.float32)})
    file = prefix.with_name("model.ckpt-1.data-00000-of-00001")
    file.write_bytes(file.read_bytes()[:500])
    checkpoint = TensorFlowCheckpoint(prefix)
    assert checkpoint.read("a").sum() == 100
    with pytest.raises(
        CheckpointError, match="truncated: it has 500 bytes, and b ends at byte 600"
    ):
        checkpoint.read("b")
    file.unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"{file} is missing")):
        checkpoint.read("a")


def test_one_wrong_bit_in_the_data_is_refused(tmp_path: Path):
    prefix = write_bundle(tmp_path, {"a": np.ones(100, np.float32), "b": np.ones(50, np.float32)})
    file = prefix.with_name("model.ckpt-1.data-00000-of-00001")
    damaged = bytearray(file.read_bytes())
    damaged[410] ^= 1
    file.write_bytes(damaged)
    checkpoint = TensorFlowCheckpoint(prefix)
    checkpoint.read("a")
    with pytest.raises(CheckpointError, match=r"b \(bytes 400 to 600\) has a wrong checksum"):
        checkpoint.read("b")


def test_one_wrong_bit_in_the_index_is_refused(tmp_path: Path):
    index = write_bundle(tmp_path, tensors()).with_name("model.ckpt-1.index")
    whole = index.read_bytes()
    for at in range(0, len(whole) - 48, 83):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        index.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model.ckpt-1.index"):
            TensorFlowCheckpoint(index)


def test_another_file_is_refused(tmp_path: Path):
    index = tmp_path / "a.index"
    for content in (b"", b"short", bytes(100), np.random.default_rng(0).bytes(5000)):
        index.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged, or no index of a TensorFlow"):
            TensorFlowCheckpoint(index)


def test_compressed_blocks_are_refused_by_name(tmp_path: Path):
    index = tmp_path / "a.index"
    write_table(index, {b"": field(1, 1), b"x": b""}, compression=1)
    with pytest.raises(CheckpointError, match=r"blocks are compressed \(Snappy\)"):
        TensorFlowCheckpoint(index)


ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (field(1, 9) + field(5, 16), "x is int64, expected float32"),
        (bundle_entry(ONES, dtype=1, offset=0) + field(7, b"slice"), "float32 in slices"),
        (field(1, 1) + field(2, field(2, field(1, 2**60))) + field(5, 16), "16 bytes for shape"),
        (field(1, 1) + field(2, field(2, field(1, 2**61))) + field(5, 2**63), "is truncated"),
        (bundle_entry(ONES, dtype=1, offset=2**63), "is truncated: it has 16 bytes"),
        (bundle_entry(ONES, dtype=1, offset=0) + field(3, 7), "in data file 7 of 1"),
        (field(1, b"text"), "field 1 of a message is not a number"),
        (field(2, 3), "field 2 of a message is a number"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 10, "more than 64 bits"),
        (b"\x12\x7fabc", "are missing"),
    ],
)
def test_impossible_entries_are_refused(tmp_path: Path, entry: bytes, message: str):
    (tmp_path / "a.data-00000-of-00001").write_bytes(ONES.tobytes())
    write_table(tmp_path / "a.index", {b"": field(1, 1), b"x": entry})
    with pytest.raises(CheckpointError, match=message):
        TensorFlowCheckpoint(tmp_path / "a").read("x")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "has no header"),
        (field(1, 1) + field(2, 1), "big-endian"),
        (field(1, 10**9), "in data file 0 of 1000000000"),
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, header: bytes | None, message: str):
    entries = {b"x": bundle_entry(ONES, dtype=1, offset=0)}
    write_table(tmp_path / "a.index", entries if header is None else {b"": header, **entries})
    with pytest.raises(CheckpointError, match=message):
        TensorFlowCheckpoint(tmp_path / "a")


def test_a_small_file_cannot_pretend_to_be_a_large_table(tmp_path: Path):
    # 1,000 entries of the index point to the same block, which would be parsed as often
    block = table_block([(b"name", b"value" * 1000)])
    handle = _varints(0, len(block) - 5)
    index = table_block([(b"%04d" % i, handle) for i in range(1000)])
    footer = 2 * _varints(len(block), len(index) - 5)
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    (tmp_path / "a.index").write_bytes(block + index + footer.ljust(40, b"\0") + magic)
    with pytest.raises(CheckpointError, match="blocks are larger than the file"):
        TensorFlowCheckpoint(tmp_path / "a")


def test_damaged_files_raise_nothing_but_our_error(tmp_path: Path):
    """500 mutations, half of them with their checksums made right again."""
    prefix = write_bundle(tmp_path, tensors(60))
    index = prefix.with_name("model.ckpt-1.index")
    whole = index.read_bytes()
    entries = {name.encode(): _entry(values) for name, values in tensors(10).items()}
    entries[b""] = field(1, 1)
    block = table_block(sorted(entries.items()))[:-5]
    rng = np.random.default_rng(1)
    refused = 0
    for damaged in mutations(whole, rng, 250):
        refused += _is_refused(index, damaged)
    for damaged in mutations(block, rng, 250):
        stored = damaged + b"\0"
        stored += masked_crc32c(stored).to_bytes(4, "little")
        handle = _varints(0, len(damaged))
        last = table_block([(b"z", handle)])
        footer = 2 * _varints(len(stored), len(last) - 5)
        magic = (0xDB4775248B80FB57).to_bytes(8, "little")
        refused += _is_refused(index, stored + last + footer.ljust(40, b"\0") + magic)
    assert refused > 350  # the others changed a name, a shape or an offset


def _is_refused(index: Path, content: bytes) -> bool:
    index.write_bytes(content)
    try:
        checkpoint = TensorFlowCheckpoint(index)
        for name in checkpoint.variables:
            checkpoint.read(name)
    except CheckpointError:
        return True
    return False


def _entry(values: np.ndarray) -> bytes:
    return bundle_entry(values, dtype=1, offset=0)


def _varints(*values: int) -> bytes:
    return b"".join(varint(value) for value in values)
