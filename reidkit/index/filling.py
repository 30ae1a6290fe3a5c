"""From image files and features files to the vectors and records of an index."""

# N images

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reidkit.errors import DataError
from reidkit.features import Features
from reidkit.files import check_regular
from reidkit.index.records import Gallery, Header, Record, parse_time
from reidkit.runtime.embedder import Embedder
from reidkit.runtime.extraction import ExtractionSettings, extract_images

STEP = 1024
"""Images that are embedded and stored at a time; what a kill loses."""

_COLUMNS = ("path", "person", "camera", "time")


def header_of(features: Features, *, model: str = "") -> Header:
    """The header of an index of these vectors.

    Args:
        model: path of the model file, if it is known.
    """
    attributes = features.attributes
    return Header(
        model=model,
        model_sha256=str(attributes.get("model_sha256", "")),
        preprocess=str(attributes.get("preprocess", "")),
        flip=bool(attributes.get("flip", False)),
        dimension=features.features.shape[1],
    )


def feature_records(features: Features, *, where: Path) -> list[Record]:
    """Records of a features file, with its identities as persons.

    Raises:
        DataError: rows without a path, which could not be told apart.
    """
    if "" in features.paths:
        row = features.paths.index("")
        raise DataError(f"{where}: row {row} has no path; an index needs one for every vector")
    return [
        Record(path, str(pid) if pid >= 0 else "", camid if camid >= 0 else None)
        for path, pid, camid in zip(
            features.paths, features.pids.tolist(), features.camids.tolist(), strict=True
        )
    ]


def image_records(
    paths: Sequence[Path],
    *,
    camera: int | None = None,
    metadata: Mapping[Path, Record] | None = None,
) -> list[Record]:
    """Records of image files by absolute path; the time is the file's, and `metadata` (from
    `read_metadata`) takes precedence.

    Raises:
        DataError: a file does not exist.
    """
    records = []
    for path in paths:
        file = path.resolve()
        try:
            record = Record(str(file), camera=camera, time=file.stat().st_mtime)
        except OSError as error:
            raise DataError(f"no such image: {path}") from error
        stated = (metadata or {}).get(file)
        if stated is not None:
            record = Record(
                record.path,
                stated.person,
                record.camera if stated.camera is None else stated.camera,
                record.time if stated.time is None else stated.time,
            )
        records.append(record)
    return records


def read_metadata(file: Path) -> dict[Path, Record]:
    """Absolute path -> record of a CSV file with the columns path and, in any number, person,
    camera and time. Paths are absolute or relative to the file's folder.

    Raises:
        DataError: the file cannot be read, or a row is invalid; the message gives its line.
    """
    check_regular(file, DataError)
    records: dict[Path, Record] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            names = table.fieldnames or []
            if "path" not in names or not set(names) <= set(_COLUMNS):
                raise DataError(
                    f"{file}: columns {', '.join(names) or '(none)'}; expected path and any of "
                    f"{', '.join(_COLUMNS[1:])}"
                )
            for row in table:
                where = f"{file}, line {table.line_num}"
                record = _metadata_record(row, where=where)
                path = (file.parent / record.path).resolve()
                records[path] = replace(record, path=str(path))
    except (OSError, ValueError, csv.Error) as error:  # such as NUL in a path
        raise DataError(f"cannot read {file}: {error}") from error
    return records


def _metadata_record(row: Mapping[str, str | None], *, where: str) -> Record:
    camera, time = row.get("camera"), row.get("time")
    if not row["path"]:
        raise DataError(f"{where}: no path")
    if camera and not re.fullmatch(r"\s*\d{1,18}\s*", camera):
        raise DataError(f"{where}: camera {camera[:40]!r}, expected a number")
    return Record(
        row["path"],
        (row.get("person") or "").strip(),
        int(camera) if camera else None,
        parse_time(time, where=where) if time else None,
    )


def add_images(
    gallery: Gallery,
    embedder: Embedder,
    records: Sequence[Record],
    settings: ExtractionSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Embeds the images whose paths are not in the gallery yet and adds them, `STEP` at a time.

    Returns:
        the number of new records.
    Raises:
        DataError: an image cannot be read; those before it are in the gallery.
    """
    known = gallery.known(record.path for record in records)
    new = [record for record in records if record.path not in known]
    added = 0
    for start in range(0, len(new), STEP):
        part = new[start : start + STEP]

        def report(done: int, total: int, start: int = start) -> None:
            if on_progress is not None:
                on_progress(start + done, len(new))

        files = [[Path(record.path)] for record in part]
        features = extract_images(embedder, files, settings, on_progress=report)
        added += gallery.add(features.features, part)
    return added
