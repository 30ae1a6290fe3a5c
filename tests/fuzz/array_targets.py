"""Parsers of arrays: features, part masks and their journals, label maps, images, indexes."""

from __future__ import annotations

import io
import json
import sqlite3
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from random import Random
from typing import Any

from .dataset_targets import hdf5_bytes
from .mutations import Files, mutate_bytes, mutate_document, mutate_json
from .target import Target

N, D = 4, 3


def _features() -> Any:
    import numpy as np

    from reidkit.features import Features

    return Features(
        features=np.random.default_rng(0).normal(size=(N, D)).astype(np.float32),
        pids=np.array([1, 1, 2, -1]),
        camids=np.array([1, 2, 1, 2]),
        paths=tuple(f"a/{k}.jpg" for k in range(N)),
        roles=np.array([0, 0, 2, 1], np.uint8),
        attributes={"normalised": True, "dataset": "fuzz", "model_sha256": "", "dim": 3},
    )


def _feature_files(suffix: str) -> list[Files]:
    from reidkit.features import write_features

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"f{suffix}"
        write_features(path, _features())
        return [{path.name: path.read_bytes()}]


def _read_features(folder: Path) -> None:
    """What is accepted is consistent, and can be evaluated or is refused by evaluation."""
    from reidkit.features import read_features
    from reidkit.index.filling import feature_records, header_of
    from reidkit.retrieval import Embeddings

    path = next(folder.glob("f.*"))
    found = read_features(path)
    rows = len(found.features)
    assert found.features.ndim == 2 and found.features.dtype == "float32"
    assert len(found.pids) == len(found.camids) == len(found.paths) == len(found.roles) == rows
    assert all(isinstance(text, str) for text in found.paths)
    assert all(isinstance(v, str | int | float) for v in found.attributes.values())
    header_of(found).to_json()
    if "" not in found.paths:
        feature_records(found, where=path)
    Embeddings(found.features, found.pids, found.camids, name="fuzz")


def _hostile_array(rng: Random) -> Any:
    import numpy as np

    kinds = (np.float32, np.float64, np.float16, np.int64, np.uint64, np.int8, np.uint8, np.bool_)
    shape = rng.choice(((), (0,), (1,), (N,), (N, D), (N, 0), (0, D), (N, 2), (N, 1, 1), (2, N)))
    values = rng.choice((0, 1, -1, 3, 255, 2**31, 2**63 - 1, -(2**63), 1e300, np.nan, np.inf, 0.5))
    with np.errstate(all="ignore"):
        return np.full(shape, values, np.float64).astype(rng.choice(kinds))


def _features_hdf5(rng: Random, files: Files) -> Files:
    import h5py
    import numpy as np

    def change(file: Any) -> None:
        features = _features()
        arrays = {
            "features": features.features,
            "pids": features.pids,
            "camids": features.camids,
            "role": features.roles,
            "paths": np.array(features.paths, dtype=h5py.string_dtype()),
        }
        wrong = rng.choice(list(arrays))
        for name, values in arrays.items():
            if name != wrong:
                file[name] = values
                continue
            _write_hostile(rng, file, name)
        for _ in range(rng.randrange(3)):
            name = rng.choice(("format", "dataset", "é", "", "model_sha256", "normalised"))
            value: Any = rng.choice(
                (*(np.nan, -1, 2**63 - 1, "x" * 70_000, "", b"\xff", [1, 2], h5py.Empty("f")),)
            )
            try:
                file.attrs[name] = value
            except (ValueError, OSError, RuntimeError):
                continue

    data = hdf5_bytes(change)
    return {"f.h5": mutate_bytes(rng, data) if rng.random() < 0.3 else data}


