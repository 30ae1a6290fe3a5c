"""Atomic writes, locks and digests of files, and which kinds of file are read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial as bind
from pathlib import Path

from reidkit.errors import ReidkitError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

LOCK_SECONDS = 10.0
"""That `atomic` waits for another process that writes the same file."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of file systems that cannot lock; nothing is locked there, as on Windows."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


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


def user_path(path: str | Path) -> Path:
    """A path that a user passes to the library, with ~ expanded, as a shell does."""
    return Path(path).expanduser()


def printable(text: str) -> str:
    """Text for a terminal, a message or a picture: control characters and others that cannot be
    shown, which a file name may contain, as \\x0a."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields `<path>.partial` to write to; on success it is synced to disk and renamed to `path`,
    on failure removed.

    What a killed process has left there is overwritten. Of two processes that write `path`, the
    second waits up to `LOCK_SECONDS` for the first.

    Raises:
        ReidkitError: if the disk is full, the folder cannot be written to, another process is
            writing the file, or `path` is not a regular file: a device would be replaced by one.
    """
    partial = path.with_name(path.name + ".partial")
    for file in (path, partial):
        check_regular(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(partial, path, wait=LOCK_SECONDS) as is_own:
            try:
                yield partial
                descriptor = os.open(partial, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                partial.replace(path)
                _sync_folder(path.parent)
            except BaseException:
                with contextlib.suppress(OSError):  # on a disk that has become read-only
                    if is_own():
                        partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise write_error(path, error) from error


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder outlast a power cut, where folders can be synced."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # such as of a folder that may be written but not read
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields the new folder `<path>.partial` to fill; on success it becomes `path`, which must be
    absent or empty, and on failure it is removed, as is one that a killed process has left.

    Raises:
        ReidkitError: if the disk is full, the folder cannot be written to, or another process is
            writing it; or if it is the current folder or a mount point, which cannot be replaced.
    """
    if path.is_dir() and (path.samefile(Path.cwd()) or path.resolve().is_mount()):
        kind = "the current folder" if path.samefile(Path.cwd()) else "a mount point"
        raise ReidkitError(f"{path} is {kind}, expected a new folder: {path / 'NAME'}")
    partial = path.with_name(path.name + ".partial")
    try:
        with temporary_folder(partial, path):
            yield partial
            if path.is_dir():
                path.rmdir()
            partial.replace(path)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def temporary_folder(folder: Path, target: Path) -> Iterator[None]:
    """Within, `folder` exists, empty at first, and is this process's own; afterwards it is removed,
    unless it was renamed.

    Args:
        target: what is written by its means, for the message.
    Raises:
        ReidkitError: if another process uses it.
        OSError: if it cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, target, wait=0.0) as is_own:
        try:
            for path in folder.iterdir():  # left by a process that was killed
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            yield
        finally:
            if is_own():
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, target: Path, *, wait: float) -> Iterator[Callable[[], bool]]:
    """Locks a temporary file, which is created, or an existing folder. Yields a function that says
    whether `path` is still the one that was locked."""
    deadline = time.monotonic() + wait
    flags = os.O_RDONLY if path.is_dir() or sys.platform == "win32" else os.O_RDWR | os.O_CREAT
    while sys.platform != "win32":
        with _opened(path, flags) as descriptor:
            locked = _lock(descriptor)
            if locked and _is_at(descriptor, path):
                yield bind(_is_at, descriptor, path)
                return
        if not locked and time.monotonic() >= deadline:
            raise ReidkitError(f"another process is writing {target}. Wait for it to end")
        time.sleep(0.02)
    yield path.exists


_opened_descriptors: set[int] = set()


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of a file to lock. Forked processes close their copies: a data loading process
    would hold the lock for some seconds after this process was killed."""
    descriptor = os.open(path, flags, 0o666)
    _opened_descriptors.add(descriptor)
    try:
        yield descriptor
    finally:
        if descriptor in _opened_descriptors:  # in a forked process it may be another file
            _opened_descriptors.remove(descriptor)
            os.close(descriptor)


def _close_copies() -> None:
    while _opened_descriptors:
        os.close(_opened_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at `path`, which another process may have renamed."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    """Locks an open file or folder until it is closed; False: another process has locked it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Locks an existing file or folder against other processes that lock it, too. Windows and some
    network file systems have no such locks; nothing is locked there.

    Raises:
        ReidkitError: if another process holds the lock.
    """
    if sys.platform == "win32":
        yield
        return
    with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:  # a pipe would block
        if not _lock(descriptor):
            raise ReidkitError(
                f"another process is writing to {path}. Wait for it, or choose another folder"
            )
        yield


def write_error(path: Path, error: OSError) -> ReidkitError:
    """What a failed write of `path` is reported by: file, cause and what to do."""
    advice = "Run the same command again"
    if error.errno in _FULL or "No space left" in str(error):
        advice = "Free some space, and run the same command again"
    elif error.errno in _NOT_WRITABLE:
        advice = "Choose another place to write to, or change its permissions"
    return ReidkitError(f"cannot write {path}: {os_error_text(error)}. {advice}")


def os_error_text(error: OSError) -> str:
    """The cause in a few words, also from HDF5's long error texts."""
    found = re.search(r"error message = '([^']+)'", str(error))
    if found:
        return found[1]
    return (error.strerror or str(error)).partition("\n")[0]


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes.

    Raises:
        ReidkitError: as `check_regular`.
    """
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
