"""Parsers of data sets: manifests, tables, patterns of names, lists, MATLAB files, archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

from .mutations import Files, mutate_bytes, mutate_document, mutate_table
from .target import OUTPUT, Target

SPLITS = ("train", "query", "gallery")

IMAGES = (
    *(f"train/000{pid}_c{camera}s1_00{camera}.jpg" for pid in (1, 2) for camera in (1, 2)),
    *(f"query/000{pid}_c1s1_001.jpg" for pid in (3, 4)),
    *(f"gallery/000{pid}_c2s1_002.jpg" for pid in (3, 4)),
    *("gallery/-1_c1s1_001.jpg", "gallery/0000_c3s1_001.jpg"),
    *(f"{split}/0005/t{camera}/0005_C{camera}_F01_X1.jpg" for split in SPLITS for camera in (1, 2)),
)

PATTERN = r"(?P<pid>-?\d+)_c(?P<camid>\d)s\d_\d+\.jpg"

MANIFEST = f"""format = 1
name = "fuzz"
reader = "pattern"
protocol = "market"
cameras = 2
pattern = '{PATTERN}'
unmatched = "unknown"
folders = ["fuzz"]
[roles]
"-1" = "junk"
"0000" = "distractor"
[splits.train]
folder = "train"
images = 4
[splits.query]
folder = "query"
[splits.gallery]
folder = "gallery"
distractors_in = ["query"]
"""

TRACKLETS = r"""format = 1
name = "fuzz"
reader = "tracklets"
protocol = "market"
cameras = 2
unmatched = "unknown"
dense = 2
pattern = '(?P<pid>\d{4})_?C(?P<camid>\d)_F(?P<frame>\d+)_X\d+.*\.jpg'
[splits.train]
folder = "train"
[splits.query]
folder = "query"
[variants.v1]
train = "train"
"""

LISTS = r"""format = 1
name = "fuzz"
reader = "lists"
protocol = "market"
cameras = 2
unmatched = "unknown"
pattern = '-?\d+_c(?P<camid>\d)s\d_.*\.jpg'
[splits.train]
folder = "train"
lists = ["list_train.txt"]
[splits.query]
folder = "query"
lists = ["list_query.txt"]
[splits.gallery]
folder = "gallery"
lists = ["list_gallery.txt"]
"""

TABLE_MANIFEST = """format = 1
name = "fuzz"
reader = "csv"
protocol = "market"
cameras = 2
unmatched = "unknown"
[splits.train]
[splits.query]
[splits.gallery]
"""


def _table() -> bytes:
    lines = ["split,path,pid,camid,tracklet,frame"]
    for image in IMAGES:
        split, name = image.split("/", 1)
        pid, camera = name.split("_")[0].split("/")[0], "1" if "1" in name[4:8] else "2"
        tracklet = "t" if "/t" in name else ""
        lines.append(f"{split},{image},{pid},{camera},{tracklet},{1 if tracklet else ''}")
    return "\n".join(lines).encode()


def _list(split: str) -> bytes:
    names = [image.split("/", 1)[1] for image in IMAGES if image.startswith(f"{split}/")]
    lines = [f"{name} {name[:4]}" for name in names if name.count("/") == 0 and name[0] != "-"]
    return "\n".join(lines).encode()


def _write_images(folder: Path) -> None:
    for image in IMAGES:
        path = folder / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for split in SPLITS:
        (folder / f"list_{split}.txt").write_bytes(_list(split))
    (folder / "data.csv").write_bytes(_table())


def _check(dataset: Any) -> None:
    """What holds for every data set that is accepted."""
    from reidkit.types import ROLES, frames

    for split in SPLITS:
        items = getattr(dataset, split)
        assert [item.path for item in items] == sorted(item.path for item in items)
        for sample in frames(items):
            assert sample.path[0] != "/" and ".." not in sample.path.split("/")
            assert -(2**63) <= sample.pid < 2**63 and -(2**63) <= sample.camid < 2**63
            assert sample.role in ROLES
    assert len(dataset.fingerprint) == 64


def _open(folder: Path) -> None:
    from reidkit.data.manifest import list_splits, locate, read_dataset
    from reidkit.data.verify import verify

    list_splits(str(folder))
    manifest, root = locate(str(folder))
    dataset = read_dataset(manifest, root)
    _check(dataset)
    verify(manifest, dataset)


def _init_table(folder: Path) -> None:
    """`datasets init TABLE`, and what it writes is read again."""
    from reidkit.data.manifest import open_dataset
    from reidkit.data.scaffold import plan_table
    from reidkit.errors import ConfigError, DataError

    (folder / "manifest.toml").unlink(missing_ok=True)
    scaffold = plan_table(folder / "data.csv")
    scaffold.examples()
    scaffold.write(overwrite=True)
    try:
        open_dataset(str(folder))
    except ConfigError as error:
        raise AssertionError("the manifest that init writes is invalid") from error
    except DataError:
        pass  # such as images that occur twice, which only reading finds


def _init(folder: Path) -> None:
    """`datasets init FOLDER` with options, and what it writes is read again."""
    from reidkit.config import read_toml
    from reidkit.data.names import NamePattern, parse_camera_map
    from reidkit.data.scaffold import plan_dataset

    table = {k: v for k, v in read_toml(folder / "options.toml").items() if isinstance(v, str)}
    mapping = parse_camera_map(table["map"]) if "map" in table else {}
    names = NamePattern(table.get("pattern", ""), table.get("cameras", "none"), mapping, True)
    plan_dataset(folder, names).table()


def _folders_and_options() -> list[Files]:
    return [
        {"options.toml": f"pattern = '{pattern}'\ncameras = '{cameras}'\n{rest}".encode()}
        for pattern, cameras, rest in (
            (r"(?P<pid>-?\d+)_[cC](?P<camid>\d)", "none", ""),
            (r"(?P<pid>-?\d+)_", "_[cC]([0-9])", 'map = "1=1,2=1,3=2"'),
            ("", "none", ""),
            (r"(train|query|gallery)/(?P<pid>[^_]+)_", r"c(\d)s", ""),
        )
    ]


ATOMS = (
    "a",
    "b",
    ".",
    r"\d",
    r"\w",
    "[^_]",
    "_",
    "[ab]",
    "aa",
    r"\s",
    "-",
    "(?P<x>a)",
    r"\b",
    "ab",
)
QUANTIFIERS = ("", "", "*", "+", "?", "{2,}", "{0,9}", "{1,40}", "*?", "+?", "++", "*+", "{3}")


def _expression(rng: Random, depth: int = 0) -> str:
    parts = []
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        if depth < 3 and rng.random() < 0.45:
            start = rng.choice(("(", "(?:", "(?:", "(?>", "(?=", "(?!"))
            part = start + _expression(rng, depth + 1) + ")"
        else:
            part = rng.choice(ATOMS)
        parts.append(part + rng.choice(QUANTIFIERS))
    return rng.choice(("", "", "|")).join(parts) if depth else "".join(parts)


def _structured_pattern(rng: Random, files: Files) -> Files:
    return {"pattern.txt": _expression(rng).encode()}


NAMES = tuple(
    (text * 300)[:length] + end
    for text in ("a", "ab", "a_", "1", "_", "a1_", "-a b")
    for end in ("", "!", "\n")
    for length in (30, 255)
)


def _match_pattern(folder: Path) -> None:
    """Whatever expression is accepted comes to an end on names that make others backtrack."""
    from reidkit.data.expressions import compile_expression

    text = (folder / "pattern.txt").read_bytes().decode("utf-8", "surrogateescape")
    pattern = compile_expression(text, where="pattern")
    for name in NAMES:
        pattern.fullmatch(name)
        if len(name) < 100:
            pattern.search(name)


def _mat(**arrays: Any) -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


def _mars_seeds() -> list[Files]:
    import numpy as np

    tracks = np.array([[1, 1, 3, 1], [2, 2, 3, 2]])
    names = dict.fromkeys(("train", "test"), b"0003C1T0001F001.jpg\n0003C2T0002F001.jpg\n")
    return [
        {
            **{f"info/{half}_name.txt": text for half, text in names.items()},
            **{f"info/tracks_{half}_info.mat": _mat(tracks=tracks) for half in ("train", "test")},
            "info/query_IDX.mat": _mat(query=np.array([[1]])),
        }
    ]


def _mars_structured(rng: Random, files: Files) -> Files:
    import numpy as np

    name = rng.choice([name for name in files if name.endswith(".mat")])
    value: Any = rng.choice(
        (
            np.array(rng.choice(([[1, 1, 3, 1]], [[1, 2**62, 3, 1]], [[-5, 1, -1, 1]], [[0] * 4]))),
            np.array([[np.nan, 1.5, np.inf, 1e300]]),
            np.array([["a", "b"]]),
            np.array([1 + 2j]),
            np.zeros((0, 4)),
            np.zeros((2, 3, 4)),
            np.array([[1, "x", None]], dtype=object),
            {"a": 1, "b": [1, 2]},
            np.array([[True, False, True, True]]),
            np.array([[1, 1, 3, 1]], rng.choice((np.uint8, np.int8, np.float32, np.uint64))),
        )
    )
    extra = {"more": value} if rng.random() < 0.2 else {}
    return {**files, name: _mat(**{"tracks": value, **extra})}


def _write_mars(folder: Path) -> None:
    for name in ("0003C1T0001F001.jpg", "0003C2T0002F001.jpg"):
        for part in ("bbox_train", "bbox_test"):
            path = folder / part / name[:4] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    text = """format = 1
