"""Progress where stderr is no terminal: lines with rate and time left."""

import pytest

from reidkit.cli import output


def test_a_long_run_prints_rate_and_time_left_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    with output.progress("preparing masks") as on_progress:
        on_progress(100, 1000)  # a resumed run: these took no time
        for clock[0], done in ((10.0, 120), (31.0, 162), (40.0, 180), (62.0, 224)):
            on_progress(done, 1000)
        on_progress(1000, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "preparing masks: 162 of 1000, 2/s, 0:06:59 left",
        "preparing masks: 224 of 1000, 2/s, 0:06:28 left",
        "preparing masks: 1000 of 1000",
    ]


def test_a_short_run_prints_one_line(capsys: pytest.CaptureFixture[str]):
    with output.progress("preparing masks") as on_progress:
        for done in range(4):
            on_progress(done, 3)
    assert capsys.readouterr().err == "preparing masks: 3 of 3\n"
