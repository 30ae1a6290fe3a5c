"""reidkit export: its refusals cost nothing, and --verify compares whole evaluations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

Refuse = Callable[..., str]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "--precision int8 needs images to measure ranges on: add"),
        (["--calibrate", "x"], "only int8 is calibrated. Add --precision int8"),
        (["--tolerance", "1"], "it bounds the change that --verify finds. Add --verify DATASET"),
    ],
)
def test_options_that_need_another_one_are_refused(
    refuse: Refuse, options: list[str], message: str
) -> None:
    assert message in refuse("export", "model.safetensors", "--onnx", *options)


def test_verify_compares_whole_evaluations_and_the_file_states_them(
    market: Path, trained: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    target = tmp_path / "model.onnx"
    options = ("--verify", market, "--precision", "int8", "--tolerance", "100", "--json")
    report = json.loads(run("export", trained / "runs/one", "--onnx", "-o", target, *options))
    assert report["precision"] == "int8"
    results = report["results"]
    assert 0 < results["file"]["mAP"] <= 1 and 0 < results["checkpoint"]["mAP"] <= 1
    (stored,) = [entry.value for entry in onnx.load(target).metadata_props]
    assert json.loads(stored)["results"] == results