def _write_hostile(rng: Random, file: Any, name: str) -> None:
    """An HDF5 object that is not the expected one."""
    import h5py
    import numpy as np

    kind = rng.randrange(11)
    if kind == 0:
        file[name] = h5py.ExternalLink("/etc/passwd", "/x")
    elif kind == 1:
        file[name] = h5py.SoftLink("/features")
    elif kind == 2:
        file.create_group(name)
    elif kind == 3:
        file.create_dataset(name, (10**9, 512), "f4", chunks=(1000, 512), compression="gzip")
    elif kind == 4:
        file.create_dataset(name, data=h5py.Empty("f4"))
    elif kind == 5:
        texts = rng.choice(([b"\xff\xfe"] * N, ["x" * 70_000] * N, ["a\0b"] * N, [""] * N))
        file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
    elif kind == 6:
        compound = np.zeros(N, [("a", "i4"), ("b", "f4")])
        file.create_dataset(name, data=compound)
    elif kind == 7:
        file.create_dataset(name, (N,), dtype=h5py.ref_dtype)
    elif kind == 8:
        file.create_dataset(name, (N,), dtype=h5py.vlen_dtype(np.int32))
    elif kind == 9:
        file.create_dataset(name, data=np.array([b"abc"] * N))
    else:
        file.create_dataset(name, data=_hostile_array(rng))


def _npy(header: str, data: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1", "replace")
    size = (
        struct.pack("<H", len(text) % 65536) if version == (1, 0) else struct.pack("<I", len(text))
    )
    return b"\x93NUMPY" + bytes(version) + size + text + data


HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }",
    "{'descr': '<i8', 'fortran_order': True, 'shape': (4,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 0), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3.0), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<U100000000', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<f4', 'shape': (4,)}",
    "[1, 2]",
    "(" * 500,
    "-" * 10_000 + "1",
    "{'descr': None, 'fortran_order': 0, 'shape': 4}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807)}",
)


def _features_npz(rng: Random, files: Files) -> Files:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(files["f.npz"])) as source, zipfile.ZipFile(file, "w") as out:
        wrong = rng.choice(source.namelist())
        for name in source.namelist():
            data = source.read(name)
            if name == wrong:
                kind = rng.randrange(4)
                if kind == 0:
                    data = _npy(
                        rng.choice(HEADERS), data[128:], rng.choice(((1, 0), (2, 0), (3, 0)))
                    )
                elif kind == 1:
                    data = mutate_bytes(rng, data)
                elif kind == 2:
                    array = io.BytesIO()
                    import numpy as np

                    np.save(array, _hostile_array(rng))
                    data = array.getvalue()
                else:
                    text = json.dumps(mutate_document(rng, {"a": 1, "b": {"c": [1]}}))
                    array = io.BytesIO()
                    import numpy as np

                    np.save(array, np.array(text))
                    data = array.getvalue()
            out.writestr(name, data, compress_type=rng.choice((0, 8)))
    changed = file.getvalue()
    return {"f.npz": mutate_bytes(rng, changed) if rng.random() < 0.2 else changed}


PARTS = ("head", "legs")


