"""What all layouts share: a folder that is complete or not there, and its manifest."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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


@dataclass(frozen=True)
class SplitCounts:
    """What was written into one split; `images` counts every file, `ids` persons only."""

    folder: str
    images: int
    ids: int
    junk: int = 0
    distractors: int = 0


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
    folder: Path,
    *,
    layout: str,
    title: str,
    seed: int,
    cameras: int,
    pattern: str,
    roles: dict[str, str],
    splits: dict[str, SplitCounts],
) -> None:
    """Writes `manifest.toml`, the same schema as data_manifests/*.toml, flushed to disk."""
    lines = [
        f"# Drawn by `reidkit datasets synth --layout {layout}`. The counts are those written.",
        "format = 1",
        f'name = "synth-{layout}"',
        f'title = "{title}"',
        "synthetic = true",
        f"seed = {seed}",
        'home = "reidkit datasets synth"',
        'licence = "CC0-1.0"',
        'reader = "pattern"',
        'protocol = "market"',
        f"cameras = {cameras}",
        f"pattern = '{pattern}'",
        'labels = "labels"            # 20-label LIP maps, mirrored paths, .png',
        "",
        "[roles]                      # pid as written -> role",
        *(f'"{pid}" = "{role}"' for pid, role in roles.items()),
    ]
    for name, counts in splits.items():
        lines += ["", f"[splits.{name}]", f'folder = "{counts.folder}"']
        lines += [f"images = {counts.images}", f"ids = {counts.ids}"]
        if counts.junk or counts.distractors:
            lines += [f"junk = {counts.junk}", f"distractors = {counts.distractors}"]
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
