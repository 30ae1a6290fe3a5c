"""The demo runs the whole pipeline and every number in its result was measured in that run."""

from pathlib import Path

import pytest
from PIL import Image

from reidkit import retrieval
from reidkit.config import Layer
from reidkit.config.tables import merge
from reidkit.demo import RECIPE, DemoWatch, run_demo
from reidkit.errors import ReidkitError
from reidkit.evaluation import as_embeddings
from reidkit.features import read_features

TINY = Layer(
    "tiny",
    merge(
        RECIPE.table,
        {
            "arch": {"stages": [2]},
            "input": {"size": [64, 32]},
            "sampler": {"batch": 16},
            "schedule": {"epochs": 1, "warmup_epochs": 0},
        },
    ),
)


def test_the_demo_goes_from_nothing_to_a_proved_export(tmp_path: Path) -> None:
    stages: list[str] = []
    watch = DemoWatch(on_stage=lambda stage, command: stages.append(stage))
    result = run_demo(tmp_path / "demo", train_pids=6, test_pids=6, recipe=TINY, watch=watch)

    assert list(result.seconds) == stages and min(result.seconds.values()) > 0
    assert list(result.reports) == ["untrained", "trained", "trained, re-ranked", "ONNX"]
    assert result.reports["trained"].mAP != result.reports["untrained"].mAP
    assert abs(result.reports["ONNX"].mAP - result.reports["trained"].mAP) <= 1e-4

    # the files it lists are there, and the features among them give the numbers it printed
    for name in ("masks/synth-market1501.h5", "run/model.safetensors", "run/model.onnx"):
        assert name in result.files
    files = [tmp_path / "demo" / f"{split}.h5" for split in ("query", "gallery")]
    again = retrieval.evaluate(*(as_embeddings(read_features(p), p.stem) for p in files))
    assert again.mAP == result.reports["trained"].mAP
    with Image.open(tmp_path / "demo" / "ranked.png") as picture:
        assert picture.width > 800


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ReidkitError, match="is not empty"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
