"""A data set is a file: find its manifest, find its folder, read its splits.

A manifest is TOML (docs/datasets.md). reidkit's own are in `data_manifests/`; a path, a folder that
holds a `manifest.toml`, or `REIDKIT_MANIFESTS` adds one's own.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from reidkit.config.tables import from_table, read_toml
from reidkit.data.checks import repeated, unmatched
from reidkit.data.readers import READERS
from reidkit.data.readers.rows import build_splits, refuse
from reidkit.data.schema import Manifest
from reidkit.errors import DataError, suggest
from reidkit.types import Dataset, Item, Tracklet

MANIFEST = "manifest.toml"
SPLITS = ("train", "query", "gallery")
CAMERALESS = ("none", "classification")
"""Protocols that do not look at cameras."""


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
    if (manifest.cameras == "none") != (manifest.protocol in CAMERALESS):
        raise DataError(
            f'{path}: cameras = "{manifest.cameras}" does not go with protocol = '
            f'"{manifest.protocol}": without cameras, and only then, the protocol is "none"'
        )
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
    if dataset.partition("@")[0] in known:
        return known[dataset.partition("@")[0]]
    if path.suffix == ".csv" and path.is_file():
        raise DataError(
            f"{path} needs a {MANIFEST} beside it that says what it is. "
            f"Write one: reidkit datasets init {path.parent}"
        )
    if path.is_dir():
        raise DataError(
            f"{path} has no {MANIFEST}. Name its layout: --dataset market1501 --data-root {path}, "
            f"or, if it is your own: reidkit datasets init {path}"
        )
    raise DataError(
        f"unknown data set {dataset!r}. {suggest(dataset, known)} "
        "A manifest file or a folder with a manifest.toml will do as well"
    )


def locate(dataset: str, data_root: Path | None = None) -> tuple[Manifest, Path]:
    """The manifest and the folder of a data set.

    Args:
        dataset: a known name (`name@variant` for one of several), a manifest file, or a folder
            that holds a manifest.toml.
        data_root: the folder of data sets; default `REIDKIT_DATA`, else `data`.

    A manifest.toml inside the folder that is found tells its counts, so a synthetic set may stand
    in the place of a published one; the name stays the one that was asked for.
    """
    file = find_manifest(dataset)
    manifest = load_manifest(file)
    if file.name == MANIFEST:
        return choose_variant(manifest, "", file.parent), file.parent
    asked = dataset.partition("@")[2] if file.stem == dataset.partition("@")[0] else ""
    folder = find_root(manifest, data_root, beside=file.parent)
    if (folder / MANIFEST).is_file():
        manifest = replace(load_manifest(folder / MANIFEST), name=manifest.name)
    return choose_variant(manifest, asked, folder), folder


def find_root(
    manifest: Manifest, data_root: Path | None = None, *, beside: Path | None = None
) -> Path:
    """The folder under the data root (or `beside`) that looks like this data set.

    Raises:
        DataError: if there is none; says where it was expected.
    """
    root = data_root or Path(os.environ.get("REIDKIT_DATA", "data"))
    places = [*(root / name for name in manifest.folders), root, *([beside] if beside else [])]
    for folder in places:
        if any((folder / mark).exists() for mark in _marks(manifest)):
            return folder
    published = manifest.folders[0] if manifest.folders else manifest.name
    raise DataError(
        f"{manifest.name} is not under {root}: expected {root / published}"
        f" with {next(iter(_marks(manifest)), 'its splits')} inside. "
        "Say where your data sets are: --data-root DIR, or set REIDKIT_DATA"
    )


def choose_variant(manifest: Manifest, asked: str, root: Path) -> Manifest:
    """The manifest of one variant, with its folders and its name.

    Raises:
        DataError: if there is no such variant, or the folder has none or several of them.
    """
    if not manifest.variants:
        if asked:
            raise DataError(f"{manifest.name} has no variants: ask for {manifest.name} alone")
        return manifest
    if asked and asked not in manifest.variants:
        raise DataError(
            f"{manifest.name} has no variant {asked!r}. {suggest(asked, manifest.variants)}"
        )
    there = {
        variant: folders
        for variant, folders in manifest.variants.items()
        if all((root / folder).is_dir() for folder in folders.values())
    }
    if not asked and len(there) > 1 and any(there.values()):
        names = ", ".join(f"{manifest.name}@{variant}" for variant in there)
        raise DataError(f"{root} holds more than one variant. Say which: {names}")
    if not there or (asked and asked not in there):
        wanted = manifest.variants[asked] if asked else next(iter(manifest.variants.values()))
        raise DataError(
            f"{manifest.name}: {root} is not whole: expected the folders "
            f"{', '.join(dict.fromkeys(wanted.values()))} in it. Is it unpacked to its end?"
        )
    chosen = asked or next(iter(there))
    splits = {
        name: replace(split, folder=there[chosen].get(name, split.folder))
        for name, split in manifest.splits.items()
    }
    return replace(manifest, name=f"{manifest.name}@{chosen}", variant=chosen, splits=splits)


def read_dataset(manifest: Manifest, root: Path) -> Dataset:
    """Reads every split of a data set.

    Raises:
        DataError: with every problem that was found: missing folders, names that do not fit, an
            empty split, images that come twice, queries without a match in the gallery.
    """
    problems: list[str] = []
    rows = READERS[manifest.reader](manifest, root, problems)
    splits = build_splits(rows, roles=manifest.roles, problems=problems)
    if not problems:
        for name in SPLITS:
            if name in manifest.splits and not splits.get(name):
                where = root / manifest.splits[name].folder
                problems.append(f"[{name}] found no image under {where}")
    train, query, gallery = (tuple(splits.get(name, ())) for name in SPLITS)
    dataset = Dataset(
        name=manifest.name,
        root=root,
        train=train,
        query=query,
        gallery=gallery,
        protocol=manifest.protocol,
        fingerprint=fingerprint(train, query, gallery),
        synthetic=manifest.synthetic,
        dense=manifest.dense,
    )
    if not problems:
        problems += repeated(dataset)
        lonely = unmatched(dataset)
        if manifest.unmatched != "unknown" and len(lonely) > manifest.unmatched:
            problems.append(
                f"[query] {len(lonely)} of {len(query)} queries have no match in the gallery (same "
                f"id{'' if manifest.cameras == 'none' else ', another camera'}), the first is "
                f"{lonely[0].path}. Remove them, or state the number: unmatched = {len(lonely)}"
            )
    refuse(manifest.name, problems)
    return dataset


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


def _marks(manifest: Manifest) -> list[str]:
    folders = [split.folder for split in manifest.splits.values() if split.folder != "."]
    folders += [f for variant in manifest.variants.values() for f in variant.values()]
    folders += [manifest.table] if manifest.reader == "csv" else []
    return [*(manifest.marks or dict.fromkeys(folders))]
