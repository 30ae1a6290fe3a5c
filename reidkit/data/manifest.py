"""A data set is a file: find its manifest, find its folder, read its splits.

A manifest is TOML (docs/datasets.md). reidkit's own are in `data_manifests/`; a path, a folder that
holds a `manifest.toml`, or `REIDKIT_MANIFESTS` adds one's own.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from reidkit.data.readers import READERS
from reidkit.errors import DataError, suggest
from reidkit.tables import from_table, read_toml
from reidkit.types import Dataset, Item, Role, Tracklet

MANIFEST = "manifest.toml"
SPLITS = ("train", "query", "gallery")


@dataclass(frozen=True)
class SplitSpec:
    """Where a split lies and what it holds when complete (None: not published).

    `images` counts every file, junk and distractors too; `ids` counts persons.
    """

    folder: str = "."
    images: int | None = None
    ids: int | None = None
    junk: int = 0
    distractors: int = 0


@dataclass(frozen=True)
class Manifest:
    """What is known of a data set before it is read.

    Attributes:
        folders: names its folder may have under the data root, the published one first.
        pattern: regular expression of an image's name, with groups `pid` and `camid`.
        labels: folder of 20-label LIP maps under the root, mirroring the images' paths.
        roles: the role of ids that are not persons, by their text in file names.
    """

    format: int
    name: str
    reader: str
    protocol: str
    splits: dict[str, SplitSpec]
    title: str = ""
    home: str = ""
    licence: str = ""
    paper: str = ""
    folders: tuple[str, ...] = ()
    pattern: str = ""
    cameras: int | Literal["none"] = "none"
    labels: str | None = None
    roles: dict[str, Role] = field(default_factory=dict)
    synthetic: bool = False
    seed: int | None = None


def list_manifests() -> dict[str, Path]:
    """Manifest files by name; those under `REIDKIT_MANIFESTS` come before reidkit's own."""
    package = Path(__file__).parents[1]
    folders = [package / "data_manifests", package.parent / "data_manifests"]
    folders = [folder for folder in folders if folder.is_dir()][:1]
    own = os.environ.get("REIDKIT_MANIFESTS")
    if own:
        folders += [Path(folder).expanduser() for folder in own.split(os.pathsep)]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def load_manifest(path: Path) -> Manifest:
    """Reads a manifest file.

    Raises:
        ConfigError: if it is missing, not TOML, or has an unknown key, type or reader.
    """
    manifest = from_table(Manifest, read_toml(path), where=path.name)
    if manifest.format != 1:
        raise DataError(f"{path}: manifest format {manifest.format}, this reidkit reads format 1")
    if manifest.reader not in READERS:
        raise DataError(f"{path}: unknown reader. {suggest(manifest.reader, READERS)}")
    for split in manifest.splits:
        if split not in SPLITS:
            raise DataError(f"{path}: unknown split {split!r}. Known: {', '.join(SPLITS)}.")
    return manifest


def find_manifest(dataset: str) -> Path:
    """The manifest file of a data set: by name, by its own path, or in the folder named.

    Raises:
        DataError: if there is none; names the nearest.
    """
    path, known = Path(dataset).expanduser(), list_manifests()
    if (path / MANIFEST).is_file():
        return path / MANIFEST
    if path.suffix == ".toml" and path.is_file():
        return path
    if dataset in known:
        return known[dataset]
    if path.is_dir():
        raise DataError(
            f"{path} has no {MANIFEST}. Name its layout: --dataset market1501 --data-root {path}"
        )
    raise DataError(
        f"unknown data set {dataset!r}. {suggest(dataset, known)} "
        "A manifest file or a folder with a manifest.toml will do as well"
    )


def locate(dataset: str, data_root: Path | None = None) -> tuple[Manifest, Path]:
    """The manifest and the folder of a data set.

    Args:
        dataset: a known name, a manifest file, or a folder that holds a manifest.toml.
        data_root: the folder of data sets; default `REIDKIT_DATA`, else `data`.

    A manifest.toml inside the folder that is found tells its counts, so a synthetic set may stand
    in the place of a published one; the name stays the one that was asked for.
    """
    file = find_manifest(dataset)
    manifest = load_manifest(file)
    if file.name == MANIFEST:
        return manifest, file.parent
    root = data_root or Path(os.environ.get("REIDKIT_DATA", "data"))
    for folder in [*(root / name for name in manifest.folders), root, file.parent]:
        if _has_a_split(folder, manifest):
            if (folder / MANIFEST).is_file():
                manifest = replace(load_manifest(folder / MANIFEST), name=manifest.name)
            return manifest, folder
    published = manifest.folders[0] if manifest.folders else manifest.name
    raise DataError(
        f"{manifest.name} is not under {root}: expected {root / published}"
        f"{f' with {_first_folder(manifest)} inside' if manifest.splits else ''}. "
        "Say where your data sets are: --data-root DIR, or set REIDKIT_DATA"
    )


def read_dataset(manifest: Manifest, root: Path) -> Dataset:
    """Reads every split of a data set.

    Raises:
        DataError: if a folder is missing, a split is empty, or a file's name does not fit.
    """
    splits = READERS[manifest.reader](manifest, root)
    for name in SPLITS:
        if name in manifest.splits and not splits.get(name):
            where = root / manifest.splits[name].folder
            raise DataError(f"{manifest.name}: [{name}] found no image under {where}")
    train, query, gallery = (tuple(splits.get(name, ())) for name in SPLITS)
    return Dataset(
        name=manifest.name,
        root=root,
        train=train,
        query=query,
        gallery=gallery,
        protocol=manifest.protocol,
        fingerprint=fingerprint(train, query, gallery),
        synthetic=manifest.synthetic,
    )


def open_dataset(dataset: str, data_root: Path | None = None) -> Dataset:
    """`locate`, then `read_dataset`."""
    return read_dataset(*locate(dataset, data_root))


def fingerprint(*splits: tuple[Item, ...]) -> str:
    """sha256 over the relative paths and labels of all splits, hexadecimal."""
    digest = hashlib.sha256()
    for number, split in enumerate(splits):
        for item in split:
            frames = item.frames if isinstance(item, Tracklet) else (item,)
            digest.update(f"{number}:{len(frames)}\n".encode())
            for s in frames:
                digest.update(f"{s.path}\0{s.pid}\0{s.camid}\0{s.role}\n".encode())
    return digest.hexdigest()


def _has_a_split(folder: Path, manifest: Manifest) -> bool:
    return any((folder / split.folder).is_dir() for split in manifest.splits.values())


def _first_folder(manifest: Manifest) -> str:
    return next(iter(manifest.splits.values())).folder
