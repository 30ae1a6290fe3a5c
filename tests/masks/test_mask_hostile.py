"""Files that somebody else made, to harm or by mistake: refused with one line, never followed."""

import json
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_masks import lip_source

from reidkit.errors import MaskError
from reidkit.masks import layout
from reidkit.masks.store import MaskStore, write_store
from reidkit.types import Dataset


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


@pytest.mark.parametrize("name", ["masks", "done", "paths"])
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


@pytest.mark.parametrize("name", ["masks", "done", "paths"])
def test_virtual_data_sets_are_refused(victim: Path, tmp_path: Path, name: str):
    other = tmp_path / "other.h5"
    other.write_bytes(victim.read_bytes())
    with h5py.File(victim, "r+") as file:
        shape = file[name].shape
        virtual = h5py.VirtualLayout(shape, np.uint8)
        virtual[:] = h5py.VirtualSource(str(other), name, shape)
        del file[name]
        file.create_virtual_dataset(name, virtual)
    refused(victim, f"'{name}' is a virtual or compact data set; refused")


@pytest.mark.parametrize("name", ["masks", "done"])
def test_external_storage_is_refused(victim: Path, tmp_path: Path, name: str):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(10_000))
    with h5py.File(victim, "r+") as file:
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    refused(victim, f"'{name}' is stored in other files; refused")


@pytest.mark.parametrize("name", ["masks", "done", "paths"])
@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.float32, [("a", np.uint8)]])
def test_other_types_are_refused(victim: Path, name: str, kind):
    with h5py.File(victim, "r+") as file:
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, data=np.zeros(shape, kind))
    refused(victim, f"'{name}' is .*, expected uint8")


def test_strings_of_variable_length_are_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        del file["paths"]
        file["paths"] = ["a", "b"]
    refused(victim, "expected uint8")


def test_a_group_in_place_of_a_data_set_is_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        del file["masks"]
        file.create_group("masks")
    refused(victim, "'masks' is no data set; refused")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10**12, 220), "not contiguous, or empty"),  # late allocation: claims, and has nothing
        ((0, 220), "not contiguous, or empty"),
        ((12, 221), r"expected \[N, 220\]"),
        ((12 * 220,), r"expected \[N, 220\]"),
        ((12, 220, 1), r"expected \[N, 220\]"),
        ((20, 220), r"expected \[3\] for 20 masks"),
    ],
)
def test_absurd_shapes_are_refused(victim: Path, shape: tuple[int, ...], message: str):
    with h5py.File(victim, "r+") as file:
        del file["masks"]
        if np.prod(shape) < 10**6 and np.prod(shape) > 0:
            file.create_dataset("masks", data=np.zeros(shape, np.uint8))
        else:
            file.create_dataset("masks", shape, np.uint8)
    refused(victim, message)


