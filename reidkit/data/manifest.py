"""Data sets: find the manifest, find the folder, read the splits.

A manifest is a TOML file (docs/datasets.md). reidkit's own are in `data_manifests/`; others are
given by path, by a folder that contains a `manifest.toml`, or in `REIDKIT_MANIFESTS`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

from reidkit.choices import ProtocolName
from reidkit.config import from_table, read_toml
from reidkit.data.checks import duplicates, unmatched_queries
from reidkit.data.expressions import compile_expression
from reidkit.data.readers import READERS
from reidkit.data.readers.rows import build_splits, raise_problems
from reidkit.data.schema import Manifest
from reidkit.errors import DataError, suggest
from reidkit.files import check_regular, user_path
from reidkit.types import SPLITS, Dataset, Item, frames

MANIFEST = "manifest.toml"
LABELS = "labels"
"""Folder of a data set's own label maps where its manifest does not name one."""
MAX_NAME, MAX_PATH = 255, 4000
"""Bytes of a name and of a path that file systems allow."""
PROTOCOL_NAMES: tuple[ProtocolName, ...] = get_args(ProtocolName)


def list_manifests() -> dict[str, Path]:
    """Manifest files by name; those in `REIDKIT_MANIFESTS` take precedence over reidkit's own."""
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
        ConfigError, DataError: if it is missing, is not TOML, or its keys or values are invalid.
    """
    manifest = from_table(Manifest, read_toml(path), where=path.name)
    if manifest.format != 1:
        raise DataError(f"{path}: manifest format {manifest.format}, this reidkit reads format 1")
    if manifest.reader not in READERS:
        raise DataError(
            f"{path}: unknown reader {manifest.reader!r}. {suggest(manifest.reader, READERS)}"
        )
    if manifest.root and manifest.reader != "csv":
        raise DataError(f'{path}: only reader = "csv" has the key root. Remove it')
    for split in manifest.splits:
        if split not in SPLITS:
            raise DataError(f"{path}: unknown split {split!r}. Known: {', '.join(SPLITS)}.")
    if manifest.task == "classification":
        if manifest.protocol is not None:
            raise DataError(f'{path}: task = "classification" has no protocol. Remove that key')
    elif manifest.protocol is None:
        raise DataError(f"{path}: missing key protocol. Use one of {', '.join(PROTOCOL_NAMES)}")
    elif (manifest.cameras == "none") != (manifest.protocol == "none"):
        raise DataError(
            f'{path}: cameras = "{manifest.cameras}" does not fit protocol = '
            f'"{manifest.protocol}". Use cameras = "none" and protocol = "none" together'
        )
    if manifest.unmatched != "unknown" and manifest.unmatched < 0:
        raise DataError(f"{path}: unmatched = {manifest.unmatched}, expected a number from 0")
    _check_pattern(manifest, path)
    _check_paths(manifest, path)
    return manifest


GROUPS = {"pattern": ("pid",), "tracklets": ("pid", "frame"), "lists": ("camid",)}
"""Groups that the pattern must have, by reader."""


def _check_pattern(manifest: Manifest, path: Path) -> None:
    groups = compile_expression(manifest.pattern, where=f"{path}: pattern").groupindex
    needed = GROUPS.get(manifest.reader, ("pid",) if manifest.pattern else ())
    missing = [name for name in needed if name not in groups]
    if missing:
        raise DataError(
            f"{path}: pattern {manifest.pattern!r} has no group {missing[0]}, which reader = "
            f'"{manifest.reader}" needs: (?P<{missing[0]}>...)'
        )


def _check_paths(manifest: Manifest, path: Path) -> None:
    texts = [*manifest.folders, *manifest.marks, manifest.table, manifest.labels or ""]
    for split in manifest.splits.values():
        texts += [split.folder, *split.lists, *split.distractors_in]
    texts += [folder for folders in manifest.variants.values() for folder in folders.values()]
    for text in texts:
        if text.startswith("/") or ".." in text.split("/"):
            raise DataError(f"{path}: {text[:40]!r} is not below the data set's folder")
    for text in (*texts, manifest.root, manifest.name):
        names = text.encode("utf-8", "replace").split(b"/")
        if "\0" in text or max(map(len, names)) > MAX_NAME or sum(map(len, names)) > MAX_PATH:
            raise DataError(f"{path}: {text[:40]!r} cannot be the path of a file")


def find_manifest(dataset: str) -> Path:
    """The manifest file of a data set, given by its name, a manifest file or a folder.

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
            f"{path} is a table without a {MANIFEST} next to it. "
            f"Write one: reidkit datasets init {path}"
        )
    if not path.is_dir():
        check_regular(path, DataError)
    else:
        raise DataError(
            f"{path} has no {MANIFEST}. For a published data set use "
            f"--dataset NAME --data-root {path} (in Python: open_dataset(NAME, {str(path)!r})); "
            "for your own images run: "
            f"reidkit datasets init {path}"
        )
    raise DataError(
        f"unknown data set {dataset!r}. {suggest(dataset, known)} "
        f"A manifest file or a folder with a {MANIFEST} is accepted, too"
    )


