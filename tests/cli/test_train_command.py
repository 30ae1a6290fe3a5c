"""`reidkit train`: resuming, checks before torch is imported, and what a terminal shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.cli.run_settings import scientific
from reidkit.training import search

Run = Callable[..., str]

TINY = [
    *("--set", "arch.backbone=resnet18", "--set", "arch.stages=[2]", "--size", "64x32"),
    *("--weights", "none", "--epochs", "1", "--batch", "16", "--workers", "0", "--device", "cpu"),
]
NO_PARTS = ["--set", "arch.part_supervision=false"]


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of a completed run."""
    return shutil.copytree(trained / "runs/one", tmp_path / "elsewhere/run")


def test_resume_takes_data_masks_and_device_from_the_run(finished: Path, run: Run) -> None:
    assert not (finished / "resume.pt").exists()
    run("train", "--resume", "-o", finished)  # complete: nothing to do
    run("train", "--resume", "-o", finished, "--epochs", "2", "--keep-resume")
    assert "epochs = 2" in (finished / "config.toml").read_text()
    assert "epoch 2/2" in (finished / "train.log").read_text()
    assert (finished / "resume.pt").exists()


def test_a_new_run_needs_a_data_set(refuse: Run) -> None:
    assert "no data set given: --dataset NAME" in refuse("train")


def test_a_run_stopped_before_its_first_resume_point_is_started_again(
    market: Path, tmp_path: Path, run: Run, refuse: Run
) -> None:
    command = [
        "train",
        "--arch",
        "baseline",
        "--dataset",
        market,
        "-o",
        "run",
        *TINY[:2],
        *TINY[4:],
    ]
    run(*command)
    assert "contains a run" in refuse(*command)
    for name in ("model.safetensors", "last.safetensors"):
        (tmp_path / "run" / name).unlink()
    message = refuse(*command, "--resume")
    restart = message[message.index("reidkit train --dataset") :]
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    run(*command)
    run(*shlex.split(restart.replace("run", "again"))[1:])  # the line works when it is pasted
    settings = [(tmp_path / name / "config.toml").read_text() for name in ("run", "again")]
    assert settings[0] == settings[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--dataset", "a", "--dataset", "b"],
        ["eval", "x", "--metric", "cosine", "--metric", "euclidean"],
        ["datasets", "verify", "x", "--data-root", "a", "--data-root", "b"],
        ["train", "--dataset", "a", "--dry-run", "--dry-run"],
    ],
)
def test_an_option_given_twice_is_refused(arguments: list[str], refuse: Run) -> None:
    assert "given more than once" in refuse(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--dataset", "nosuch"],
        ["train", "--dataset", "market1501"],
        ["train", "--resume"],
        ["eval", "nosuch.safetensors"],
        ["eval", "--dataset", "market1501"],
        ["extract", "nosuch.onnx", "--images", "x"],
        ["export", "nosuch", "--onnx"],
        ["compare", "a", "b"],
        ["prepare-masks", "--dataset", "nosuch"],
        ["attention", "nosuch", "--dataset", "market1501", "--masks", "masks.h5"],
        ["attention", "model.onnx", "--dataset", "market1501", "--masks", "nosuch.h5"],
        ["reproduce", "iaunet/table99", "--dataset", "market1501"],
        ["eval", "model.onnx", "--size", "128"],
        ["eval", "features.csv"],
        ["eval", "image.png"],
        ["eval", "--query-features", "features.csv", "--gallery-features", "features.csv"],
        ["models", "iaunett"],
        ["models", "iaunet", "--set", "arch.blocks=iau"],
        ["import", "weights.pth", "--from", "torchreid", "--arch", "resnet50", "-o", "x"],
        ["import", "nosuch.pth", "--from", "torchreid", "--arch", "baseline", "-o", "x"],
        ["attention", "model.onnx", "--dataset", "x", "--masks", "x", "--split", "all"],
    ],
)
def test_a_trivial_mistake_is_refused_before_torch_is_imported(
    arguments: list[str], tmp_path: Path
) -> None:
    for name in ("model.onnx", "features.csv", "image.png", "weights.pth"):
        (tmp_path / name).touch()
    refused_early(arguments, tmp_path)