def test_a_file_cut_short_is_refused(victim: Path):
    whole = victim.read_bytes()
    for length in (0, 10, 512, 800, len(whole) // 2, len(whole) - 1):
        victim.write_bytes(whole[:length])
        refused(victim, "not a readable mask store")


def test_an_address_beyond_the_end_of_the_file_is_refused(victim: Path):
    where = layout.read_layout(victim)
    whole = victim.read_bytes()
    address = struct.pack("<QQ", where.masks_offset, 12 * 220)  # as HDF5's layout message has it
    assert whole.count(address) == 1
    far = struct.pack("<QQ", len(whole) - 100, 12 * 220)
    victim.write_bytes(whole.replace(address, far))
    refused(victim, "reaches beyond the end of the file|invalid dataset size")  # ours, or HDF5's


def test_other_files_are_refused(victim: Path, tmp_path: Path):
    victim.write_bytes(b"PK\x03\x04 not HDF5 at all" * 100)
    refused(victim, "not a readable mask store")
    with h5py.File(victim, "w") as file:
        file["features"] = np.zeros((3, 4))
    refused(victim, "no attribute 'format'; not a mask store")
    refused(tmp_path, "not a readable mask store")


@pytest.mark.parametrize(
    "options", [{"compression": "lzf"}, {"shuffle": True}, {"fletcher32": True}]
)
def test_filters_that_we_do_not_write_are_refused(victim: Path, options: dict[str, object]):
    with h5py.File(victim, "r+") as file:
        text = file["paths"][:]
        del file["paths"]
        file.create_dataset("paths", data=text, chunks=(64,), **options)
    refused(victim, "has filters")


def test_compressed_masks_are_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        masks = file["masks"][:]
        del file["masks"]
        file.create_dataset("masks", data=masks, chunks=(4, 220), compression="gzip")
    refused(victim, "'masks' is not contiguous")


def test_a_list_of_paths_that_would_fill_the_memory_is_refused(victim: Path):
    with h5py.File(victim, "r+") as file:
        del file["paths"]
        file.create_dataset(
            "paths", (10**11,), np.uint8, chunks=(1 << 20,), compression="gzip"
        )  # a few hundred bytes on disk
    refused(victim, r"paths \(100000000000,\) for 12 masks; refused")
    with h5py.File(victim, "r+") as file:
        del file["paths"]
        file.create_dataset("paths", (100,), np.uint8, chunks=(1 << 25,), maxshape=(None,))
    refused(victim, "has chunks of")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n" * 12, "1 different paths, expected 12"),
        ("a\nb\n", "2 different paths, expected 12"),
        ("\n".join("abcdefghijkl"), "12 different paths, expected 12, one per mask"),
    ],
)
def test_paths_must_be_as_many_as_masks_and_differ(victim: Path, text: str, message: str):
    with h5py.File(victim, "r+") as file:
        del file["paths"]
        data = np.frombuffer(text.encode(), np.uint8)
        file.create_dataset("paths", data=data, chunks=(4,), compression="gzip")
    refused(victim, message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", np.bytes_(b"features"), "format 'features', expected 'reidkit-masks'"),
        ("version", np.int64(2), "mask store of version 2, expected 1.*reidkit prepare-masks"),
        ("parts", np.bytes_(b"[]"), "0 parts, expected 1 to 15"),
        ("parts", np.bytes_(json.dumps(["p"] * 99).encode()), "99 parts, expected 1 to 15"),
        ("parts", np.bytes_(b"5"), "not a readable"),
        ("parts", np.bytes_(b"[1, 2]"), "2 parts, expected"),
        ("parts", np.bytes_(b"[" * 60_000), "not a readable"),
        ("grouping", np.bytes_(b"3"), "grouping is no table"),
        ("grids", np.bytes_(b"[]"), "are absurd"),
        ("grids", np.bytes_(b"[[100000, 100000]]"), "are absurd"),
        ("grids", np.bytes_(b"[[1, 1]]"), "are absurd"),
        ("grids", np.bytes_(b"[[Infinity, 2]]"), "not a readable"),
        ("map_size", np.bytes_(b"[512, 512]"), "are absurd"),
        ("map_size", np.bytes_(b"[2000, 2]"), "are absurd"),
        ("map_size", np.bytes_(b"{}"), "not a readable"),
        ("source", "variable length", "expected a plain string"),
        ("source", np.zeros(3), "expected a scalar"),
        ("source", np.bytes_(b"\xff\xfe"), "not a readable"),
    ],
)
def test_attributes_are_checked_before_they_are_believed(victim: Path, name, value, message):
    with h5py.File(victim, "r+") as file:
        del file.attrs[name]
        file.attrs[name] = value
    refused(victim, message)


def test_a_missing_attribute_is_named(victim: Path):
    with h5py.File(victim, "r+") as file:
        del file.attrs["fingerprint"]
    refused(victim, "no attribute 'fingerprint'")


def test_masks_that_are_not_done_are_refused(victim: Path):
    where = layout.read_layout(victim)
    with victim.open("r+b") as file:
        file.seek(where.done_offset)
        file.write(bytes([0b11111011]))
    refused(victim, "1 of 12 masks are not done")