def locate(dataset: str, data_root: Path | None = None) -> tuple[Manifest, Path]:
    """The manifest and the folder of a data set.

    Args:
        dataset: a known name, a manifest file, or a folder that contains a manifest.toml; a name
            or folder may be followed by `@variant`.
        data_root: the folder of data sets; default `REIDKIT_DATA`, else `data`.

    A manifest.toml inside the data set's folder replaces the published one, so that a synthetic
    data set can be used in place of a published one; the name stays the requested one.
    """
    path, variant = _folder_and_variant(dataset)
    file = find_manifest(path)
    manifest = load_manifest(file)
    if file.name == MANIFEST:
        return choose_variant(manifest, variant, file.parent), file.parent
    variant = dataset.partition("@")[2] if file.stem == dataset.partition("@")[0] else ""
    folder = find_root(manifest, data_root, beside=file.parent, variant=variant)
    if (folder / MANIFEST).is_file():
        manifest = replace(load_manifest(folder / MANIFEST), name=manifest.name)
    return choose_variant(manifest, variant, folder), folder


def _folder_and_variant(dataset: str) -> tuple[str, str]:
    """ "data/x@3" -> ("data/x", "3") if data/x contains a manifest.toml; else (dataset, "")."""
    folder, _, variant = dataset.rpartition("@")
    if folder and (Path(folder).expanduser() / MANIFEST).is_file():
        return folder, variant
    return dataset, ""


def list_splits(dataset: str) -> list[str]:
    """The splits of a data set as names for `locate`: ["cuhk03-classic-labeled@0", ...]; empty if
    there is only one. They are the variants without folders of their own, which divide the same
    images differently.
    """
    name, _ = _folder_and_variant(dataset)
    file = find_manifest(name)
    if file.name != MANIFEST:
        name = name.partition("@")[0]
    variants = load_manifest(file).variants
    return [] if any(variants.values()) else [f"{name}@{variant}" for variant in variants]


def find_root(
    manifest: Manifest,
    data_root: Path | None = None,
    *,
    beside: Path | None = None,
    variant: str = "",
) -> Path:
    """The data set's folder under the data root (or `beside`), recognised by its `marks`; the one
    with the variant's folders if there are several.

    Raises:
        DataError: if there is none; names the expected folder.
    """
    root = data_root or user_path(os.environ.get("REIDKIT_DATA", "data"))
    places = [*(root / name for name in manifest.folders), root, *([beside] if beside else [])]
    found = [f for f in places if any((f / mark).exists() for mark in _marks(manifest))]
    own = manifest.variants.get(variant, {}).values()
    for folder in [f for f in found if all((f / name).is_dir() for name in own)] or found:
        return folder
    published = manifest.folders[0] if manifest.folders else manifest.name
    raise DataError(
        f"{manifest.name} is not under {root}: expected {root / published}"
        f" with {next(iter(_marks(manifest)), 'its splits')} inside. "
        "Set the folder of your data sets with --data-root DIR (in Python: data_root=DIR) or "
        "REIDKIT_DATA"
    )


