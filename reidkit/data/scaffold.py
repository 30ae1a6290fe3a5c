"""Manifest and CSV for a folder of your own images (`reidkit datasets init`)."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from reidkit.data.names import ImageRow, NamePattern, mismatch, suggestion
from reidkit.data.readers.rows import list_images, raise_problems
from reidkit.data.readers.table import read_csv
from reidkit.data.schema import Manifest
from reidkit.errors import DataError
from reidkit.files import atomic, check_regular
from reidkit.types import SPLITS

COLUMNS = ("split", "path", "pid", "camid", "tracklet", "frame")
TABLE, MANIFEST = "data.csv", "manifest.toml"


@dataclass(frozen=True)
class Scaffold:
    """A data set that is ready to be written.

    Attributes:
        folder: where manifest and table are written.
        rows: of the table.
        has_cameras: whether cameras are known.
        own_table: file name of your own table, which is not written; "": data.csv is written.
        root: the manifest's key: the folder of the images, if it is not `folder`.
        warnings: what makes it unfit for training or evaluation.
    """

    folder: Path
    rows: tuple[ImageRow, ...]
    has_cameras: bool
    own_table: str = ""
    root: str = ""
    warnings: tuple[str, ...] = ()

    def counts(self, split: str | None = None) -> tuple[int, int, int]:
        """(people, images, cameras) of a split, or of all."""
        rows = [row for row in self.rows if split in (None, row.split)]
        cameras = len({row.camid for row in rows}) if self.has_cameras else 0
        return len({row.pid for row in rows}), len(rows), cameras

    def examples(self, count: int = 8) -> list[ImageRow]:
        """Some rows of every split."""
        by_split = [[row for row in self.rows if row.split == split] for split in SPLITS]
        present = [rows for rows in by_split if rows]
        return [row for rows in present for row in rows[: max(1, count // len(present))]]

    def table(self) -> str:
        """The text of data.csv."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows((r.split, r.path, r.pid, r.camid, r.tracklet, "") for r in self.rows)
        return text.getvalue()

    def write(self, *, overwrite: bool = False) -> None:
        """Writes data.csv and manifest.toml. Both are complete before either gets its name, the
        manifest last: without it, a repetition completes what was interrupted.

        Raises:
            DataError: as `check_new`, unless `overwrite`.
        """
        if not overwrite:
            check_new(self.folder, self)
        texts = {MANIFEST: self._manifest()}
        if not self.own_table:
            texts[TABLE] = self.table()
        with ExitStack() as stack:  # gives the names in reverse order
            for name, text in texts.items():
                partial = stack.enter_context(atomic(self.folder / name))
                partial.write_text(text, "utf-8", newline="")
            if overwrite:  # never the old manifest with the new table
                (self.folder / MANIFEST).unlink(missing_ok=True)

    def _manifest(self) -> str:
        name = re.sub(r"[^\w.-]+", "-", self.folder.resolve().name).strip("-") or "mine"
        lines = [
            "# Written by `reidkit datasets init`; edit as needed. All keys: docs/datasets.md.",
            "format = 1",
            f'name = "{name}"            # in the names of masks and runs',
            'title = ""',
            'licence = ""               # who owns the images, and who may use them',
            'reader = "csv"',
            f'table = "{self.own_table or TABLE}"          # {",".join(COLUMNS)}',
        ]
        if self.root:
            lines += [f"root = {json.dumps(self.root)}   # folder that its paths are relative to"]
        if self.has_cameras:
            lines += [
                f"cameras = {self.counts()[2]}",
                'protocol = "market"        # same person and camera is removed from a ranking',
            ]
        else:
            lines += [
                'cameras = "none"           # cameras are unknown, therefore',
                'protocol = "none"          # nothing is removed from rankings',
            ]
        lines += ["", "# Current counts; `reidkit datasets verify` compares them with the files."]
        for split in SPLITS:
            people, images, _ = self.counts(split)
            if images:
                lines += [f"[splits.{split}]", f"images = {images}", f"ids = {people}", ""]
        return "\n".join(lines)


def check_new(folder: Path, scaffold: Scaffold | None = None) -> None:
    """Passes if manifest and table can be written to `folder`.

    Raises:
        DataError: there is a manifest, or a table other than that of `scaffold`.
    """
    if (folder / MANIFEST).exists():
        raise DataError(
            f"{folder} already has a {MANIFEST}. Edit it, or replace it with --overwrite"
        )
    table = folder / TABLE
    if scaffold is not None and not scaffold.own_table and table.exists():
        found = table.read_bytes() if table.is_file() else b""
        if found != scaffold.table().encode():
            raise DataError(
                f"{folder} already has another {TABLE}. Rename it, or replace it with --overwrite"
            )


