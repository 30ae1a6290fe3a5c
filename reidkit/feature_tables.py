"""Features as tables for other tools: CSV and Parquet."""

# N images or tracklets, D embedding

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit.errors import RuntimeMissing
from reidkit.types import ROLES

if TYPE_CHECKING:
    from reidkit.features import Features

COLUMNS = ("path", "pid", "camid", "role")
"""Followed by f0 ... f<D-1> in CSV, and by the list `features` in Parquet."""


def write_csv(path: Path, features: Features) -> None:
    """Writes N rows of COLUMNS and f0 ... f<D-1>; roles by name."""
    D = features.features.shape[1]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *(f"f{k}" for k in range(D))])
        for path_, pid, camid, role, row in zip(
            features.paths,
            features.pids.tolist(),
            features.camids.tolist(),
            features.roles.tolist(),
            features.features,
            strict=True,
        ):
            # nine significant digits give every float32 back
            values = [f"{value:.9g}" for value in row.tolist()]
            writer.writerow([path_, pid, camid, ROLES[role], *values])


def is_csv(path: Path) -> bool:
    """Whether a file begins as `write_csv` does."""
    with path.open("rb") as file:
        return file.readline(1024).startswith(",".join((*COLUMNS, "f0")).encode())


def write_parquet(path: Path, features: Features) -> None:
    """Writes N rows of COLUMNS and `features`, a list of D float32; the attributes are JSON in the
    schema's metadata.

    Raises:
        RuntimeMissing: pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow(path)
    values = pyarrow.array(features.features.reshape(-1))
    table = pyarrow.table(
        {
            "path": list(features.paths),
            "pid": features.pids,
            "camid": features.camids,
            "role": [ROLES[role] for role in features.roles],
            "features": pyarrow.FixedSizeListArray.from_arrays(values, features.features.shape[1]),
        }
    )
    table = table.replace_schema_metadata({"reidkit": json.dumps(features.stored_attributes())})
    parquet.write_table(table, path)


def is_parquet(path: Path) -> bool:
    """Whether a file is a Parquet file with a column `features`.

    Raises:
        RuntimeMissing: pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow(path)
    try:
        return "features" in parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError):
        return False


def import_pyarrow(path: Path) -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        RuntimeMissing: that `path` needs them.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise RuntimeMissing(
            f"{path} needs the pyarrow package. Install it: pip install 'reidkit[parquet]'"
        ) from error
    return pyarrow, parquet
