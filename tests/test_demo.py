"""The demo runs the whole pipeline, and every number in its result is measured in that run."""

import signal
from pathlib import Path

import pytest
from PIL import Image

from reidkit.cli import main
from reidkit.config import Layer, merge
from reidkit.demo import RECIPE, UNFINISHED, Demo, DemoCallbacks
from reidkit.errors import ReidkitError
from reidkit.evaluation import evaluate_features
from reidkit.features import read_features
from reidkit.interrupt import Interrupted

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


def test_the_demo_runs_every_stage_up_to_a_verified_export(tmp_path: Path) -> None:
    def stop(stage: str, command: str) -> None:
        if stage == "train":
            raise KeyboardInterrupt

    stopped = Demo(
        tmp_path / "demo", train_pids=5, test_pids=5, callbacks=DemoCallbacks(on_stage=stop)
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert (tmp_path / "demo" / UNFINISHED).is_file()  # so that the next one starts again

    stages: list[str] = []
    callbacks = DemoCallbacks(on_stage=lambda stage, command: stages.append(stage))
    demo = Demo(tmp_path / "demo", train_pids=6, test_pids=6, recipe=TINY, callbacks=callbacks)
    result = demo.run()

    assert list(result.seconds) == stages and min(result.seconds.values()) > 0
    assert list(result.metrics) == ["untrained", "trained", "trained, re-ranked", "ONNX"]
    assert result.metrics["trained"].mAP != result.metrics["untrained"].mAP
    assert abs(result.metrics["ONNX"].mAP - result.metrics["trained"].mAP) <= 1e-4

    assert not (tmp_path / "demo" / UNFINISHED).exists()

    # the listed files exist, and the features among them give the same results
    for name in ("masks/synth-market1501.h5", "run/model.safetensors", "run/model.onnx"):
        assert name in result.files
    files = [tmp_path / "demo" / f"{split}.h5" for split in ("query", "gallery")]
    again = evaluate_features(*(read_features(path) for path in files))
    assert again.plain.mAP == result.metrics["trained"].mAP
    with Image.open(tmp_path / "demo" / "ranked.png") as picture:
        assert picture.width > 800


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ReidkitError, match="is not empty"):
        Demo(tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("signal_raised", "status"),
    [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143)],
)
def test_a_demo_that_is_stopped_says_how_to_restart_it(
    signal_raised: KeyboardInterrupt,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(demo: Demo) -> None:
        raise signal_raised

    monkeypatch.setattr(Demo, "run", stop)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(tmp_path / "demo")])
    assert ended.value.code == status
    assert capsys.readouterr().err == "stopped. Run the same command again to restart the demo\n"
