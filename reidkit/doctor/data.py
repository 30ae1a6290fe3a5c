"""Data sets under the data root, and part mask files in the working directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from reidkit.doctor.finding import Finding
from reidkit.doctor.probes import error_line
from reidkit.errors import ReidkitError

MASKS = Path("masks")


def data_root(root: Path | None) -> Path:
    """The folder of data sets: `root`, else $REIDKIT_DATA, else `data`."""
    return root or Path(os.environ.get("REIDKIT_DATA", "data"))


def data_findings(root: Path | None) -> list[Finding]:
    """The data root, one line for each data set and mask file found, one for all data sets that
    are not there."""
    findings: list[Finding] = []
    searches: dict[str, Callable[[], list[Finding]]]
    searches = {"data root": partial(_root_findings, data_root(root)), "mask files": _mask_findings}
    for name, search in searches.items():
        try:
            findings += search()
        except ImportError as error:  # a package that data sets or masks need
            fix = "Install what the section Packages names"
            findings.append(Finding("Data", name, "absent", error_line(error), fix))
    return findings


def _root_findings(root: Path) -> list[Finding]:
    from reidkit.data.manifest import find_root, list_manifests, load_manifest

    if not root.is_dir():
        fix = "Run: export REIDKIT_DATA=DIR, the folder that contains your data sets"
        return [Finding("Data", "data root", "absent", f"{root} is not a folder", fix)]
    findings = [Finding("Data", "data root", "ok", str(root.absolute()))]
    absent = []
    for name, path in list_manifests().items():
        try:
            manifest = load_manifest(path)
        except ReidkitError as error:
            fix = f"Fix or remove {path}"
            findings.append(Finding("Data", name, "problem", str(error), fix))
            continue
        try:
            folder = find_root(manifest, root, beside=path.parent)
        except ReidkitError:
            absent.append(name)
            continue
        fix = f"To compare its counts, run: reidkit datasets verify {name}"
        findings.append(Finding("Data", name, "ok", str(folder), fix))
    if absent:
        findings.append(Finding("Data", "not under it", "absent", ", ".join(absent)))
    return findings


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
