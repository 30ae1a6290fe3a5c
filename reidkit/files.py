"""Atomic writes, locks and digests of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from reidkit.errors import ReidkitError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields `<path>.partial` to write to; on success it is synced to disk and renamed to `path`,
    on failure removed.

    Raises:
        ReidkitError: if the disk is full or the folder cannot be written to.
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
        with contextlib.suppress(OSError):  # the folder may be a file
            partial.unlink(missing_ok=True)
        raise ReidkitError(f"cannot write {path}: {os_error_text(error)}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields the new folder `<path>.partial` to fill; on success it becomes `path`, which must be
    absent or empty, and on failure it is removed, as is one that a killed process has left.

    Raises:
        ReidkitError: if the disk is full or the folder cannot be written to.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.is_dir():
            path.rmdir()
        partial.replace(path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ReidkitError(f"cannot write {path}: {os_error_text(error)}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Locks an existing file or folder against other processes that lock it, too. Windows has no
    such locks; nothing is locked there.

    Raises:
        ReidkitError: if another process holds the lock.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ReidkitError(
                f"another process is writing to {path}. Wait for it, or choose another -o"
            ) from error
        yield
    finally:
        os.close(descriptor)


def os_error_text(error: OSError) -> str:
    """The cause in a few words, also from HDF5's long error texts."""
    if error.strerror:
        return error.strerror
    found = re.search(r"error message = '([^']+)'", str(error))
    return found[1] if found else str(error).splitlines()[0]


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
