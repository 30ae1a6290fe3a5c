"""Files from elsewhere, hostile or broken: refused with one line, never followed."""

import json
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_masks import lip_source

from reidkit.errors import MaskError
from reidkit.masks.store import MaskStore
from reidkit.masks.writer import STORED_SIZE, write_store
from reidkit.types import Dataset

NAMES = ["masks", "sizes", "paths"]
CELLS = STORED_SIZE[0] * STORED_SIZE[1]


@pytest.fixture
def victim(toy: Dataset, tmp_path: Path) -> Path:
    """A sound store, to be tampered with."""
    path = tmp_path / "toy.h5"
    write_store(path, toy, toy.train, lip_source(toy))
    MaskStore.open(path)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(MaskError, match=message) as caught:
        MaskStore.open(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_links_are_not_followed(victim: Path, tmp_path: Path, name: str):
    other = tmp_path / "other.h5"
    other.write_bytes(victim.read_bytes())
    for link in (h5py.ExternalLink(str(other), name), h5py.SoftLink(f"/real/{name}")):
        with h5py.File(victim, "r+") as file:
            if "real" not in file:
                file.move(name, f"real/{name}")
            else:
                del file[name]
            file[name] = link
        refused(victim, f"'{name}' is a soft or external link; refused")


@pytest.mark.parametrize("name", NAMES)
def test_virtual_data_sets_are_refused(victim: Path, tmp_path: Path, name: str):
    other = tmp_path / "other.h5"
    other.write_bytes(victim.read_bytes())
    with h5py.File(victim, "r+") as file:
        shape, kind = file[name].shape, file[name].dtype
        virtual = h5py.VirtualLayout(shape, kind)
        virtual[:] = h5py.VirtualSource(str(other), name, shape, kind)
        del file[name]
        file.create_virtual_dataset(name, virtual)
    refused(victim, f"'{name}' is stored in other files; refused")


@pytest.mark.parametrize("name", NAMES)
def test_external_storage_is_refused(victim: Path, tmp_path: Path, name: str):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1_000_000))
    with h5py.File(victim, "r+") as file:
        shape, kind = file[name].shape, file[name].dtype
        del file[name]
        file.create_dataset(name, shape, kind, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    refused(victim, f"'{name}' is stored in other files; refused")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [np.int8, np.float32, [("a", np.uint8)], h5py.ref_dtype])
def test_other_types_are_refused(victim: Path, name: str, kind):
    with h5py.File(victim, "r+") as file:
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, kind)
    refused(victim, f"'{name}' is .*, expected (unsigned integers|strings)")


def test_masks_of_wider_integers_are_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        shape, chunks = file["masks"].shape, file["masks"].chunks
        del file["masks"]
        file.create_dataset("masks", shape, np.uint16, chunks=chunks, compression="gzip")
    refused(victim, "masks: expected uint8 in chunks of one mask")


def test_many_references_to_one_long_string_are_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        del file["paths"]
        file["paths"] = ["a" * 60_000] + ["b"] * 11
    refused(victim, "'paths' has strings of 60,000 bytes, at most 1,024")
    with h5py.File(victim, "r+") as file:
        del file["paths"]
        file.create_dataset("paths", data=["a"] * 12, chunks=(4,), dtype=h5py.string_dtype())
    refused(victim, "'paths': expected strings of fixed length, or contiguous storage")