def choose_variant(manifest: Manifest, variant: str, root: Path) -> Manifest:
    """The manifest of one variant, with its folders and its name.

    Args:
        variant: its name; "": the only one whose folders are under `root`, or the first if variants
            have no folders of their own.
    Raises:
        DataError: if there is no such variant, or the folder contains none or several of them.
    """
    if not manifest.variants:
        if variant:
            raise DataError(f"{manifest.name} has no variants. Use {manifest.name}")
        return manifest
    if variant and variant not in manifest.variants:
        raise DataError(
            f"{manifest.name} has no variant {variant!r}. {suggest(variant, manifest.variants)}"
        )
    present = {
        name: folders
        for name, folders in manifest.variants.items()
        if all((root / folder).is_dir() for folder in folders.values())
    }
    if not variant and len(present) > 1 and any(present.values()):
        names = ", ".join(f"{manifest.name}@{name}" for name in present)
        raise DataError(f"{root} contains more than one variant. Choose one: {names}")
    if not present or (variant and variant not in present):
        expected = manifest.variants[variant] if variant else next(iter(manifest.variants.values()))
        raise DataError(
            f"{manifest.name}: {root} is incomplete: expected the folders "
            f"{', '.join(dict.fromkeys(expected.values()))} in it. Is the archive fully unpacked?"
        )
    chosen = variant or next(iter(present))
    splits = {
        name: replace(split, folder=present[chosen].get(name, split.folder))
        for name, split in manifest.splits.items()
    }
    return replace(manifest, name=f"{manifest.name}@{chosen}", variant=chosen, splits=splits)


def read_dataset(manifest: Manifest, folder: Path) -> Dataset:
    """Reads every split of a data set.

    Args:
        folder: as found by `locate`.
    Raises:
        DataError: with all problems found: missing folders, names that do not match, empty splits,
            images that occur twice, queries without a match in the gallery.
    """
    problems: list[str] = []
    root = folder / manifest.root
    rows = READERS[manifest.reader](manifest, folder, problems)
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
        protocol=manifest.protocol or "",
        fingerprint=fingerprint(train, query, gallery),
        synthetic=manifest.synthetic,
        dense=manifest.dense,
        task=manifest.task,
        labels=_labels(manifest, folder),
        folder=folder if (folder / MANIFEST).is_file() else None,
    )
    if not problems:
        problems += duplicates(dataset)
        unmatched = unmatched_queries(dataset)
        if manifest.unmatched != "unknown" and len(unmatched) > manifest.unmatched:
            problems.append(
                f"[query] {len(unmatched)} of {len(query)} queries have no match in the gallery "
                f"(same id{'' if manifest.cameras == 'none' else ', another camera'}), the first "
                f"is {unmatched[0].path}. Remove them, or add to the manifest: "
                f"unmatched = {len(unmatched)}"
            )
    raise_problems(manifest.name, problems)
    return dataset


def _labels(manifest: Manifest, folder: Path) -> Path | None:
    """The data set's own label maps; a published manifest does not mention those of a copy."""
    if manifest.labels:
        return folder / manifest.labels
    return folder / LABELS if (folder / LABELS).is_dir() else None


def open_dataset(dataset: str | Path, data_root: str | Path | None = None) -> Dataset:
    """Reads a data set.

    Args:
        dataset: its name, a manifest file, or a folder that contains a manifest.toml; a name or
            folder may be followed by `@variant`.
        data_root: the folder of data sets; default `REIDKIT_DATA`, else `data`.
    Raises:
        DataError: there is none, or with all problems found in it (`read_dataset`).
    """
    root = None if data_root is None else user_path(data_root)
    return read_dataset(*locate(str(dataset), root))


def fingerprint(*splits: tuple[Item, ...]) -> str:
    """sha256 over the relative paths and labels of all splits, hexadecimal."""
    digest = hashlib.sha256()
    for number, split in enumerate(splits):
        for item in split:
            samples = list(frames([item]))
            digest.update(f"{number}:{len(samples)}\n".encode())
            for s in samples:
                digest.update(f"{s.path}\0{s.pid}\0{s.camid}\0{s.role}\n".encode())
    return digest.hexdigest()


def _marks(manifest: Manifest) -> list[str]:
    folders = [split.folder for split in manifest.splits.values() if split.folder != "."]
    folders += [f for variant in manifest.variants.values() for f in variant.values()]
    folders += [manifest.table] if manifest.reader == "csv" else []
    return [*(manifest.marks or dict.fromkeys(folders))]
