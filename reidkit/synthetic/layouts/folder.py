"""Shared by all layouts: their arguments, a folder that is complete or absent, and its manifest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reidkit.config.tables import to_toml
from reidkit.errors import DataError
from reidkit.files import atomic_folder
from reidkit.synthetic.visits import Progress

MANIFEST = "manifest.toml"


@dataclass(frozen=True)
class SyntheticConfig:
    """Size and seed of a synthetic data set.

    Attributes:
        train_pids, test_pids: number of training and of test identities.
        seed: of everything that is sampled.
    """

    train_pids: int
    test_pids: int
    seed: int

    def check(self, *, max_pids: int) -> None:
        """Raises DataError if these values are not possible with `max_pids` identities in all."""
        train, test = self.train_pids, self.test_pids
        if train < 1 or test < 1 or train + test > max_pids:
            raise DataError(
                f"found {train} training and {test} test ids, expected at least one of each and at "
                f"most {max_pids} together"
            )
        if self.seed < 0:
            raise DataError(f"found seed {self.seed}, expected 0 or more")


class Writer(Protocol):
    """Writes a synthetic data set to `root`, a new or empty folder.

    Args:
        train_pids, test_pids: number of training and of test identities.
        seed: equal seeds give equal files, with any number of workers.
        on_progress: called with (images written, total).
        workers: number of processes; None chooses by the number of images and cores.
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
    """A temporary folder that becomes `root` at the end.

    It is removed after an error, and by the next run if this process is killed.

    Raises:
        DataError: if `root` is not empty.
        ReidkitError: if it cannot be written.
    """
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file, expected a new or empty folder")
    others = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    if others:
        raise DataError(f"{root} is not empty (found {others[0]}), expected a new or empty folder")
    with atomic_folder(root) as partial:
        yield partial


def write_manifest(
    folder: Path, *, layout: str, title: str, seed: int, settings: Mapping[str, Any]
) -> None:
    """Writes `manifest.toml`, flushed to disk, in the schema of data_manifests/*.toml.

    Args:
        settings: reader, protocol, cameras, splits and other keys of the layout.
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
        file.write(f"# Written by `reidkit datasets synth --layout {layout}`, with its counts.\n")
        file.write(to_toml(table))
        file.flush()
        os.fsync(file.fileno())
