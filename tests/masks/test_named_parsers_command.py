"""prepare-masks with a parser by name. The network is SCHP's at a sixteenth of its width, with
random weights: what is tested is everything around it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

import reidkit
from reidkit.cli import app
from reidkit.cli.parsers import LABEL_SETS, PUBLISHED
from reidkit.errors import ConfigError, DataError
from reidkit.masks.parsers import networks
from reidkit.masks.parsers.schp import Schp
from reidkit.masks.parsers.weights import JPPNET_FOLDER, SCHP_FILES
from reidkit.masks.store import MaskStore
from reidkit.synthetic import LAYOUTS


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "people"
    LAYOUTS["market1501"](folder, train_pids=2, test_pids=1, seed=0, on_progress=lambda a, b: None)
    return folder


def small_schp(path: Path, num_classes: int) -> Schp:
    torch.manual_seed(int(path.read_text()))
    network = Schp(num_classes, width=4, blocks=(1, 1, 1, 1))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network(torch.randn(8, 3, 65, 65))  # for statistics by which the labels vary in an image
    return network.eval()


@pytest.fixture(autouse=True)
def small_parsers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, classes in (("schp-lip", 20), ("schp-pascal", 7)):
        small = replace(
            networks.PARSERS[name],
            size=65,
            load=lambda path, classes=classes: small_schp(path, classes),
        )
        monkeypatch.setitem(networks.PARSERS, name, small)
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").write_text("0")
    yield


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["prepare-masks", *map(str, arguments)])


SCHP = ("--parser", "schp-lip", "--parser-weights", "weights.pth", "--device", "cpu")


def test_a_named_parser_writes_masks_and_the_label_maps_that_give_the_same_masks(market: Path):
    result = run("--dataset", market, *SCHP, "--keep-labels", "kept", "-o", "a.h5", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["source"] == "schp-lip (lip)"
    assert found["agreement"] is None  # this is the original procedure
    result = run("--dataset", market, "--labels", "kept", "-o", "b.h5")
    assert result.exit_code == 0, result.output
    one, other = MaskStore.open(Path("a.h5")), MaskStore.open(Path("b.h5"))
    assert one.paths == other.paths
    np.testing.assert_array_equal(one.read(one.paths), other.read(one.paths))
    with Image.open(Path("kept", one.paths[0]).with_suffix(".png")) as kept:
        assert kept.size == (64, 128) and len(np.unique(np.asarray(kept))) > 1

    again = run("--dataset", market, *SCHP, "--keep-labels", "kept", "-o", "a.h5")
    assert again.exit_code == 0, again.output
    changed = run("--dataset", market, *SCHP, "--keep-labels", "kept", "-o", "c.h5", "--mirror")
    assert isinstance(changed.exception, DataError)
    assert "label maps of another parser, procedure or precision" in str(changed.exception)
    assert not Path("c.h5").exists()


def test_another_procedure_is_compared_with_the_original_on_50_images(market: Path):
    result = run("--dataset", market, *SCHP, "--scales", "0.8,1", "--mirror", "-o", "a.h5")
    assert result.exit_code == 0, result.output
    assert "agreement with the original procedure on" in result.stdout
    stats = CliRunner().invoke(app, ["masks", "stats", "a.h5", "--json"])
    agreement = json.loads(stats.stdout)["agreement"]
    assert agreement["images"] == min(50, len(list(market.glob("bounding_box_train/*.jpg"))))
    assert 0 < agreement["labels"] <= agreement["parts"] < 1
    assert set(agreement["part_iou"]) == {"head", "upper body", "lower body", "shoes"}
    unchanged = run("--dataset", market, *SCHP, "--scales", "1", "--no-mirror", "-o", "b.h5")
    assert "agreement" not in unchanged.stdout  # SCHP's original procedure, spelt out


def test_other_weights_of_the_same_parser_are_other_masks(market: Path):
    assert run("--dataset", market, *SCHP).exit_code == 0
    Path("weights.pth").write_text("1")
    result = run("--dataset", market, *SCHP)
    assert "holds other masks" in str(result.exception)
    assert run("--dataset", market, *SCHP, "--overwrite").exit_code == 0


def test_pascals_shoes_are_a_warning(market: Path):
    arguments = ("--parser", "schp-pascal", "--parser-weights", "weights.pth", "--device", "cpu")
    result = run("--dataset", market, *arguments, "-o", "pascal.h5")
    assert result.exit_code == 0, result.output
    assert "warning: the part shoes is the lower legs" in result.stdout
    store = MaskStore.open(Path("pascal.h5"), parts=("head", "upper body", "lower body", "shoes"))
    assert store.header.grouping["shoes"] == ("lower-legs",)


NAMED = ("--parser", "schp-lip")
WEIGHTS = ("--parser-weights", "weights.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (NAMED, "add --parser-weights exp-schp-201908261155-lip.pth"),
        (("--parser", "jppnet"), "add --parser-weights JPPNet-s2"),
        ((*NAMED, "--parser-weights", "none.pth"), "none.pth: no such file or folder"),
        (WEIGHTS, "add --parser with jppnet, schp-lip, schp-atr or schp-pascal"),
        ((*WEIGHTS, "--source", "stripes"), "add --parser with jppnet"),
        (("--parser", "schp-lipp", *WEIGHTS), "Did you mean schp-lip?"),
        (("--parser", "weights.pth"), "--parser schp-lip --parser-weights weights.pth"),
        (("--parser", "p.onnx", *WEIGHTS), "applies to --parser NAME, not to --parser FILE.onnx"),
        (("--parser", "p.onnx", "--precision", "bf16"), "--precision applies to --parser NAME"),
        ((*NAMED, *WEIGHTS, "--label-set", "atr"), "schp-lip gives the labels of lip"),
        ((*NAMED, *WEIGHTS, "--grouping", "atr.toml"), "groups the labels of atr"),
        ((*NAMED, *WEIGHTS, "--preset", "schp"), "--preset applies to --parser FILE.onnx"),
        ((*NAMED, *WEIGHTS, "--size", "64x64"), "--size applies to --parser FILE.onnx"),
        ((*NAMED, *WEIGHTS, "--fit", "pad"), "--fit applies to --parser FILE.onnx"),
        ((*NAMED, *WEIGHTS, "--order", "bgr"), "--order applies to --parser FILE.onnx"),
        ((*NAMED, *WEIGHTS, "--mean", "1,2,3"), "--mean applies to --parser FILE.onnx"),
        ((*NAMED, *WEIGHTS, "--std", "1,2,3"), "--std applies to --parser FILE.onnx"),
        ((*NAMED, *WEIGHTS, "--source", "colours"), "are different sources of masks"),
        (("--keep-labels", "x"), "--keep-labels applies to --parser NAME or --parser FILE.onnx"),
        (("--no-mirror",), "--no-mirror applies to --parser NAME or --parser FILE.onnx"),
        (("--device", "cpu"), "--device applies to --parser NAME or --parser FILE.onnx"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    market: Path, arguments: tuple[str, ...], message: str
):
    Path("atr.toml").write_text('labels = "atr"\n[parts]\nhead = ["face"]\n')
    Path("p.onnx").touch()
    result = run("--dataset", market, *arguments)
    assert isinstance(result.exception, ConfigError), result.output
    assert message in str(result.exception)


def test_names_of_published_files_and_label_sets_agree_with_the_readers():
    assert {**{"jppnet": JPPNET_FOLDER}, **dict(SCHP_FILES.values())} == PUBLISHED
    assert {name: parser.label_set for name, parser in networks.PARSERS.items()} == LABEL_SETS


def test_an_exported_parser_gives_the_masks_of_its_weights(market: Path):
    arguments = ["masks", "export-parser", "schp-lip", "--parser-weights", "weights.pth"]
    exported = CliRunner().invoke(app, [*arguments, "-o", "p.onnx", "--json"])
    assert exported.exit_code == 0, exported.output
    assert all(parity["agreement"] > 0.99 for parity in json.loads(exported.stdout)["parity"])
    more = ("--device", "cpu", "--json")
    result = run("--dataset", market, "--parser", "p.onnx", *more, "-o", "a.h5")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["source"] == "schp-lip (lip)"
    assert json.loads(result.stdout)["agreement"] is None
    assert run("--dataset", market, *SCHP, "--precision", "fp32", "-o", "b.h5").exit_code == 0
    one, other = MaskStore.open(Path("a.h5")), MaskStore.open(Path("b.h5"))
    assert (one.read(one.paths) == other.read(other.paths)).mean() > 0.999

    for option, value in (("--preset", "schp"), ("--mean", "1,2,3")):
        refused = run("--dataset", market, "--parser", "p.onnx", option, value)
        assert f"states its own test procedure; remove {option}" in str(refused.exception)
    refused = run("--dataset", market, "--parser", "p.onnx", "--label-set", "atr")
    assert "gives the labels of lip; remove --label-set atr" in str(refused.exception)
    missing = CliRunner().invoke(app, ["masks", "export-parser", "jppnet"])
    assert "add --parser-weights JPPNet-s2" in str(missing.exception)


def save_onnx_parser(path: Path) -> None:
    """A random convolution from images to scores of LIP's labels."""
    rng = np.random.default_rng(0)
    node = helper.make_node("Conv", ["x", "w"], ["s"], strides=[4, 4], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node],
        "parser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, ["n", 20, "a", "b"])],
        [numpy_helper.from_array(rng.normal(size=(20, 3, 3, 3)).astype(np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_two_processes_of_torchrun_write_what_one_does(market: Path):
    save_onnx_parser(Path("p.onnx"))
    command = ["prepare-masks", "--dataset", str(market), "--parser", "p.onnx", "--device", "cpu"]
    command += ["--preset", "jppnet", "--size", "64x64", "--scales", "1", "--no-mirror"]
    assert run(*command[1:], "-o", "one.h5", "--keep-labels", "one").exit_code == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["-m", "reidkit", *command, "-o", "two.h5", "--keep-labels", "two", "--json"]
    path = str(Path(reidkit.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(torchrun, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["agreement"]["images"] > 0  # printed by one process
    assert Path("two.h5").read_bytes() == Path("one.h5").read_bytes()
    for kept in Path("one").rglob("*.png"):
        assert ("two" / kept.relative_to("one")).read_bytes() == kept.read_bytes()
    assert len(list(Path("two").rglob("*"))) == len(list(Path("one").rglob("*")))