def plan_dataset(
    folder: Path, names: NamePattern, *, test_fraction: float = 0.5, seed: int = 0
) -> Scaffold:
    """Manifest and table for a folder of images, not yet written.

    `folder` contains <person>/<images>, or, with a pattern, images at any depth; or train/, query/
    and gallery/ with such content, which are then the splits. Otherwise whole persons are sampled
    for testing; of their images (or tracklets) the first one of each camera is a query, the rest is
    the gallery.

    Args:
        test_fraction: of the persons, in [0, 1].
        seed: of the division into training and test persons.
    Raises:
        DataError: if the folder has no images, images do not match, or there are no queries.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected a folder of images")
    paths = list_images(folder)
    if not paths:
        raise DataError(
            f"found no images under {folder}. Expected one folder per person, {folder}/NAME/*.jpg, "
            "or names that a --pattern matches"
        )
    found = [names.row(path) for path in paths]
    for reason in ("folder", "pattern", "camera", "camera map"):
        failed = [path for path, row in zip(paths, found, strict=True) if row == reason]
        if failed:
            raise DataError(mismatch(reason, folder, names, failed, len(paths)))
    rows = [row for row in found if isinstance(row, ImageRow)]
    outside = [row.path for row in rows if not row.split]
    if not outside:
        divided = rows
    elif len(outside) == len(rows):
        divided = _divide(rows, test_fraction, seed)
    else:
        raise DataError(
            f"{len(outside)} images under {folder} are not in its folders {', '.join(SPLITS)}, the "
            f"first is {outside[0]}. Move them into one of these folders, or rename the folders"
        )
    scaffold = Scaffold(folder, tuple(divided), names.has_cameras)
    return replace(scaffold, warnings=tuple(_warnings(scaffold, names)))


def plan_table(table: Path, root: Path | None = None) -> Scaffold:
    """The manifest of your own table, not yet written.

    Args:
        table: a CSV with the columns split, path, pid and optionally camid, tracklet and frame.
        root: folder that its paths are relative to, or that absolute paths are below; default: the
            table's.
    Raises:
        DataError: with all problems of the table.
    """
    check_regular(table, DataError)
    if not table.is_file():
        raise DataError(f"no such table: {table}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as text:
            has_cameras = "camid" in next(csv.reader(text), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a CSV file in UTF-8: {error}") from error
    images = "" if root is None else str(root.resolve())
    manifest = Manifest(
        format=1,
        name=table.stem,
        reader="csv",
        splits={},
        cameras=0 if has_cameras else "none",
        table=table.name,
        root=images,
    )
    problems: list[str] = []
    rows = tuple(
        ImageRow(row.split, row.path, row.pid, row.camid, row.tracklet)
        for row in read_csv(manifest, table.parent, problems)
    )
    raise_problems(str(table), problems)
    if not rows:
        raise DataError(f"{table} contains no images")
    scaffold = Scaffold(table.parent, rows, has_cameras, table.name, images)
    return replace(scaffold, warnings=tuple(_warnings(scaffold, NamePattern())))


def _warnings(scaffold: Scaffold, names: NamePattern) -> list[str]:
    warnings = []
    people, images, cameras = scaffold.counts()
    paths = [row.path for row in scaffold.rows]
    is_stated = bool(names.pattern or scaffold.own_table)
    better = "" if is_stated else suggestion(scaffold.folder, paths, more_than=people)
    if people == 1:
        warnings.append(
            f"all {images} images are of one person, {scaffold.rows[0].pid}. "
            + (
                better
                or "If they show several, specify where the person is in a name, such as "
                "--pattern '^(?P<pid>[^_]+)_c(?P<camid>\\d+)'"
            )
        )
    elif better:
        warnings.append(f"the folders are of {people} people. {better}")
    train = scaffold.counts("train")[0]
    if train < 2:
        what = "one training person" if train else "no training split"
        warnings.append(f"{what}: the data set can be evaluated, but not trained on")
    if not scaffold.counts("query")[1]:
        warnings.append("no test split: the data set can be trained on, but not evaluated")
    if cameras == 1:
        warnings.append("all images are of one camera, so no query has a match in another camera")
    return warnings


def _divide(rows: Sequence[ImageRow], test_fraction: float, seed: int) -> list[ImageRow]:
    """Assigns splits: persons to train or test, then queries; every query has a match."""
    persons = sorted({row.pid for row in rows})
    test = math.floor(len(persons) * test_fraction + 0.5)
    if 0 < test_fraction < 1:
        test = min(max(test, 1), max(len(persons) - 1, 1))
    train = set(random.Random(seed).sample(persons, len(persons) - test))
    seen: dict[str, dict[str, dict[str, None]]] = {}  # person -> camera -> images or tracklets
    for row in rows:
        seen.setdefault(row.pid, {}).setdefault(row.camid, {})[row.unit[2]] = None
    queries = {
        (pid, camid, unit)
        for pid in persons
        if pid not in train
        for camid, unit in _queries({c: list(units) for c, units in seen[pid].items()})
    }
    if test and not queries:
        raise DataError(_without_queries(rows, len(persons)))

    def split(row: ImageRow) -> str:
        return "train" if row.pid in train else "query" if row.unit in queries else "gallery"

    return [replace(row, split=split(row)) for row in rows]


def _without_queries(rows: Sequence[ImageRow], people: int) -> str:
    """The message about test persons of which nothing can be a query."""
    cameras = {row.camid for row in rows}
    found = f"found {people} people and {len(rows)} images"
    if cameras == {""}:
        return (
            f"{found}: no test person has two images, so there are no queries. "
            "Use --test-fraction 0 to train only"
        )
    if len(cameras) == 1:
        return (
            f"{found} of one camera, {cameras.pop()}, so there are no queries, which need a match "
            "in another camera. "
            "Leave the camera out (--cameras none, or a --pattern without camid), or use "
            "--test-fraction 0 to train only"
        )
    return (
        f"{found} of {len(cameras)} cameras: no test person was seen by two of them, so there are "
        "no queries. Check the pattern with --test-fraction 0 --dry-run"
    )


def _queries(units: dict[str, list[str]]) -> list[tuple[str, str]]:
    """One person's queries: the first unit of every camera with several units; if no camera has
    several, that of the first camera."""
    if list(units) == [""]:
        return [("", units[""][0])] if len(units[""]) > 1 else []
    if len(units) == 1:
        return []
    firsts = [(camid, found[0]) for camid, found in units.items() if len(found) > 1]
    return firsts or [next((camid, found[0]) for camid, found in units.items())]
