"""Safe extraction of published archives into the folders that manifests name.

An archive is extracted into a folder called `<archive>.partial`, whose content is moved to its
place when all files are whole: after a kill, no half-written image passes for a whole one.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from reidkit.data.manifest import MANIFEST, MAX_NAME, find_root
from reidkit.data.readers.cuhk03 import TESTSETS
from reidkit.data.schema import Manifest
from reidkit.errors import DataError
from reidkit.files import check_regular, temporary_folder, write_error

MAX_ENTRIES = 5_000_000
"""Members of an archive; MARS has 1.2 million images."""
MAX_BYTES = 1 << 38
"""Bytes of all members of an archive: 256 GiB."""
MAX_RATIO = 100
"""Bytes of all members over the archive's, beyond 1 GiB. Images hardly compress."""
MAX_DEPTH = 4
"""Folders in an archive that may contain the data set's."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Unpacked:
    """Numbers of files of an archive: those that were written, and those that were there before."""

    written: int
    present: int


def unpack_archive(
    archive: Path, manifest: Manifest, data_root: Path, *, on_progress: Progress
) -> Unpacked:
    """Extracts an archive of a data set, or copies a single file of it, to where it is looked for.

    An archive with one of the manifest's `folders` in it is extracted as it is. The content of
    another, such as MARS's bbox_train.zip, is put into the data set's folder. Files that exist
    there already with the same size are neither extracted nor changed, so a repetition completes an
    interruption.

    Args:
        data_root: the folder of data sets.
    Raises:
        DataError: as `extract_archive`; the archive is of another data set, or files would be
            overwritten. Nothing is changed then.
    """
    if archive.is_dir():
        place = data_root / _default_folder(manifest, {archive.name}) / archive.name
        raise DataError(f"{archive} is a folder, expected an archive. Move it to {place}")
    work = data_root / f"{archive.name}.partial"
    try:
        with temporary_folder(work, target=work.with_suffix("")):
            return _unpack(archive, work, manifest, data_root, on_progress=on_progress)
    except OSError as error:
        raise write_error(Path(error.filename or data_root), error) from error


def _unpack(
    archive: Path, work: Path, manifest: Manifest, data_root: Path, *, on_progress: Progress
) -> Unpacked:
    """As `unpack_archive`, by means of the empty folder `work`."""
    if archive.name in members(manifest) and archive.is_file():
        return _copy_file(archive, work, manifest, data_root, on_progress=on_progress)
    with _open_archive(archive) as entries:
        files = _checked(archive, work, entries)
        source, target = _place(archive, [entry.name for entry in files], manifest, data_root)
        inside = [entry for entry in files if entry.is_in(source)]
        missing = [
            entry
            for entry in inside
            if _is_missing(
                target / PurePosixPath(entry.name).relative_to(source), entry.size, archive
            )
        ]
        present = len(inside) - len(missing)
        _extract(archive, work, missing, on_progress=partial(_shifted, on_progress, present))
    if missing:
        _merge(work / source, target)
    return Unpacked(len(missing), present)


def _shifted(on_progress: Progress, present: int, done: int, total: int) -> None:
    on_progress(present + done, present + total)


def _copy_file(
    file: Path, work: Path, manifest: Manifest, data_root: Path, *, on_progress: Progress
) -> Unpacked:
    """Puts one of the data set's own files, such as cuhk-03.mat, into its folder."""
    _, target = _place(file, [file.name], manifest, data_root)
    missing = _is_missing(target / file.name, file.stat().st_size, file)
    if missing:
        shutil.copyfile(file, work / file.name)
        _merge(work, target)
    on_progress(1, 1)
    return Unpacked(int(missing), int(not missing))


def _is_missing(path: Path, size: int, archive: Path) -> bool:
    """Whether there is no file at `path`.

    Raises:
        DataError: there is something else than a file of `size` bytes, or a file in place of one of
            its folders.
    """
    blocked = next((folder for folder in path.parents if folder.is_file()), None)
    if blocked is None and not path.exists():
        return True
    if blocked is None and path.is_file() and path.stat().st_size == size:
        return False
    raise DataError(
        f"{blocked or path} exists and differs from the file in {archive}. Nothing was changed; "
        "remove it, or choose another --data-root"
    )