name = "fuzz"
reader = "mars"
protocol = "mars"
cameras = 6
unmatched = "unknown"
splits = {train = {folder = "bbox_train"}, query = {folder = "bbox_test"}, """
    (folder / "manifest.toml").write_text(text + 'gallery = {folder = "bbox_test"}}\n')


CUHK = "cuhk03_new_protocol_config_labeled.mat"


def _cuhk03_seeds() -> list[Files]:
    import numpy as np

    names = np.array([[name] for name in ("1_001_1_01.png", "1_001_2_06.png")], dtype=object)
    config = {
        "filelist": names,
        "labels": np.array([[1], [1]]),
        "camId": np.array([[1], [2]]),
        "train_idx": np.array([[1]]),
        "query_idx": np.array([[1]]),
        "gallery_idx": np.array([[2]]),
    }
    return [{CUHK: _mat(**config), "testsets.csv": b"split,pair,person\n0,1,1\n1,1,2\n"}]


def _cuhk03_structured(rng: Random, files: Files) -> Files:
    from scipy.io import loadmat

    table = loadmat(io.BytesIO(files[CUHK]))
    table = {name: value for name, value in table.items() if not name.startswith("__")}
    other: Any = mutate_document(rng, {name: value.tolist() for name, value in table.items()})
    if not isinstance(other, dict):
        other = {"labels": other}
    try:
        return {**files, CUHK: _mat(**{str(k)[:30] or "x": v for k, v in other.items()})}
    except Exception:  # what scipy cannot write is no input
        return {**files, CUHK: mutate_bytes(rng, files[CUHK])}


def _write_cuhk03(folder: Path) -> None:
    for name in ("1_001_1_01.png", "1_001_2_06.png", "1_002_1_01.png"):
        path = folder / "images_labeled" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _open_cuhk03(folder: Path) -> None:
    from reidkit.data.manifest import choose_variant, list_manifests, load_manifest, read_dataset
    from reidkit.errors import DataError

    for name in ("cuhk03-np-labeled", "cuhk03-classic-labeled"):
        manifest = choose_variant(load_manifest(list_manifests()[name]), "", folder)
        try:
            _check(read_dataset(manifest, folder))
        except DataError:
            if name == "cuhk03-classic-labeled":
                raise


def _release_seeds() -> list[Files]:
    import h5py
    import numpy as np

    def content(file: Any) -> None:
        pixels = np.zeros((3, 4, 8), np.uint8)
        image, empty = (
            file.create_dataset("image", data=pixels),
            file.create_dataset("no", data=[0]),
        )
        tests = file.create_dataset("test", data=np.array([[1.0], [1.0]]))
        row = [[image.ref if k in (0, 5) else empty.ref] for k in range(10)]
        pair = file.create_dataset("pair", (10, 1), h5py.ref_dtype)
        pair[...] = np.array(row, dtype=h5py.ref_dtype)
        for name, reference in (
            ("labeled", pair.ref),
            ("detected", pair.ref),
            ("testsets", tests.ref),
        ):
            file.create_dataset(name, (1, 1), h5py.ref_dtype)[0, 0] = reference

    return [{"cuhk-03.mat": hdf5_bytes(content)}]


def hdf5_bytes(content: Any) -> bytes:
    """The bytes of an HDF5 file that `content` writes."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        content(opened)
    return file.getvalue()


def _unpack_cuhk03(folder: Path) -> None:
    from reidkit.data.unpack import unpack_cuhk03

    output = folder / OUTPUT
    output.mkdir()
    (output / "cuhk-03.mat").hardlink_to(folder / "cuhk-03.mat")
    unpack_cuhk03(output, on_progress=lambda done, total: None)


def _cifar_seeds() -> list[Files]:
    record = bytes([0, 1]) + bytes(3072)
    return [{"train.bin": record * 2, "test.bin": record, "fine_label_names.txt": b"apple\nbee\n"}]


def _unpack_cifar(folder: Path) -> None:
    from reidkit.data.unpack import unpack_cifar100

    output = folder / OUTPUT
    output.mkdir()
    for name in ("train.bin", "test.bin", "fine_label_names.txt"):
        (output / name).hardlink_to(folder / name)
    unpack_cifar100(output, on_progress=lambda done, total: None)
    inside = {path.resolve() for path in folder.rglob("*.png")}
    assert all(path.is_relative_to(output.resolve()) for path in inside)


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


MEMBERS = {f"fuzz/{image}": b"jpg" * 5 for image in IMAGES[:3]} | {"fuzz/query/": b""}
MEMBER_NAMES = (
    "../x",
    "/etc/x",
    "a\\..\\..\\x",
    "C:/x",
    "a/../../x",
    "fuzz/train",
    "é\0x",
    "x" * 300,
)
MEMBER_NAMES += ("__MACOSX/x", "", ".", "fuzz/train/\u202e", "fuzz/TRAIN/a", "con", "fuzz//train/b")


def _zip_structured(rng: Random, files: Files) -> Files:
    members = {**MEMBERS, rng.choice(MEMBER_NAMES): b"evil", "fuzz/z": bytes(rng.randrange(5000))}
    try:
        data = _zip(members, rng.choice((0, 8, 12, 14)))
    except Exception:  # what zipfile cannot write is no input
        data = files["archive"]
    return {"archive": mutate_bytes(rng, data) if rng.random() < 0.5 else data}


def _tar_structured(rng: Random, files: Files) -> Files:
    file = io.BytesIO()
    kind = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name in (*MEMBERS, rng.choice(MEMBER_NAMES)):
            info = tarfile.TarInfo(name)
            info.type = rng.choice(
                (b"0", b"0", b"0", b"1", b"2", b"3", b"5", b"6", b"S", b"L", b"x")
            )
            info.linkname = rng.choice(("", "/etc/passwd", "../x"))
            info.mode = rng.choice((0o644, 0o4755, 0))
            info.size = 4
            if kind == tarfile.PAX_FORMAT:
                info.pax_headers = {rng.choice(("size", "path", "GNU.sparse.major")): "99999999"}
            try:
                archive.addfile(info, io.BytesIO(b"evil"))
            except (ValueError, OverflowError):
                continue
    return {"archive": file.getvalue()}


def _unpack(folder: Path) -> None:
    from reidkit.data.archives import unpack_archive
    from reidkit.data.manifest import load_manifest

    before = {path for path in folder.rglob("*") if OUTPUT not in path.parts}
    manifest = load_manifest(folder / "own.toml")
    output = folder / OUTPUT
    output.mkdir()
    try:
        unpack_archive(folder / "archive", manifest, output, on_progress=lambda done, total: None)
        assert not any(path.is_symlink() for path in output.rglob("*"))
    finally:
        assert {path for path in folder.rglob("*") if OUTPUT not in path.parts} == before
        assert not list(output.glob("*.partial"))


def _write_manifest(folder: Path) -> None:
    (folder / "own.toml").write_text(MANIFEST)


METADATA = b"path,person,camera,time\na.jpg,Ann,1,2026-05-17T09:30\nb.jpg,,,1747470600.5\n"


def _read_metadata(folder: Path) -> None:
    """An index's metadata, stored in an index of these records."""
    import numpy as np

    from reidkit.index.directory import IndexDirectory
    from reidkit.index.filling import read_metadata
    from reidkit.index.records import Header

    records = list(read_metadata(folder / "metadata.csv").values())
    (folder / OUTPUT).mkdir()
    index = IndexDirectory.create(folder / OUTPUT / "index", Header("", "", "", False, 2))
    assert index.add(np.ones((len(records), 2), np.float32), records) == len(records)
    index.info()


TARGETS = (
    Target(
        "manifest",
        lambda: [
            {"manifest.toml": m.encode()} for m in (MANIFEST, TRACKLETS, LISTS, TABLE_MANIFEST)
        ],
        _open,
        prepare=_write_images,
    ),
    Target(
        "table",
        lambda: [{"data.csv": _table(), "manifest.toml": TABLE_MANIFEST.encode()}],
        _open,
        structured=lambda rng, files: {**files, "data.csv": mutate_table(rng, files["data.csv"])},
        prepare=_write_images,
    ),
    Target("init-table", lambda: [{"data.csv": _table()}], _init_table, prepare=_write_images),
    Target("init-folder", _folders_and_options, _init, prepare=_write_images),
    Target(
        "patterns",
        lambda: [{"pattern.txt": text.encode()} for text in (PATTERN, r"(a|b)+c\.jpg", ".*_.*")],
        _match_pattern,
        structured=_structured_pattern,
    ),
    Target(
        "lists",
        lambda: [
            {f"list_{split}.txt": _list(split) for split in SPLITS}
            | {"manifest.toml": LISTS.encode()}
        ],
        _open,
        prepare=_write_images,
    ),
    Target("mars-mat", _mars_seeds, _open, _mars_structured, _write_mars),
    Target("cuhk03-mat", _cuhk03_seeds, _open_cuhk03, _cuhk03_structured, _write_cuhk03),
    Target("cuhk03-release", _release_seeds, _unpack_cuhk03),
    Target("cifar-records", _cifar_seeds, _unpack_cifar),
    Target("zip", lambda: [{"archive": _zip(MEMBERS)}], _unpack, _zip_structured, _write_manifest),
    Target(
        "tar",
        lambda: [{"archive": _tar(MEMBERS)}, {"archive": _tar(MEMBERS, "w:gz")}],
        _unpack,
        _tar_structured,
        _write_manifest,
    ),
    Target("index-metadata", lambda: [{"metadata.csv": METADATA}], _read_metadata),
)
