"""Writing files so that whatever has a final name is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from reidkit.errors import ReidkitError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives `<path>.partial` to write to; on success it is synced to disk and renamed to `path`,
    on failure removed.

    Raises:
        ReidkitError: if the disk is full or the place cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ReidkitError(f"cannot write {path}: {reason(error)}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds a folder against other processes that would write to it; where the system has no such
    locks (Windows), nothing is held.

    Raises:
        ReidkitError: if another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ReidkitError(
            f"another process is writing to {folder}. Wait for it, or take another -o"
        ) from error
    finally:
        os.close(descriptor)


def reason(error: OSError) -> str:
    """What went wrong in a few words, out of HDF5's many, too."""
    if error.strerror:
        return error.strerror
    told = re.search(r"error message = '([^']+)'", str(error))
    return told[1] if told else str(error).splitlines()[0]


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