def refused_early(arguments: list[str], folder: Path) -> str:
    """The message of a command that stops by status 2 without importing heavy packages."""
    code = (
        "import sys\nfrom reidkit.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit as stopped:\n    assert stopped.code == 2\n"
        "    assert not {'torch', 'onnxruntime', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "optim.learnrate=3"], "unknown key optim.learnrate. Did you mean optim.lr?"),
        (["--preset", "iaunett"], "unknown preset 'iaunett'. Did you mean iaunet?"),
        (["--config", "nosuch.toml"], "--config nosuch.toml: no such file"),
        (["--masks", "nosuch.h5"], "--masks nosuch.h5: no such file"),
        (["--size", "256"], "write HEIGHTxWIDTH"),
        (["--batch", "many"], "--batch many: write a number from 1, or auto"),
        (["--set", "schedule.epochs=ten"], "schedule.epochs"),
        (["--arch", "iaunett"], "unknown architecture 'iaunett'. Did you mean iaunet?"),
        (["--set", "arch.backbon=resnet18"], "iaunet has no option arch.backbon. Did you mean"),
        (["--lr", "-1"], "optim.lr must be positive, got -1.0"),
        (["--set", "seed=1", "--set", "seed=2"], "--set seed is given more than once"),
    ],
)
def test_a_wrong_setting_is_refused_before_torch_is_imported(
    market: Path, options: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused_early(["train", "--dataset", str(market), *options], tmp_path)


def test_a_terminal_of_80_columns_shows_epoch_step_time_and_loss(
    market: Path, tmp_path: Path
) -> None:
    host, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = ["--arch", "iaunet", "--dataset", market, *TINY, *NO_PARTS, "-o", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reidkit", "train", *map(str, arguments)],
        stderr=terminal,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(host, 65536)
        except OSError:  # the process has ended
            break
    assert process.wait() == 0
    lines = [
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)
        for line in re.split(r"[\r\n]+", shown.decode(errors="replace"))
    ]
    assert any(
        re.match(r"epoch 1/1 .* \d+/\d+ .*\d:\d\d:\d\d .*loss \d+\.\d{3}", line) for line in lines
    )
    assert "run: " in "".join(lines)  # log lines stand alone
    assert not any("0/?" in line for line in lines)


def test_resume_continues_a_run_as_it_is(finished: Path, refuse: Run) -> None:
    for option in (["--dry-run"], ["--find-lr"], ["--init", str(finished)]):
        message = refuse("train", "--resume", "-o", finished, *option)
        assert f"leave out {option[0]}" in message


def test_the_learning_rate_test_suggests_a_rate_and_plots_it(
    market: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, losses = [1e-5, 1e-4, 1e-3, 1e-2], [5.0, 4.9, 3.0, 2.5]
    monkeypatch.setattr(search, "learning_rate_test", lambda trainer, **_: (rates, losses))
    found = run("train", "--dataset", market, *TINY, *NO_PARTS, "-o", "out", "--find-lr")
    assert "the loss falls most steeply at 0.001: --lr 0.001" in found
    assert Path("out/learning-rates.png").stat().st_size and not Path("out/config.toml").exists()


def test_another_architecture_does_not_resume_a_run(finished: Path, refuse: Run) -> None:
    for option in (["--arch", "rga-sc"], ["--set", "arch.name=rga-sc"]):
        message = refuse("train", "--resume", "-o", finished, *option)
        assert f"{finished} is a run of iaunet, not of rga-sc. Leave out" in message


def test_the_largest_batch_says_what_limits_it_and_settings_are_logged_once(
    market: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    changed = {"--batch": "auto", "--workers": "999", "--device": "auto"}
    options = [changed.get(TINY[i - 1], TINY[i]) for i in range(len(TINY))]
    run("train", "--dataset", market, *options, *NO_PARTS, "-o", "run")
    log = caplog.text
    assert re.search(r"batch: \d+, the largest that fits \(limited by the number of images", log)
    assert log.count("settings: ") == 1 and log.count("device: ") == 1
    assert log.count("--workers 999 is more than this machine has CPUs; using 2") == 1


def test_a_failed_start_leaves_no_run_folder(market: Path, tmp_path: Path, refuse: Run) -> None:
    assert "needs part masks" in refuse("train", "--dataset", market, "-o", "run", *TINY)
    assert not (tmp_path / "run").exists()


def test_the_warning_names_the_learning_rate_in_proportion() -> None:
    assert [scientific(x) for x in (0.00035, 8.75e-05, 0.1)] == ["3.5e-4", "8.75e-5", "1e-1"]
