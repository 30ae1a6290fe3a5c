"""Commands without a model take the newest run, unless the clock was set back; a model is known to
be of other data."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from reidkit import checkpoint
from reidkit.cli.runs import find_model, newest_run, warn_if_data_changed
from reidkit.errors import ConfigError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs; "b" is the newer one."""
    monkeypatch.chdir(tmp_path)
    for name, age in (("a", 200), ("b", 100)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        date = time.time() - age
        for file in ("config.toml", "model.safetensors"):
            (folder / file).touch()
            os.utime(folder / file, (date, date))
        os.utime(folder, (date, date))
    return tmp_path / "runs"


def test_the_newest_run_is_the_one_written_last(runs: Path) -> None:
    assert newest_run() == Path("runs/b")
    assert find_model(None) == Path("runs/b/model.safetensors")


def test_after_the_clock_was_set_back_the_run_must_be_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: before)
    with pytest.raises(ConfigError, match=r"runs/b is dated .* later than now.* -o FOLDER"):
        newest_run()
    with pytest.raises(ConfigError, match=r"runs/b/model\.safetensors is dated .* Pass the"):
        find_model(None)


def test_a_single_run_is_the_newest_by_any_clock(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (runs / "a").iterdir():
        file.unlink()
    before = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: before)
    assert newest_run() == Path("runs/b")


def test_data_that_have_changed_since_the_training_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    header = SimpleNamespace(dataset="market1501", fingerprint="then")
    monkeypatch.setattr(checkpoint, "read_header", lambda path: header)
    model = Path("runs/a/model.safetensors")
    with caplog.at_level(logging.WARNING):
        warn_if_data_changed(model, "market1501", "then")
        warn_if_data_changed(model, "msmt17", "other")
        assert caplog.text == ""
        warn_if_data_changed(model, "market1501", "now")
    assert f"market1501 has other images or labels than when {model} was trained" in caplog.text
