"""Files appear under their final name only when they are complete; writers exclude each other."""

import errno
from pathlib import Path

import pytest

from reidkit.errors import ReidkitError
from reidkit.files import atomic, exclusive_lock, os_error_text


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


def test_the_cause_is_found_in_the_text_of_hdf5() -> None:
    text = (
        "Can't write data (file write failed: time = x, error message = 'No space left', buf = y)"
    )
    assert os_error_text(OSError(text)) == "No space left"
    assert os_error_text(OSError(errno.EACCES, "Permission denied")) == "Permission denied"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ReidkitError, match="cannot write"), atomic(tmp_path / "file/model.onnx"):
        pass