@pytest.mark.parametrize("name", NAMES)
def test_a_group_in_place_of_a_data_set_is_refused(victim: Path, name: str):
    with h5py.File(victim, "r+") as file:
        del file[name]
        file.create_group(name)
    refused(victim, f"'{name}' is not a data set; refused")


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((10**12, 400, 200), (1, 400, 200), "claims .* bytes, more than the file can hold"),
        ((10**9, 1, 4), (1, 1, 4), "claims .* bytes|1000000000 masks of 1x4 .*; refused"),
        ((12, 10**6, 10**6), (1, 4096, 4096), "claims .* bytes, more than the file can hold"),
        ((12, 1024, 1024), (1, 1024, 1024), "claims .* bytes|12 masks of 1024x1024 .*"),
        ((12, 400, 200), (2, 400, 200), "expected uint8 in chunks of one mask"),
        ((12, 400, 200), (1, 200, 200), "expected uint8 in chunks of one mask"),
        ((12, 400 * 200), (1, 400 * 200), "has shape 12x80000, expected 3 dimensions"),
        ((12, 400, 200), (1, 400, 200), "12 of 12 masks are missing"),  # claims, and has nothing
    ],
)
def test_absurd_shapes_of_masks_are_refused(victim: Path, shape, chunks, message: str):
    with h5py.File(victim, "r+") as file:
        del file["masks"]
        file.create_dataset("masks", shape, np.uint8, chunks=chunks, compression="gzip")
    refused(victim, message)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "sizes",
            np.ones((11, 2), np.uint16),
            r"12 masks, sizes \(11, 2\), 12 paths; refused",
        ),
        ("sizes", np.ones(24, np.uint16), "has shape 24, expected 2 dimensions"),
        ("sizes", np.zeros((12, 2), np.uint16), "image sizes beyond 1 to 16384 pixels; refused"),
        ("sizes", np.full((12, 2), 65535, np.uint16), "image sizes beyond 1 to 16384 pixels"),
        ("paths", np.array([b"a"] * 13), "13 paths; refused"),
        ("paths", np.array([b"a"] * 12), "1 different paths, expected 12"),
        ("paths", np.array([b""] + [b"%d" % n for n in range(11)]), "expected 12, one per mask"),
        ("paths", np.array([b"a" * 2000] * 12), "strings of 2,000 bytes, at most 1,024"),
        ("paths", np.array([b"\xff\xfe%d" % n for n in range(12)]), "'paths' is not UTF-8"),
    ],
)
def test_sizes_and_paths_must_fit_the_masks(victim: Path, name: str, data, message: str):
    with h5py.File(victim, "r+") as file:
        del file[name]
        file[name] = data
    refused(victim, message)


@pytest.mark.parametrize("name", ["sizes", "paths"])
def test_arrays_that_claim_more_than_the_file_holds_are_refused(victim: Path, name: str):
    with h5py.File(victim, "r+") as file:
        kind, shape = file[name].dtype, file[name].shape
        del file[name]  # allocated late: claims, and has nothing
        file.create_dataset(name, (10**12, *shape[1:]), kind)
    refused(victim, f"'{name}' claims .* bytes, more than the file can hold; refused")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzf"},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "fletcher32": True},
        {"scaleoffset": 0},
    ],
)
def test_filters_other_than_deflate_are_refused(victim: Path, options: dict[str, object]):
    with h5py.File(victim, "r+") as file:
        masks = file["masks"][:]
        del file["masks"]
        file.create_dataset("masks", data=masks, chunks=(1, *STORED_SIZE), **options)
    refused(victim, "compressed by gzip alone|compressed otherwise than by gzip; refused")


def test_contiguous_masks_are_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        masks = file["masks"][:]
        del file["masks"]
        file["masks"] = masks
    refused(victim, "masks: expected uint8 in chunks of one mask, compressed by gzip alone")


def write_chunk(path: Path, row: int, data: bytes, filter_mask: int = 0) -> None:
    with h5py.File(path, "r+") as file:
        file["masks"].id.write_direct_chunk((row, 0, 0), data, filter_mask)


@pytest.mark.parametrize(
    "data",
    [
        zlib.compress(bytes(50_000_000)),  # a bomb: 50 MB from 50 kB
        zlib.compress(bytes(CELLS + 1)),
        zlib.compress(bytes(CELLS - 1)),
        zlib.compress(bytes(CELLS))[:-6],
        bytes(100),
    ],
)
def test_a_chunk_that_is_not_one_mask_is_refused_when_it_is_read(
    victim: Path, toy: Dataset, data: bytes
):
    write_chunk(victim, 3, data)
    store = MaskStore.open(victim)
    names = [sample.path for sample in toy.train]
    with pytest.raises(MaskError, match=f"the mask of {names[3]} is damaged.*--overwrite"):
        store.read(names)
    assert store.read([*names[:3], *names[4:]]).shape == (11, *STORED_SIZE)


def test_a_chunk_that_skips_the_filter_is_refused(victim: Path):
    write_chunk(victim, 3, bytes(CELLS), filter_mask=1)
    refused(victim, "the chunk of mask 3 is not in the file as expected; refused")


