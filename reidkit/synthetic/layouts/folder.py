"""What all layouts share: a folder that is complete or not there, and its manifest."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from reidkit.config.tables import to_toml
from reidkit.errors import DataError
from reidkit.synthetic.drawing import Progress

PARTIAL = "synth.partial"
MANIFEST = "manifest.toml"


class Writer(Protocol):
    """Draws a data set into `root`, which must be empty or absent.

    Raises:
        DataError: if `root` is not empty, the numbers are impossible or a file cannot be written.
    """

    def __call__(
        self,
        root: Path,
        *,
        train_pids: int,
        test_pids: int,
        seed: int,
        on_progress: Progress | None = None,
        workers: int | None = None,
    ) -> None: ...


@contextlib.contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """A folder inside `root` to write to; when all went well, its content moves up into `root`,
    the manifest last. After an error it is removed; after a kill, the next run removes it.

    Raises:
        DataError: if `root` is not empty, or cannot be written.
    """
    partial = root / PARTIAL
    try:
        if root.exists() and not root.is_dir():
            raise DataError(f"{root}: a file; expected a new or empty folder. Name another one.")
        strangers = (
            sorted(p.name for p in root.iterdir() if p.name != PARTIAL) if root.is_dir() else []
        )
        if strangers:
            raise DataError(
                f"{root}: not empty (it holds {strangers[0]}). "
                "Name a new folder, or remove this one first."
            )
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for item in sorted(
                partial.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)
            ):
                item.replace(root / item.name)
            partial.rmdir()
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot write: {error.strerror or error}. "
            "Make room or choose another folder, then repeat the command."
        ) from error


def write_manifest(
    folder: Path, *, layout: str, title: str, seed: int, settings: Mapping[str, Any]
) -> None:
    """Writes `manifest.toml`, the same schema as data_manifests/*.toml, flushed to disk.

    `settings` is the rest of it: reader, protocol, cameras, splits and so on.
    """
    table = {
        "format": 1,
        "name": f"synth-{layout}",
        "title": f"reidkit's synthetic {title}",
        "synthetic": True,
        "seed": seed,
        "home": "reidkit datasets synth",
        "licence": "CC0-1.0",
        **settings,
    }
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# Drawn by `reidkit datasets synth --layout {layout}`; the counts are those")
        file.write(" written.\n" + to_toml(table))
        file.flush()
        os.fsync(file.fileno())


def check_numbers(*, train_pids: int, test_pids: int, seed: int, most: int) -> None:
    """Refuses numbers that a layout cannot hold.

    Raises:
        DataError: says what was expected.
    """
    if train_pids < 1 or test_pids < 1 or train_pids + test_pids > most:
        raise DataError(
            f"{train_pids} training and {test_pids} test ids: expected at least one of each and at "
            f"most {most} together."
        )
    if seed < 0:
        raise DataError(f"seed {seed}: expected 0 or more.")