def _mask_content(file: Any, rng: Random | None = None) -> None:
    import h5py
    import numpy as np

    attributes: dict[str, Any] = {
        "format": np.bytes_(b"reidkit-masks"),
        "version": np.int64(2),
        "dataset": np.bytes_(b"fuzz"),
        "fingerprint": np.bytes_(b"0" * 64),
        "split": np.bytes_(b"train"),
        "source": np.bytes_(b"toy"),
        "key": np.bytes_(b"k"),
        "parts": np.bytes_(json.dumps(PARTS).encode()),
        "grouping": np.bytes_(json.dumps({part: [part] for part in PARTS}).encode()),
        "writer": np.bytes_(b"x"),
    }
    wrong = rng.choice(("masks", "sizes", "paths", *attributes)) if rng else ""
    for name, value in attributes.items():
        if rng and name == wrong:
            if name in ("parts", "grouping"):
                text = mutate_json(rng, value)[:60_000]
                value = np.bytes_(text or b" ")
            else:
                hostile: tuple[Any, ...] = (
                    -1,
                    np.nan,
                    "x" * 70_000,
                    np.bytes_(b"\xff"),
                    2**62,
                    [1],
                )
                value = rng.choice(hostile)
        file.attrs[name] = value
    if wrong != "paths":
        file.create_dataset("paths", data=np.array([b"a/1.jpg", b"a/2.jpg"]))
    if wrong != "sizes":
        file["sizes"] = np.array([[8, 4], [8, 4]], np.uint16)
    if wrong != "masks":
        masks = file.create_dataset("masks", (2, 8, 4), "u1", chunks=(1, 8, 4), compression="gzip")
        for row in range(2):
            cells = zlib.compress(bytes([row, 1] * 16))
            if rng and rng.random() < 0.5:
                cells = zlib.compress(bytes(rng.choice((0, 31, 33, 10_000_000))))
            masks.id.write_direct_chunk((row, 0, 0), cells)
    if rng and wrong in ("masks", "sizes", "paths"):
        if rng.random() < 0.3:
            file.create_dataset(wrong, (2, 8, 4), "u1", chunks=(1, 8, 4), compression="gzip")
        elif rng.random() < 0.3:
            shape = rng.choice(((2**40, 8, 4), (2, 2**20, 2**20), (2, 0, 4), (0, 8, 4)))
            chunk = tuple(max(1, min(side, 512)) for side in (1, *shape[1:]))
            file.create_dataset(wrong, shape, "u1", chunks=chunk, compression="gzip")
        else:
            _write_hostile(rng, file, wrong)
    del h5py


def _masks_hdf5(rng: Random, files: Files) -> Files:
    data = hdf5_bytes(lambda file: _mask_content(file, rng))
    return {"masks.h5": mutate_bytes(rng, data) if rng.random() < 0.3 else data}


def _read_masks(folder: Path) -> None:
    from reidkit.masks.store import MaskStore

    store = MaskStore.open(folder / "masks.h5")
    paths = store.paths[:64]
    maps = store.read(paths)
    assert maps.shape == (len(paths), *store.size) and maps.dtype == "uint8"
    assert (store.sizes(paths) > 0).all()


TASK = b'{"task": 1}\n'


def _journal_seeds() -> list[Files]:
    from reidkit.masks.journal import Journal, Record

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.h5.journal"
        path.touch()
        with path.open("r+b") as file:
            journal = Journal(file, TASK)
            journal.annotate('{"images": 1, "labels": 1.0, "parts": 1.0, "part_iou": {}}')
            for row in range(3):
                journal.append(Record(row, (8, 4), zlib.compress(bytes(32))))
        return [{"m.h5.journal": path.read_bytes()}]


def _journal_records(rng: Random, files: Files) -> Files:
    """Records with right checksums, which only hostility makes."""
    data = TASK
    for _ in range(rng.randrange(4)):
        row = rng.choice((0, 1, 2, 2**31, 2**32 - 2, 2**32 - 1))
        content = rng.choice((b"", b"\xff\xfe", b"{}", b"null", zlib.compress(bytes(32))))
        head = struct.pack("<IHHI", row, rng.choice((0, 8, 65535)), 4, len(content))
        data += head + struct.pack("<I", zlib.crc32(head + content)) + content
    return {"m.h5.journal": data}


def _read_journal(folder: Path) -> None:
    from reidkit.masks.journal import Journal, journal_paths, read_records

    path = folder / "m.h5.journal"
    for file in journal_paths(folder / "m.h5"):
        records = read_records(file, TASK)
    with path.open("r+b") as opened:
        journal = Journal(opened, TASK)
    assert journal.rows == {record.row for record in records}
    assert {r.row for r in read_records(path, TASK)} == journal.rows


def _picture(mode: str, format: str, **options: Any) -> bytes:
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    values = np.arange(8 * 4, dtype=np.uint8).reshape(8, 4) % 20
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette(bytes(range(60)))
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(file, format=format, **options)
    return file.getvalue()


