"""The real commands on a small synthetic data set."""

import inspect
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

from reidkit.cli import app, prepare_masks
from reidkit.errors import ConfigError, DataError, MaskError
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.sources import FIVE_FILES
from reidkit.masks.store import MaskStore
from reidkit.synthetic import LAYOUTS


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "people"
    LAYOUTS["market1501"](folder, train_pids=2, test_pids=1, seed=0, on_progress=lambda a, b: None)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_command_makes_the_masks_of_the_training_images(market: Path):
    result = run("prepare-masks", "--dataset", market, "--sheet", "sheet.png", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    count = len(list((market / "bounding_box_train").glob("*.jpg")))
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
    again = run("masks", "show", found["file"], "--sheet", "b.png", "--dataset", market)
    assert again.exit_code == 0 and Path("b.png").exists()


def test_other_splits_on_request(market: Path):
    result = run("prepare-masks", "--dataset", market, "--split", "all", "-o", "all.h5", "--json")
    found = json.loads(result.stdout)
    assert found["split"] == "train+query+gallery"
    assert found["images"] == len(list(market.glob("*/*.jpg")))


def test_a_custom_grouping(market: Path):
    Path("halves.toml").write_text('[parts]\nhead = ["hair", "face"]\nlegs = [9, 16, 17]\n')
    arguments = ("--grouping", "halves.toml", "-o", "halves.h5", "--json")
    found = json.loads(run("prepare-masks", "--dataset", market, *arguments).stdout)
    assert list(found["parts"]) == ["head", "legs"]
    with pytest.raises(MaskError, match="expected head, upper body"):
        MaskStore.open(Path("halves.h5"), parts=("head", "upper body", "lower body", "shoes"))


def test_broken_label_maps_are_one_clear_error_and_leave_no_mask_file(market: Path):
    labels = Path("labels") / "bounding_box_train"
    labels.mkdir(parents=True)
    for file in (market / "labels" / "bounding_box_train").iterdir():
        (labels / file.name).write_bytes(file.read_bytes())
    victim = sorted(labels.iterdir())[3]
    whole = victim.read_bytes()

    def refusal(message: str) -> None:
        result = run("prepare-masks", "--dataset", market, "--labels", "labels", "-o", "m.h5")
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
        run("prepare-masks", "--dataset", market, "--labels", "labels", "-o", "m.h5").exit_code == 0
    )


def test_stripes_need_no_parser_and_are_marked(market: Path):
    found = json.loads(
        run("prepare-masks", "--dataset", market, "--source", "stripes", "--json").stdout
    )
    assert "no parser" in found["source"] and "no parser" in found["warnings"][0]
    shown = run("masks", "show", found["file"]).stdout
    assert "source       stripes (body proportions; no parser)" in shown


def test_colour_images_and_part_files_give_the_same_masks_as_label_maps(market: Path):
    lip = load_label_set("lip")
    palette = np.array(lip.palette, np.uint8)
    for file in (market / "labels" / "bounding_box_train").iterdir():
        with Image.open(file) as label_map:
            labels = np.asarray(label_map)
        Path("vis").mkdir(exist_ok=True)
        Image.fromarray(palette[labels]).save(f"vis/{file.stem}_vis.png")
        place = Path("seg_part4") / "Market1501_train_seg_part4" / file.stem
        place.mkdir(parents=True)
        for index, name in enumerate(FIVE_FILES, start=1):
            mask = default_grouping(lip).part_map(labels) == index
            Image.fromarray((mask * 255).astype(np.uint8)).save(place / f"{name}.png")
    stores = []
    for number, arguments in enumerate(
        [(), ("--labels", "vis", "--source", "colours"), ("--seg-part4", "seg_part4")]
    ):
        result = run("prepare-masks", "--dataset", market, "-o", f"{number}.h5", *arguments)
        assert result.exit_code == 0, result.output
        stores.append(MaskStore.open(Path(f"{number}.h5")))
    for other in stores[1:]:
        assert other.paths == stores[0].paths
        np.testing.assert_array_equal(other.read(other.paths), stores[0].read(other.paths))


def test_a_parser_is_run_on_the_images(market: Path):
    # this one gives the same stripes for every image
    scores = np.zeros((1, 20, 8, 4), np.float32)
    scores[0, 0] = 0.5
    for rows, label in ((slice(0, 1), 13), (slice(1, 4), 5), (slice(4, 7), 9), (slice(7, 8), 18)):
        scores[0, label, rows, 1:3] = 1
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["m", "zero"], ["z"]),
        helper.make_node("Add", ["z", "scores"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "parser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 20, 8, 4])],
        [
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
            numpy_helper.from_array(scores, "scores"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), "parser.onnx")
    options = ("--preset", "jppnet", "--size", "64x64", "--no-mirror", "--device", "cpu", "--json")
    result = run("prepare-masks", "--dataset", market, "--parser", "parser.onnx", *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["source"] == "parser (lip)"
    assert found["parts"]["upper body"]["coverage"] == pytest.approx(3 / 8 / 2, abs=0.05)
    store = MaskStore.open(Path(found["file"]))
    first = store.read(store.paths[:1])[0]
    assert [int(v) for v in first[[20, 125, 250, 375], 100]] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--label-set", "lips"), "Did you mean lip?"),
        (("--grouping", "none.toml"), "cannot read none.toml"),
        (("--source", "stripes", "--labels", "x"), "--labels and --source stripes are different"),
        (("--source", "stripes", "--grouping", "x.toml"), "--grouping applies to --labels, "),
        (("--seg-part4", "x", "--label-set", "lip"), "FILE.onnx, not to --seg-part4; remove it"),
        (("--parser", "none.onnx"), "no such file; expected a human parser in ONNX"),
        (("--parser", "none.onnx", "--scales", "1,x"), "expected numbers separated by commas"),
        (("--parser", "none.onnx", "--mean", "1,2"), "expected 3 numbers separated by commas"),
    ],
)
def test_wrong_options_are_refused(market: Path, arguments: tuple[str, ...], message: str):
    result = run("prepare-masks", "--dataset", market, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("--split", "tets", "train, query, gallery or all"),
        ("--source", "colors", "index, colours or stripes"),
        ("--preset", "jpp", "imagenet, schp or jppnet"),
        ("--fit", "crop", "stretch or pad"),
        ("--order", "gbr", "rgb or bgr"),
    ],
)
def test_closed_choices_are_listed(market: Path, option: str, value: str, choices: str):
    result = run("prepare-masks", "--dataset", market, option, value)
    assert str(result.exception) == f"unknown {option.removeprefix('--')} {value!r}: {choices}"


def test_every_option_is_in_a_panel():
    parameters = inspect.signature(prepare_masks.prepare_masks).parameters
    assert sorted(name for names in prepare_masks.PANELS.values() for name in names) == sorted(
        parameters
    )
