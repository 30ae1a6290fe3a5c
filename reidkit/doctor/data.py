"""Data sets under the data root, and part mask files in the working directory."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit.doctor.finding import Finding
from reidkit.doctor.probes import error_line
from reidkit.errors import ReidkitError

if TYPE_CHECKING:
    from reidkit.data.schema import Manifest

MASKS = Path("masks")


def data_root(root: Path | None) -> Path:
    """The folder of data sets: `root`, else $REIDKIT_DATA, else `data`."""
    return root or Path(os.environ.get("REIDKIT_DATA", "data"))


def data_findings(root: Path | None) -> list[Finding]:
    """The data root, one line for each data set and mask file found, one for all data sets that
    are not there."""
    findings: list[Finding] = []
    searches: dict[str, Callable[[], list[Finding]]]
    searches = {"data root": partial(_root_findings, root), "mask files": _mask_findings}
    for name, search in searches.items():
        try:
            findings += search()
        except ImportError as error:  # a package that data sets or masks need
            fix = "Install what the section Packages names"
            findings.append(Finding("Data", name, "absent", error_line(error), fix))
    return findings


def _root_findings(root: Path | None) -> list[Finding]:
    from reidkit.data.manifest import list_manifests, load_manifest

    option = f" --data-root {shlex.quote(str(root))}" if root else ""
    root = data_root(root)
    if not root.is_dir():
        fix = "Run: export REIDKIT_DATA=DIR, the folder that contains your data sets"
        return [Finding("Data", "data root", "absent", f"{root} is not a folder", fix)]
    findings = [Finding("Data", "data root", "ok", str(root.absolute()))]
    absent, listed = [], set()
    for name, path in list_manifests().items():
        try:
            manifest = load_manifest(path)
        except ReidkitError as error:
            findings.append(_invalid_manifest(name, path, error))
            continue
        folder = _folder(name, manifest, root, beside=path.parent)
        if folder is None:
            absent.append(name)
            continue
        listed.add(folder)
        fix = f"To compare its counts, run: reidkit datasets verify {name}{option}"
        findings.append(Finding("Data", name, "ok", str(folder), fix))
    findings += _own_findings(root, listed)
    if absent:
        findings.append(Finding("Data", "not under it", "absent", ", ".join(absent)))
    return findings


def _folder(name: str, manifest: Manifest, root: Path, *, beside: Path) -> Path | None:
    """The folder of a data set; None without one.

    The data root itself may be the data set. Folders such as `train` or `bounding_box_train` are
    common to several, so it must have the data set's name, or images that are named as in it.
    """
    from reidkit.data.manifest import MANIFEST, find_root, open_dataset

    try:
        folder = find_root(manifest, root, beside=beside)
        distractors = [f for split in manifest.splits.values() for f in split.distractors_in]
        if not all((folder / images).is_dir() for images in distractors):
            return None
        if folder == root and root.resolve().name not in manifest.folders:
            if (root / MANIFEST).is_file():
                return None  # a data set of another name
            open_dataset(name, root)
    except (ReidkitError, OSError):
        return None
    return folder


def _own_findings(root: Path, listed: Collection[Path]) -> list[Finding]:
    """Data sets with a manifest in their folder, such as synthetic ones, by their own names.

    Args:
        listed: folders that are in the place of a published data set, to be left out.
    """
    from reidkit.data.manifest import MANIFEST, load_manifest

    findings = []
    for path in (root / MANIFEST, *sorted(root.glob(f"*/{MANIFEST}"))):
        folder = path.parent
        if folder in listed or not path.is_file():
            continue
        try:
            name = load_manifest(path).name
        except ReidkitError as error:
            findings.append(_invalid_manifest(folder.name, path, error))
            continue
        command = f"reidkit datasets verify {shlex.quote(str(folder))}"
        fix = f"To compare its counts, run: {command}"
        findings.append(Finding("Data", name, "ok", str(folder), fix))
    return findings


def _invalid_manifest(name: str, path: Path, error: ReidkitError) -> Finding:
    return Finding("Data", name, "problem", str(error), f"Fix or remove {path}")


def _mask_findings() -> list[Finding]:
    from reidkit.masks.store import MaskStore

    files = sorted(MASKS.glob("*.h5"))
    if not files:
        text = f"none in {MASKS.absolute()}"
        fix = "For networks with part attention, run: reidkit prepare-masks --dataset NAME"
        return [Finding("Data", "mask files", "absent", text, fix)]
    findings = []
    for path in files:
        try:
            store = MaskStore.open(path)
        except ReidkitError as error:
            fix = f"Run: reidkit prepare-masks --dataset {path.stem} --overwrite"
            findings.append(Finding("Data", str(path), "problem", str(error).splitlines()[0], fix))
            continue
        found = (
            f"{len(store.paths):,} masks of {store.header.dataset}, parts {', '.join(store.parts)}"
        )
        findings.append(Finding("Data", str(path), "ok", found))
    return findings