def _png_chunks(rng: Random, data: bytes) -> bytes:
    """A PNG with one chunk changed, cut, repeated or added, and its checksums right."""
    at, chunks = 8, []
    while at + 12 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    number = rng.randrange(len(chunks))
    kind, content = chunks[number]
    choice = rng.random()
    if choice < 0.4:
        chunks[number] = (kind, mutate_bytes(rng, content))
    elif choice < 0.5:
        del chunks[number]
    elif choice < 0.6:
        chunks.insert(number, (kind, content))
    elif choice < 0.75:
        width, height = (rng.choice((0, 1, 4, 2**16, 2**31 - 1, 2**31)) for _ in range(2))
        depth, colour = rng.choice((1, 2, 8, 16, 32)), rng.choice((0, 2, 3, 4, 6, 9))
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 1))
    elif choice < 0.85:
        bomb = zlib.compress(bytes(rng.choice((10, 10_000_000))))
        chunks[-1:-1] = [(rng.choice((b"IDAT", b"zTXt", b"iCCP", b"iTXt")), b"a\0\0" + bomb)]
    else:
        extra = rng.choice((b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"gAMA", b"tEXt", b"pHYs"))
        chunks.insert(rng.randrange(len(chunks) + 1), (extra, rng.randbytes(rng.randrange(40))))
    return data[:8] + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _label_map_seeds() -> list[Files]:
    modes = ("L", "P", "1", "RGB")
    return [{"a.png": _picture(mode, "PNG")} for mode in modes]


def _write_image(folder: Path) -> None:
    (folder / "image.jpg").write_bytes(_picture("RGB", "JPEG"))
    for name in ("upper_clothes", "lower_clothes", "shoes"):
        path = folder / "parts" / "image" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture("1", "PNG"))


def _read_label_map(folder: Path) -> None:
    """A label map as index map, colour map and part file; a refusal by one suffices."""
    from reidkit.errors import ReidkitError
    from reidkit.masks.labels import default_grouping, load_label_set
    from reidkit.masks.matching import Matching
    from reidkit.masks.sources import colour_maps, five_files, index_maps

    (folder / "parts" / "image" / "head.png").write_bytes((folder / "a.png").read_bytes())
    grouping = default_grouping(load_label_set("lip"))
    matching = Matching(folder, {"image.jpg": folder / "a.png"}, (), unused=0, by_name=0)
    refusal = None
    for source in (
        index_maps(folder, matching, grouping),
        colour_maps(folder, matching, grouping),
        five_files(folder, ["image.jpg"], folder / "parts"),
    ):
        try:
            part_map = source.read("image.jpg")
            assert part_map.shape == (8, 4) and part_map.dtype == "uint8" and part_map.max() <= 4
        except ReidkitError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def _image_seeds() -> list[Files]:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF")]
    pictures += [("RGB", "WEBP"), ("CMYK", "JPEG"), ("L", "JPEG"), ("I;16", "PNG"), ("RGB", "PPM")]
    seeds = [{"image.jpg": _picture("RGB", "JPEG", exif=exif)}]
    return seeds + [{"image.jpg": _picture(*picture)} for picture in pictures]


def _image_structured(rng: Random, files: Files) -> Files:
    data = files["image.jpg"]
    if data.startswith(b"\x89PNG"):
        return {"image.jpg": _png_chunks(rng, data)}
    return {"image.jpg": mutate_bytes(rng, mutate_bytes(rng, data))}


def _read_image(folder: Path) -> None:
    from reidkit.data.decode import read_tensor
    from reidkit.errors import ReidkitError
    from reidkit.image import image_size, read_image
    from reidkit.preprocess import Preprocess

    path = folder / "image.jpg"
    refusal = None
    try:
        size = image_size(path)
    except ReidkitError as error:
        size, refusal = None, error
    try:
        tensor = read_tensor(path)
        assert tensor.ndim == 3 and tensor.shape[0] == 3
    except ReidkitError as error:
        refusal = error
    picture = read_image(path)
    assert picture.mode == "RGB" and (size is None or (picture.height, picture.width) == size)
    Preprocess(size=(8, 4)).pixels(picture)
    if refusal is not None:
        raise refusal


