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


def test_a_file_for_a_program_is_verified_as_it_is_fed_and_comes_with_its_configuration(
    trained: Path, tmp_path: Path, run: Callable[..., str], refuse: Refuse
) -> None:
    target = tmp_path / "model.onnx"
    export = ("export", trained / "runs/one", "--onnx", "-o", target)
    shown = run(*export, "--for", "ultralytics").splitlines()
    assert "cosine >= 1.000000" in shown[0] and shown[0].endswith("fed as Ultralytics does")
    assert shown[-1] == str(tmp_path / "model.botsort.yaml")
    assert str(target) in (tmp_path / "model.botsort.yaml").read_text()
    assert "Triton collects batches" in refuse(*export, "--for", "triton", "--batch", "4")