def members(manifest: Manifest) -> list[str]:
    """Names of the files and folders that a data set's folder contains, by its manifest."""
    splits = manifest.splits.values()
    paths = [split.folder for split in splits if split.folder != "."]
    paths += [folder for folders in manifest.variants.values() for folder in folders.values()]
    paths += [path for split in splits for path in (*split.lists, *split.distractors_in)]
    paths += [*manifest.marks, MANIFEST]
    if manifest.reader == "mars":
        paths += ["info"]
    if manifest.reader == "cuhk03":
        paths += ["cuhk-03.mat", TESTSETS, protocol_file(manifest)]
    return [*dict.fromkeys(path.partition("/")[0] for path in paths)]


def protocol_file(manifest: Manifest) -> str:
    """Name of the .mat file of CUHK03's new protocol."""
    return f"cuhk03_new_protocol_config_{manifest.boxes}.mat"


def _place(
    archive: Path, files: Sequence[str], manifest: Manifest, data_root: Path
) -> tuple[PurePosixPath, Path]:
    """(folder in the archive whose content is needed, folder that it belongs into)."""
    names = members(manifest)
    paths = [PurePosixPath(file) for file in files]
    content: dict[PurePosixPath, set[str]] = {}  # folder -> names of what is in it
    for path in paths:
        for depth, name in enumerate(path.parts[: MAX_DEPTH + 1]):
            content.setdefault(PurePosixPath(*path.parts[:depth]), set()).add(name)
    top = PurePosixPath()
    if any(content.get(top / published, set()) & set(names) for published in manifest.folders):
        return top, data_root
    for folder in sorted(content, key=lambda folder: (len(folder.parts), folder)):
        present = content[folder] & set(names)
        if present:
            return folder, _existing_folder(manifest, data_root) or (
                data_root / _default_folder(manifest, present)
            )
    found = ", ".join(sorted(content.get(top, set()))[:5]) or "nothing"
    raise DataError(
        f"{archive} contains {found}; expected {', '.join(names[:6])} of {manifest.name}. "
        "Is it an archive of another data set?"
    )


def _existing_folder(manifest: Manifest, data_root: Path) -> Path | None:
    try:
        return find_root(manifest, data_root)
    except DataError:
        return None


def _default_folder(manifest: Manifest, present: set[str]) -> str:
    folders = manifest.folders or (manifest.name,)
    if manifest.reader == "cuhk03" and "bounding_box_train" not in present:
        return next(folder for folder in folders if folder.endswith("release"))
    return folders[0]


