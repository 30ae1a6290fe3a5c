"""`reidkit report --card` writes a model card beside the checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit import checkpoint


@pytest.fixture
def run_copy(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained / "runs" / "one", tmp_path / "copy")


def test_the_card_is_written_into_the_run_folder_with_the_sha256_of_the_model(
    run_copy: Path, run: Callable[..., str]
) -> None:
    assert run("report", run_copy, "--card").strip() == str(run_copy / "MODEL_CARD.md")
    text = (run_copy / "MODEL_CARD.md").read_text()
    digest = hashlib.sha256((run_copy / "model.safetensors").read_bytes()).hexdigest()
    assert f"`{digest}`" in text
    assert "| licence of the data | CC0-1.0 |" in text
    assert str(run_copy.parent) not in text


def test_the_card_can_be_printed(run_copy: Path, run: Callable[..., str]) -> None:
    text = run("report", run_copy / "model.safetensors", "--card", "-o", "-")
    assert text.startswith("# iaunet on synth-market1501\n")
    assert not (run_copy / "MODEL_CARD.md").exists()


def test_an_edited_card_is_only_replaced_with_overwrite(
    run_copy: Path, run: Callable[..., str], refuse: Callable[..., str]
) -> None:
    edited = run_copy / "MODEL_CARD.md"
    edited.write_text("mine")
    assert "Add --overwrite to replace it" in refuse("report", run_copy, "--card")
    assert edited.read_text() == "mine"
    run("report", run_copy, "--card", "--overwrite")
    assert edited.read_text().startswith("# iaunet")


def test_without_card_the_command_that_writes_it_is_named(
    run_copy: Path, refuse: Callable[..., str], run: Callable[..., str]
) -> None:
    message = refuse("report", run_copy)
    run(*shlex.split(message.partition("Run: reidkit ")[2]))
    assert (run_copy / "MODEL_CARD.md").is_file()


def test_commands_of_the_card_work_when_pasted(
    market: Path,
    run_copy: Path,
    tmp_path: Path,
    run: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = run("report", run_copy, "--card", "-o", "-")
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    folder = tmp_path / "published"
    (folder / "data").mkdir(parents=True)
    shutil.copy(run_copy / "model.safetensors", folder)
    (folder / "data" / "synth-market1501").symlink_to(market)
    (folder / "photos").symlink_to(market / "query")
    monkeypatch.chdir(folder)
    commands = [shlex.split(line) for line in block[1].splitlines()]
    assert [command[:2] for command in commands] == [
        ["reidkit", name] for name in ("eval", "extract", "export")
    ]
    for command in commands:
        run(*command[1:])
    assert (folder / "features.h5").is_file() and (folder / "model.onnx").is_file()


def test_results_of_other_model_files_are_left_out(
    run_copy: Path, run: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = run_copy / "model.safetensors"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    metrics = checkpoint.read_header(model).metrics
    results = [
        {**metrics, "dataset": "own", "model_sha256": digest, "rule": "own rule"},
        {**metrics, "dataset": "other", "model_sha256": "0" * 64, "rule": "other rule"},
    ]
    (run_copy / "metrics.json").write_text(json.dumps({"results": results}))
    text = run("report", run_copy, "--card", "-o", "-")
    assert "own rule" in text and "other rule" not in text
    assert "left out 1 of 2 results" in caplog.text


def test_a_synthetic_data_set_does_not_take_the_licence_of_the_published_one(
    run_copy: Path, run: Callable[..., str]
) -> None:
    network, header = checkpoint.load(run_copy / "model.safetensors")
    alone = run_copy.parent / "alone.safetensors"
    checkpoint.save(alone, network, dataclasses.replace(header, dataset="market1501"))
    text = run("report", alone, "--card", "-o", "-")
    assert "academic research only" not in text and "not known; ask the owner" in text


def test_a_data_set_without_a_manifest_gives_a_warning(
    run_copy: Path, run: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    (run_copy / "config.toml").unlink()
    assert "not known; ask the owner" in run("report", run_copy, "--card", "-o", "-")
    assert "does not state the licence of the training data" in caplog.text


def test_a_report_must_be_chosen_and_made_from_a_checkpoint(
    run_copy: Path, refuse: Callable[..., str]
) -> None:
    assert "add --card" in refuse("report", run_copy)
    assert "no such run: nothing" in refuse("report", "nothing", "--card")
    onnx = run_copy / "model.onnx"
    onnx.touch()
    assert "Pass the checkpoint" in refuse("report", onnx, "--card")
