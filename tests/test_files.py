"""What has a final name is whole."""

import errno
from pathlib import Path

import pytest

from reidkit.errors import ReidkitError
from reidkit.files import atomic, only_writer, reason


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
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


def test_a_folder_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path),
        pytest.raises(ReidkitError, match="another process is writing"),
        only_writer(tmp_path),
    ):
        pytest.fail("a second writer got in")
    with only_writer(tmp_path):
        assert list(tmp_path.iterdir()) == []  # no lock file is left


def test_the_reason_is_found_in_the_text_of_hdf5() -> None:
    text = (
        "Can't write data (file write failed: time = x, error message = 'No space left', buf = y)"
    )
    assert reason(OSError(text)) == "No space left"
    assert reason(OSError(errno.EACCES, "Permission denied")) == "Permission denied"
