"""The real commands on a small drawn data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from reidkit.cli import app
from reidkit.errors import ConfigError, DataError, MaskError
from reidkit.masks.store import MaskStore
from reidkit.synthetic import LAYOUTS


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "people"
    LAYOUTS["market1501"](folder, train_pids=2, test_pids=1, seed=0, on_progress=lambda a, b: None)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_command_makes_the_masks_of_the_training_images(drawn: Path):
    result = run("prepare-masks", "--dataset", drawn, "--sheet", "sheet.png", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    count = len(list((drawn / "bounding_box_train").glob("*.jpg")))
    assert found["images"] == count and found["split"] == "train"
    assert set(found["parts"]) == {"head", "upper body", "lower body", "shoes"}
    assert len(MaskStore.open(Path(found["file"]))) == count
    assert Path(found["file"]).parent == Path("masks") and Path("sheet.png").exists()

    shown = run("masks", "show", found["file"])
    assert "head         hat, hair, sunglasses, face" in shown.stdout
    assert json.loads(run("masks", "show", found["file"], "--json").stdout)["masks"] == count
    stats = json.loads(run("masks", "stats", found["file"], "--json").stdout)
    assert stats["parts"] == found["parts"]
    assert f"{count} masks (train)" in run("masks", "stats", found["file"]).stdout
    again = run("masks", "show", found["file"], "--sheet", "b.png", "--dataset", drawn)
    assert again.exit_code == 0 and Path("b.png").exists()


def test_other_splits_on_request(drawn: Path):
    result = run("prepare-masks", "--dataset", drawn, "--split", "all", "-o", "all.h5", "--json")
    found = json.loads(result.stdout)
    assert found["split"] == "train+query+gallery"
    assert found["images"] == len(list(drawn.glob("*/*.jpg")))


def test_a_grouping_of_ones_own(drawn: Path):
    Path("halves.toml").write_text('[parts]\nhead = ["hair", "face"]\nlegs = [9, 16, 17]\n')
    arguments = ("--grouping", "halves.toml", "-o", "halves.h5", "--json")
    found = json.loads(run("prepare-masks", "--dataset", drawn, *arguments).stdout)
    assert list(found["parts"]) == ["head", "legs"]
    with pytest.raises(MaskError, match="expected head, upper body"):
        MaskStore.open(Path("halves.h5"), parts=("head", "upper body", "lower body", "shoes"))


def test_what_is_wrong_is_an_error_of_ours_and_leaves_no_mask_file(drawn: Path):
    labels = Path("labels") / "bounding_box_train"
    labels.mkdir(parents=True)
    for file in (drawn / "labels" / "bounding_box_train").iterdir():
        (labels / file.name).write_bytes(file.read_bytes())
    victim = sorted(labels.iterdir())[3]
    whole = victim.read_bytes()

    def refusal(message: str) -> None:
        result = run("prepare-masks", "--dataset", drawn, "--labels", "labels", "-o", "m.h5")
        assert isinstance(result.exception, DataError), result.output
        assert message in str(result.exception) and "\n" not in str(result.exception)
        assert not Path("m.h5").exists()

    Image.fromarray(np.full((128, 64), 77, np.uint8)).save(victim)
    refusal("label 77, expected at most 19")
    Image.fromarray(np.zeros((128, 64, 3), np.uint8)).save(victim)
    refusal("mode RGB")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(victim)
    refusal("64x64 pixels")
    victim.unlink()
    refusal(f"First: bounding_box_train/{victim.stem}.jpg")
    victim.write_bytes(whole)
    assert (
        run("prepare-masks", "--dataset", drawn, "--labels", "labels", "-o", "m.h5").exit_code == 0
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--split", "tets"), "Did you mean test?|Known"),
        (("--label-set", "lips"), "Did you mean lip?"),
        (("--grouping", "none.toml"), "cannot read none.toml"),
    ],
)
def test_wrong_options_are_refused(drawn: Path, arguments: tuple[str, ...], message: str):
    result = run("prepare-masks", "--dataset", drawn, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert any(text in str(result.exception) for text in message.split("|"))
