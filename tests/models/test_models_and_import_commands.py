"""The commands `reidkit models` and `reidkit import`."""

import json
import typing

import external_files as files
import pytest
import torch

from reidkit import checkpoint, cli
from reidkit.choices import CostTable
from reidkit.models.cost import TABLES
from reidkit.registry import list_archs


@pytest.fixture
def reidkit(monkeypatch, capsys):
    """Runs a command line and returns exit status, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["reidkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return run


def test_models_lists_every_architecture(reidkit):
    status, out, _ = reidkit("models", "--json")
    assert status == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert sorted(rows) == list_archs()
    assert rows["iaunet"]["parameters"] == 27_464_286
    assert rows["pfsa"]["embedding_dim"] == 12288
    assert rows["pfsa"]["input_size"] == [384, 128]


def test_models_name_describes_every_option(reidkit):
    status, out, _ = reidkit("models", "pcb-iau", "--json")
    assert status == 0
    options = {option["name"]: option for option in json.loads(out)["options"]}
    assert options["feature"]["type"] == "pooled | reduced"
    assert options["stages"]["default"] == [2, 3]
    assert all(option["about"] for option in options.values())
    status, out, _ = reidkit("models", "pcb-iau")
    assert 'feature = "pooled"    pooled | reduced' in out


def test_models_computes_costs_with_options(reidkit):
    status, out, _ = reidkit("models", "iaunet", "--set", "arch.stages=[2]", "--json")
    assert status == 0
    assert json.loads(out)["parameters"] == 24_301_135 + 4096


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("models", "iaune"), "Did you mean iaunet?"),
        (("models", "iaunet", "--set", "arch.stages=[5]"), "stages of 1, 2, 3, 4"),
        (("models", "ianet", "--set", "arch.sigma=1"), "has no option arch.sigma"),
    ],
)
def test_errors_are_one_line_with_status_2(reidkit, arguments, words):
    status, out, err = reidkit(*arguments)
    assert status == 2 and out == ""
    assert err.startswith("error: ") and words in err


def test_a_papers_cost_table_is_compared_with_ours(reidkit):
    status, out, _ = reidkit("models", "--table", "ianet-cost", "--json")
    assert status == 0
    sia = json.loads(out)[1]
    assert sia["paper_gmacs"] == 4.09 and sia["gmacs"] == 4.0868


@pytest.mark.parametrize(
    "arguments",
    [("models", "--table", "iaunet-v"), ("import", "a", "--from", "foo", "--arch", "b", "-o", "c")],
    ids=["table", "format"],
)
def test_an_unknown_table_or_format_is_an_error_that_lists_the_known_ones(reidkit, arguments):
    status, out, err = reidkit(*arguments)
    assert status == 2 and out == ""
    assert ("iaunet-vi" if "--table" in arguments else "torchreid") in err


def test_the_command_line_offers_every_cost_table():
    assert typing.get_args(CostTable) == tuple(TABLES)


def test_import_writes_a_checkpoint_that_loads(reidkit, tmp_path):
    state = files.filled(files.iaunet())
    wrapper = {"rank1": files.rank1(), "epoch": 60}
    source = files.write(tmp_path / "a.pth", state, module=True, wrapper=wrapper)
    target = tmp_path / "model.safetensors"
    command = ("import", source, "--from", "iaunet-reference", "--arch", "iaunet", "-o", target)
    status, out, err = reidkit(*command)
    assert status == 0, err
    assert out.startswith("318 tensors matched, 81 renamed, 0 ignored, 0 missing\n")
    model, header = checkpoint.load(target)
    assert header.num_ids == 10 and header.preprocess.size == (256, 128)
    value = model.state_dict()["head.bn.weight"]
    assert torch.equal(value, state["bn.weight"])


def test_a_failed_import_writes_no_file(reidkit, tmp_path):
    source = files.write(tmp_path / "a.pth", files.filled({"conv1.weight": (64, 3, 7, 7)}))
    target = tmp_path / "model.safetensors"
    status, out, err = reidkit(
        "import", source, "--from", "torchvision", "--arch", "baseline", "-o", target
    )
    assert status == 2 and out == "" and "needs trunk.backbone.bn1.weight" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]


@pytest.mark.parametrize(
    ("options", "frames"), [((), 4), (("--frames", 8), 8), (("--frames", 0), 0)]
)
def test_video_weights_give_a_checkpoint_for_clips(reidkit, tmp_path, options, frames):
    source = files.write(tmp_path / "video.pth", files.filled(files.iaunet_video()))
    out = tmp_path / "model.safetensors"
    arguments = ("import", source, "--from", "iaunet-reference", "--arch", "iaunet", "-o", out)
    status, printed, _ = reidkit(*arguments, *options)
    assert status == 0
    assert checkpoint.read_header(out).frames == frames
    assert (f"input is clips of {frames} frames" if frames else "input is images") in printed