def _merge(source: Path, target: Path) -> None:
    """Moves what `target` lacks."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    elif source.is_dir():
        for path in sorted(source.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
            _merge(path, target / path.name)


@dataclass(frozen=True)
class _Entry:
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]

    def is_in(self, folder: PurePosixPath) -> bool:
        return PurePosixPath(self.name).is_relative_to(folder)


def extract_archive(archive: Path, target: Path, *, on_progress: Progress) -> None:
    """Extracts the files of a zip or tar file into `target`, an existing folder.

    Raises:
        DataError: before anything is written, if a member points outside `target`, is a link or a
            device, or occurs twice; if there are more members or bytes than a data set has, or than
            the disk has room for; or if the file is missing, damaged or not an archive.
    """
    target.mkdir(parents=True, exist_ok=True)
    with _open_archive(archive) as entries:
        files = _checked(archive, target, entries)
        _extract(archive, target, files, on_progress=on_progress)


def _extract(
    archive: Path, target: Path, files: Sequence[_Entry], *, on_progress: Progress
) -> None:
    on_progress(0, len(files))
    for done, entry in enumerate(files, start=1):
        path = target / PurePosixPath(entry.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = entry.open()
        assert stream is not None  # a file, as checked
        try:
            with stream, path.open("xb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
        except FileExistsError:
            raise
        except OSError as error:  # that of a full disk does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from error
        if path.stat().st_size != entry.size:
            raise DataError(f"{archive} is damaged: {entry.name} ends early")
        on_progress(done, len(files))


@contextmanager
def _open_archive(archive: Path) -> Iterator[Iterator[_Entry | str]]:
    """Yields the members as `_entries` does; errors of the formats become DataErrors."""
    check_regular(archive, DataError)
    if not archive.is_file():
        raise DataError(f"no such archive: {archive}")
    try:
        with _entries(archive) as entries:
            yield entries
    except (
        *(zipfile.BadZipFile, tarfile.TarError, EOFError, LookupError, struct.error),
        *(zlib.error, lzma.LZMAError, gzip.BadGzipFile, UnicodeDecodeError),
    ) as error:
        raise DataError(f"{archive} is damaged: {error}. Download it again") from error
    except (RuntimeError, NotImplementedError) as error:  # an encrypted member of a zip file
        raise DataError(f"{archive}: {error}. Unpack it with another program") from error
    except FileExistsError as error:
        raise DataError(f"{archive}: two members are {error.filename} on this disk") from error
    except OSError as error:
        if error.filename is not None:
            raise  # of the disk; those of the decompressors have no file
        raise DataError(f"{archive} is damaged: {error}. Download it again") from error


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[_Entry | str]]:
    """Yields the members, one by one: files, and names of what is neither file nor folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_entries(zipped)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            yield _tar_entries(tar)
    else:
        raise DataError(f"{archive} is not a zip or tar file")


def _zip_entries(zipped: zipfile.ZipFile) -> Iterator[_Entry | str]:
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield info.filename
        elif not info.is_dir():
            yield _Entry(info.filename, info.file_size, partial(zipped.open, info))


def _tar_entries(tar: tarfile.TarFile) -> Iterator[_Entry | str]:
    for member in tar:
        if member.issparse() or not (member.isfile() or member.isdir()):
            yield member.name
        elif member.isfile():
            yield _Entry(member.name, member.size, partial(tar.extractfile, member))


def _checked(archive: Path, target: Path, entries: Iterator[_Entry | str]) -> list[_Entry]:
    """The files to extract; those that macOS adds (__MACOSX) are left out."""
    files: dict[PurePosixPath, _Entry] = {}
    total = 0
    packed = archive.stat().st_size
    for entry in entries:
        name = entry if isinstance(entry, str) else entry.name
        path = PurePosixPath(name.replace("\\", "/"))
        refusal = ""
        parts = path.parts
        if not parts or path.is_absolute() or ".." in parts or ":" in parts[0] or "\0" in name:
            refusal = f"points outside {target}"
        elif any(len(part.encode("utf-8", "replace")) > MAX_NAME for part in parts):
            refusal = f"has a name of more than {MAX_NAME} bytes"
        elif isinstance(entry, str):
            refusal = f"is a link or a device, not a file under {target}"
        elif path in files:
            refusal = "occurs twice"
        if refusal or isinstance(entry, str):
            raise DataError(
                f"{archive}: its member {name!r} {refusal}. Nothing was unpacked; do not trust "
                "this archive"
            )
        if parts[0] != "__MACOSX":
            files[path] = _Entry(path.as_posix(), entry.size, entry.open)
        total += entry.size
        if len(files) > MAX_ENTRIES or total > min(MAX_BYTES, (1 << 30) + MAX_RATIO * packed):
            raise DataError(
                f"{archive}: {len(files):,} files of {total:,} bytes or more in an archive of "
                f"{packed:,} bytes. Nothing was unpacked; do not trust this archive"
            )
    clash = next((path for path in files for parent in path.parents if parent in files), None)
    if clash is not None:
        raise DataError(f"{archive}: {clash} is in a file, not in a folder. Nothing was unpacked")
    free = shutil.disk_usage(target).free
    if total > free:
        raise DataError(
            f"{archive} needs {total:,} bytes, and {target} has {free:,} free. Free disk space or "
            "choose another --data-root"
        )
    return list(files.values())