def test_a_missing_mask_is_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        chunks = [file["masks"].id.read_direct_chunk((row, 0, 0))[1] for row in range(11)]
        del file["masks"]
        masks = file.create_dataset(
            "masks", (12, *STORED_SIZE), np.uint8, chunks=(1, *STORED_SIZE), compression="gzip"
        )
        for row, data in enumerate(chunks):
            masks.id.write_direct_chunk((row, 0, 0), data)
    refused(victim, "1 of 12 masks are missing")


def test_a_file_cut_short_is_refused(victim: Path):
    whole = victim.read_bytes()
    for length in (0, 10, 512, 800, len(whole) // 2, len(whole) - 1):
        victim.write_bytes(whole[:length])
        refused(victim, "not a readable mask file")


def test_a_chunk_beyond_the_end_of_the_file_is_refused(victim: Path):
    with h5py.File(victim) as file:
        info = file["masks"].id.get_chunk_info(5)
    whole = victim.read_bytes()
    address = struct.pack("<Q", info.byte_offset)  # as HDF5's index of chunks has it
    assert whole.count(address) == 1
    victim.write_bytes(whole.replace(address, struct.pack("<Q", len(whole) - 10)))
    refused(victim, "the chunk of mask 5 is not in the file|it is damaged")  # ours, or HDF5's


def test_an_address_beyond_the_end_of_the_file_is_refused(victim: Path):
    with h5py.File(victim) as file:
        offset = file["sizes"].id.get_offset()
    whole = victim.read_bytes()
    address = struct.pack("<QQ", offset, 12 * 4)  # as HDF5's layout message has it
    assert whole.count(address) == 1
    victim.write_bytes(whole.replace(address, struct.pack("<QQ", len(whole) - 10, 12 * 4)))
    refused(victim, "not a readable mask file")


def test_other_files_are_refused(victim: Path, tmp_path: Path):
    victim.write_bytes(b"PK\x03\x04 not HDF5 at all" * 100)
    refused(victim, "not a readable mask file")
    with h5py.File(victim, "w") as file:
        file["features"] = np.zeros((3, 4))
    refused(victim, "format None, expected 'reidkit-masks'; not a mask file")
    refused(tmp_path, "is a folder, expected a file")


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_is_one_clear_error_or_harmless(victim: Path, seed: int):
    rng = np.random.default_rng(seed)
    whole = np.frombuffer(victim.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = whole.copy()
        places = rng.integers(0, len(whole), rng.integers(1, 40))
        damaged[places] = rng.integers(0, 256, len(places))
        victim.write_bytes(damaged.tobytes())
        try:
            store = MaskStore.open(victim)
            assert store.read(store.paths[:12]).shape == (12, *STORED_SIZE)
        except MaskError:
            pass


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", np.bytes_(b"features"), "format 'features', expected 'reidkit-masks'"),
        ("version", np.int64(1), "mask file of version 1, expected 2.*reidkit prepare-masks"),
        ("parts", np.bytes_(b"[]"), "0 parts, expected 1 to 15"),
        ("parts", np.bytes_(json.dumps(["p"] * 99).encode()), "99 parts, expected 1 to 15"),
        ("parts", np.bytes_(b"5"), "parts"),
        ("parts", np.bytes_(b"[1, 2]"), "parts"),
        ("parts", np.bytes_(b"[" * 60_000), "attribute 'parts' is not JSON"),
        ("grouping", np.bytes_(b"3"), "grouping"),
        ("grouping", np.bytes_(b"{"), "attribute 'grouping' is not JSON"),
        ("source", np.zeros(3), "source"),
        ("source", np.bytes_(b"\xff\xfe"), "not a readable"),
        ("source", np.int64(5), "source"),
    ],
)
def test_attributes_are_checked_before_they_are_used(victim: Path, name, value, message):
    with h5py.File(victim, "r+") as file:
        del file.attrs[name]
        file.attrs[name] = value
    refused(victim, message)


def test_a_missing_attribute_is_named(victim: Path):
    with h5py.File(victim, "r+") as file:
        del file.attrs["fingerprint"]
    refused(victim, "fingerprint")
