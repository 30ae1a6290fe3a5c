"""Atomic writes, locks and digests of files, and which kinds of file are read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from reidkit.errors import ReidkitError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path, error: type[ReidkitError] = ReidkitError) -> None:
    """Passes for a regular file, also behind symbolic links, and for one that does not exist or
    cannot be examined, about which the reader says more. Readers call it before they open a file:
    reading from a pipe, a socket or a device may never end.

    Raises:
        ReidkitError: of the type `error`, if it is a folder, a pipe, a socket or a device.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):  # ValueError: a null character in the path
        return
    if kind != stat.S_IFREG:
        advice = "" if kind == stat.S_IFDIR else ". Save its contents in a file first"
        raise error(f"{path} is {_KINDS.get(kind, 'a special file')}, expected a file{advice}")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields `<path>.partial` to write to; on success it is synced to disk and renamed to `path`,
    on failure removed.

    Raises:
        ReidkitError: if the disk is full or the folder cannot be written to, or if `path` is not a
            regular file: a device would be replaced by one.
    """
    partial = path.with_name(path.name + ".partial")
    for file in (path, partial):
        check_regular(file)
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

    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would block
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
    """Hexadecimal digest of a file's bytes.

    Raises:
        ReidkitError: as `check_regular`.
    """
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
