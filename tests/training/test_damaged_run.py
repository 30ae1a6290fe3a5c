"""Files of a run folder that are damaged or were edited are refused by name; a last line of the
history that a crash has cut off is not missed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import settings

from reidkit.data.manifest import open_dataset
from reidkit.errors import CheckpointError, ReidkitError
from reidkit.training.checkpoints import has_run
from reidkit.training.logging import read_history
from reidkit.training.trainer import RunOptions, Trainer

Document = dict[str, Any]


def train(market: Path, folder: Path, *, resume: bool) -> None:
    Trainer(
        settings(schedule={"epochs": 1}, test={"every": 0}),
        open_dataset(str(market)),
        folder=folder,
        masks=None,
        device=torch.device("cpu"),
        options=RunOptions(workers=0, keep_resume=True),
    ).fit(resume=resume)


@pytest.fixture(scope="module")
def whole(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(market, folder, resume=False)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def edit(folder: Path, change: Callable[[Document], object]) -> None:
    document = torch.load(folder / "resume.pt", weights_only=True)
    change(document)
    torch.save(document, folder / "resume.pt")


def first_moment(document: Document) -> Document:
    state: Document = document["optimizer"]["state"][0]
    return state


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("random"),
        lambda d: d.update(extra=1),
        lambda d: d.update(position=[1, 0, 0.5]),
        lambda d: d.update(position=["1", 0, 0.5, 0]),
        lambda d: d.update(position=[1, -3, 0.5, 0]),
        lambda d: d.update(position=7),
        lambda d: d["position"].__setitem__(1, 2),  # steps without running metrics
        lambda d: d["running"].pop(),
        lambda d: d["running"].__setitem__(0, {"total": torch.ones(3)}),
        lambda d: d["running"].__setitem__(3, "many"),
        lambda d: d["model"].popitem(),
        lambda d: d.update(model=[1, 2]),
        lambda d: d["optimizer"]["param_groups"].pop(),
        lambda d: d["optimizer"].pop("state"),
        lambda d: first_moment(d).update(exp_avg=torch.ones(2)),
        lambda d: d.update(random=[(torch.ones(3, dtype=torch.uint8), [])]),
        lambda d: d.update(random=[3]),
    ],
)
def test_an_edited_resume_point_is_refused_with_the_way_out(
    market: Path, folder: Path, change: Callable[[Document], object]
) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError) as caught:
        train(market, folder, resume=True)
    message = str(caught.value)
    assert f"{folder}/resume.pt is damaged or was edited" in message
    assert f"Continue from last.safetensors with a new optimizer: rm {folder}/resume.pt" in message


def test_a_position_beyond_the_run_is_refused(market: Path, folder: Path) -> None:
    edit(folder, lambda document: document.update(position=[7, 0, 0.5, 0]))
    with pytest.raises(
        CheckpointError, match=r"resume.pt is at epoch 8, step 0; the run has 1 epo"
    ):
        train(market, folder, resume=True)


def test_a_run_without_checkpoint_and_with_a_damaged_resume_point_is_started_again(
    market: Path, folder: Path
) -> None:
    for name in ("model.safetensors", "last.safetensors"):
        (folder / name).unlink()
    assert has_run(folder)
    (folder / "resume.pt").write_bytes((folder / "resume.pt").read_bytes()[:1000])
    assert not has_run(folder)
    train(market, folder, resume=False)
    assert has_run(folder)


@pytest.mark.parametrize(
    "text",
    ["schedule = 3", "dataset = 3", '[schedule]\nepochs = "1"', "[schedule", "\0"],
)
def test_edited_settings_are_refused_by_name(market: Path, folder: Path, text: str) -> None:
    (folder / "config.toml").write_text(text)
    with pytest.raises(ReidkitError, match=r"config\.toml"):
        train(market, folder, resume=True)


def test_a_last_line_that_a_crash_has_cut_off_is_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = folder / "metrics.jsonl"
    records = read_history(folder)
    file.write_text(file.read_text() + file.read_text()[:25])
    assert read_history(folder) == records
    assert f"{file}: the last line is cut off" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        '{"epoch": 1}',
        '{"epoch": 1, "losses": [], "lr": 1, "accuracy": 1}',
        "[" * 9**5,
    ],
)
def test_another_damaged_line_of_the_history_is_refused_by_number(folder: Path, line: str) -> None:
    file = folder / "metrics.jsonl"
    file.write_text(f"{line}\n{file.read_text()}")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: line 1 is not the record"):
        read_history(folder)
    record = json.loads(file.read_text().splitlines()[1])
    file.write_text(json.dumps({**record, "test": {"cmc": 3}}) + "\n" + json.dumps(record))
    with pytest.raises(CheckpointError, match="line 1"):
        read_history(folder)
