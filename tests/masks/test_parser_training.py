"""Images -> parser -> masks -> training: benchmarks/parser_training.py at a size for tests."""

import importlib.util
from pathlib import Path

import pytest

from reidkit.masks.store import MaskStore

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "parser_training.py"


def test_a_small_parser_gives_masks_that_iaunet_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    spec = importlib.util.spec_from_file_location("parser_training", SCRIPT)
    assert spec and spec.loader
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    ious = benchmark.run(
        tmp_path,
        steps=40,
        width=8,
        train_pids=4,
        test_pids=2,
        training=("--batch", "8", "--size", "64x32", "--set", "arch.stages=[2]"),
    )
    store = MaskStore.open(tmp_path / "masks.h5")
    assert store.header.source == "schp-lip (lip)"
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert ious["train, parts"] > 0.25  # of one part everywhere, at most 0.15
    assert "mean IoU, query, labels: " in capsys.readouterr().out
