"""Files appear under their final name only when they are complete; writers exclude each other."""

import errno
import fcntl
import os
import signal
import time
import warnings
from pathlib import Path

import pytest

from reidkit import files
from reidkit.errors import ReidkitError
from reidkit.files import (
    atomic,
    atomic_folder,
    exclusive_lock,
    os_error_text,
    temporary_folder,
    write_error,
)


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic(target) as partial:
        partial.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic(target) as partial:
        partial.write_text("new")
        raise KeyError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ReidkitError, match=r"cannot write .*file\.txt: No space left on device"),
        atomic(tmp_path / "file.txt") as partial,
    ):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "file"])
def test_a_folder_or_file_is_locked_by_one_process_at_a_time(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.mkdir() if name == "folder" else target.touch()
    with (
        exclusive_lock(target),
        pytest.raises(ReidkitError, match=f"another process is writing to {target}"),
        exclusive_lock(target),
    ):
        pytest.fail("locked twice")
    with exclusive_lock(target):
        assert list(tmp_path.iterdir()) == [target]  # there is no lock file


def test_a_folder_that_cannot_be_read_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def open_(path: Path, *arguments: int) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", open_)
    with atomic(tmp_path / "file.txt") as partial:
        partial.write_text("whole")
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_a_forked_process_does_not_keep_a_lock(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12, of forks with threads
        with exclusive_lock(tmp_path):
            receiver, sender = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(sender, b"x")
                time.sleep(60)
                os._exit(0)
            os.read(receiver, 1)
            os.close(receiver)
            os.close(sender)
    try:
        with exclusive_lock(tmp_path):  # the child's data loading goes on, its parent has ended
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_cause_is_found_in_the_text_of_hdf5() -> None:
    text = (
        "Can't write data (file write failed: time = x, error message = 'No space left', buf = y)"
    )
    assert os_error_text(OSError(text)) == "No space left"
    assert os_error_text(OSError(errno.ENOSPC, text)) == "No space left"
    assert os_error_text(OSError(errno.EACCES, "Permission denied")) == "Permission denied"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ReidkitError, match="cannot write"), atomic(tmp_path / "file/model.onnx"):
        pass


def test_of_two_writers_of_a_file_the_second_is_refused_by_name_while_the_first_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    target = tmp_path / "features.h5"
    with atomic(target) as partial:
        partial.write_text("first")
        with (
            pytest.raises(ReidkitError, match=f"another process is writing {target}"),
            atomic(target),
        ):
            pytest.fail("both write")
        assert partial.read_text() == "first"
    assert target.read_text() == "first"
    with atomic(target) as partial:
        partial.write_text("second")
    assert target.read_text() == "second"


def test_the_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    with atomic(target) as partial:
        child = os.fork()
        if child == 0:
            with atomic(target) as own:
                own.write_text(f"{target.read_text()}, second")
            os._exit(0)
        partial.write_text("first")
    assert os.waitpid(child, 0)[1] == 0
    assert target.read_text() == "first, second"


def test_what_a_killed_process_has_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file.txt.partial").write_text("left over and longer")
    with atomic(tmp_path / "file.txt") as partial:
        partial.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_file_system_without_locks_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive_lock(tmp_path), atomic(tmp_path / "file.txt") as partial:
        partial.write_text("whole")
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_a_temporary_folder_is_used_by_one_process_and_empty_at_first(tmp_path: Path) -> None:
    folder, target = tmp_path / "data.partial", tmp_path / "data"
    (folder / "left").mkdir(parents=True)
    with temporary_folder(folder, target):
        assert list(folder.iterdir()) == []
        with (
            pytest.raises(ReidkitError, match=f"another process is writing {target}"),
            temporary_folder(folder, target),
        ):
            pytest.fail("both write")
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_replaced_is_refused_before_it_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReidkitError, match="is the current folder"), atomic_folder(Path()):
        pytest.fail("filled")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space, and run the same command again"),
        (errno.EROFS, "Choose another place to write to"),
        (errno.ESTALE, "Run the same command again"),
    ],
)
def test_a_failed_write_says_what_to_do(number: int, advice: str) -> None:
    message = str(write_error(Path("out/a.h5"), OSError(number, os.strerror(number))))
    assert message.startswith(f"cannot write out/a.h5: {os.strerror(number)}. {advice}")