LABELS = b"""names = ["background", "hat", "hair", "legs"]
mirror = [["hat", 2]]
palette = [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]
note = "x"
[parts]
head = ["hat", 2]
"lower body" = ["legs"]
"""


def _read_label_set(folder: Path) -> None:
    import numpy as np

    from reidkit.errors import ReidkitError
    from reidkit.masks.labels import default_grouping, load_grouping, load_label_set

    refusal = None
    labels = None
    try:
        labels = load_label_set(str(folder / "labels.toml"))
        grouping = default_grouping(labels)
        assert len(labels.mirrored) == len(labels.names)
        assert grouping.part_map(np.arange(256, dtype=np.uint8)).max() == len(grouping.parts)
        json.dumps(grouping.describe())
    except ReidkitError as error:
        refusal = error
    grouping = load_grouping(folder / "grouping.toml", labels)
    assert grouping.table.max() <= len(grouping.parts)
    if refusal is not None:
        raise refusal


def _open_label_folder(folder: Path) -> None:
    from reidkit.masks.label_folder import open_label_folder
    from reidkit.masks.labels import load_label_set

    labels = load_label_set("lip")
    open_label_folder(folder / "kept", labels=labels, parser="p", key="k", images=["a.jpg"])


HEADER = {"model": "m", "model_sha256": "", "preprocess": "", "flip": False, "dimension": D}


def _index_seeds() -> list[Files]:
    import numpy as np

    from reidkit.index.directory import IndexDirectory
    from reidkit.index.records import Header, Record

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index = IndexDirectory.create(path, Header(**HEADER))  # type: ignore[arg-type]
        records = [Record(f"{k}.jpg", str(k), k, float(k)) for k in range(8)]
        index.add(np.random.default_rng(0).normal(size=(8, D)).astype(np.float32), records)
        index.remove(["1.jpg"])
        return [{name: (path / name).read_bytes() for name in ("records.sqlite", "vectors-1.f32")}]


def _index_structured(rng: Random, files: Files) -> Files:
    """Another content of the database."""
    hostile = [
        None,
        -1,
        0,
        2**62,
        "x",
        "",
        b"\xff\x00",
        1e300,
        "é" * 3,
        "2",
        "vectors-2.f32",
        "../x",
    ]
    text = json.dumps(mutate_document(rng, {"format": 1, **HEADER}))
    statements: list[tuple[str, tuple[Any, ...]]] = [
        ("UPDATE meta SET value = ? WHERE key = 'header'", (text,)),
        ("UPDATE meta SET value = ? WHERE key = 'slots'", (rng.choice(hostile),)),
        ("UPDATE meta SET value = ? WHERE key = 'vectors'", (rng.choice(hostile),)),
        ("DELETE FROM meta WHERE key = ?", (rng.choice(("header", "slots", "vectors")),)),
        ("UPDATE records SET slot = ? WHERE slot = 3", (rng.choice(hostile),)),
        ("UPDATE records SET time = ? WHERE slot = 3", (rng.choice(hostile),)),
        ("UPDATE records SET camera = ? WHERE slot = 3", (rng.choice(hostile),)),
        ("UPDATE records SET path = ? WHERE slot = 3", (rng.choice(hostile),)),
        ("INSERT INTO removed VALUES (?)", (rng.choice(hostile),)),
        ("DROP TABLE removed", ()),
        ("DELETE FROM records WHERE slot < ?", (rng.choice((2, 9)),)),
        ("ALTER TABLE records RENAME COLUMN person TO who", ()),
        ("DROP TABLE records", ()),
        ("CREATE TABLE loose (slot, path, person, camera, time)", ()),
        ("CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM meta; END", ()),
        (
            "INSERT INTO meta VALUES ('approximate', ?)",
            (mutate_json(rng, APPROXIMATE).decode("utf-8", "replace"),),
        ),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.sqlite"
        path.write_bytes(files["records.sqlite"])
        database = sqlite3.connect(path)
        for statement, values in rng.sample(statements, rng.choice((1, 1, 2))):
            try:
                database.execute(statement, values)
            except (sqlite3.Error, OverflowError, UnicodeError):
                continue
        database.commit()
        database.close()
        return {**files, "records.sqlite": path.read_bytes()}


APPROXIMATE = b'{"kind": "ivf", "vectors": "vectors-1.f32", "slots": 8, "effort": 1, "recall": 1.0}'


def _search_index(folder: Path) -> None:
    import numpy as np

    from reidkit.index.opening import open_index
    from reidkit.index.records import Filter, Record

    for extra in folder.glob("records.sqlite-*"):
        extra.unlink()
    index = open_index(str(folder))
    index.info()
    query = np.ones((1, index.header.dimension), np.float32)
    for condition in (Filter(), Filter(cameras=frozenset({1, 3})), Filter(before=5.0)):
        for hit in index.search(query, 3, condition)[0]:
            assert isinstance(hit.record.path, str)
            assert isinstance(hit.record.person, str)
    index.known(["1.jpg"])
    index.add(query, [Record("new.jpg")])
    index.expire(4.0)
    index.remove(["new.jpg", "5.jpg"])


def _faiss_seeds() -> list[Files]:
    import faiss
    import numpy as np

    vectors = np.random.default_rng(0).normal(size=(64, D)).astype(np.float32)
    seeds = []
    for kind in ("ivf", "hnsw"):
        if kind == "ivf":
            flat = faiss.IndexFlatIP(D)
            index = faiss.IndexIVFFlat(flat, D, 4, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
        else:
            index = faiss.IndexHNSWFlat(D, 8, faiss.METRIC_INNER_PRODUCT)
        index.add(vectors)
        seeds.append({f"{kind}.faiss": faiss.serialize_index(index).tobytes()})
    return seeds


def _write_faiss_index(folder: Path) -> None:
    import numpy as np

    from reidkit.index.directory import IndexDirectory
    from reidkit.index.records import Header, Record

    for kind in ("ivf", "hnsw"):
        header = Header(**HEADER)  # type: ignore[arg-type]
        index = IndexDirectory.create(folder / kind, header)
        vectors = np.random.default_rng(0).normal(size=(64, D)).astype(np.float32)
        index.add(vectors, [Record(f"{k}.jpg") for k in range(64)])
        text = json.loads(APPROXIMATE) | {"kind": kind, "slots": 64}
        index.set_meta("approximate", json.dumps(text))


def _search_faiss(folder: Path) -> None:
    import numpy as np

    from reidkit.index.opening import open_index

    for file in folder.glob("*.faiss"):
        target = folder / file.stem / file.name
        target.write_bytes(file.read_bytes())
        index = open_index(str(folder / file.stem))
        index.search(np.ones((2, D), np.float32), 3)


TARGETS = (
    Target("features-hdf5", lambda: _feature_files(".h5"), _read_features, _features_hdf5),
    Target("features-npz", lambda: _feature_files(".npz"), _read_features, _features_npz),
    Target(
        "masks-hdf5",
        lambda: [{"masks.h5": hdf5_bytes(_mask_content)}],
        _read_masks,
        _masks_hdf5,
    ),
    Target("mask-journal", _journal_seeds, _read_journal, _journal_records),
    Target(
        "label-maps",
        _label_map_seeds,
        _read_label_map,
        lambda rng, files: {"a.png": _png_chunks(rng, files["a.png"])},
        _write_image,
    ),
    Target("images", _image_seeds, _read_image, _image_structured),
    Target(
        "label-sets",
        lambda: [{"labels.toml": LABELS, "grouping.toml": LABELS[LABELS.index(b"[parts]") :]}],
        _read_label_set,
    ),
    Target(
        "label-folder",
        lambda: [{"kept/labels.json": b'{"parser": "p", "key": "k", "labels": ["a", "b"]}'}],
        _open_label_folder,
    ),
    Target("index", _index_seeds, _search_index, _index_structured),
    Target("index-faiss", _faiss_seeds, _search_faiss, None, _write_faiss_index),
)
