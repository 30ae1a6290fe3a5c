"""A checkpoint rebuilds its network by its header alone; damaged ones are refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reidkit import checkpoint
from reidkit.checkpoint import Header
from reidkit.errors import CheckpointError, ConfigError
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch


def small() -> tuple[ReidModel, Header]:
    spec = get_arch("iaunet")
    config = spec.config(backbone="resnet18", stages=(2,))
    torch.manual_seed(0)
    model = spec.build(config, num_ids=3, input_size=(64, 32))
    return model, Header(
        arch="iaunet",
        arch_config=dataclasses.asdict(config),
        preprocess=Preprocess(size=(64, 32), interpolation="bilinear"),
        num_ids=3,
        dataset="here",
        metrics={"mAP": 0.5},
    )


def test_saving_and_loading_is_bit_exact(tmp_path: Path) -> None:
    model, header = small()
    checkpoint.save(tmp_path / "m.safetensors", model, header)
    loaded, found = checkpoint.load(tmp_path / "m.safetensors")
    assert found.preprocess == header.preprocess and found.metrics == header.metrics
    assert not loaded.training
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(model.eval().embed(images), loaded.embed(images))


def test_the_header_contains_preprocessing_and_architecture_options(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m.safetensors", *small())
    header = checkpoint.read_header(tmp_path / "m.safetensors")
    assert header.preprocess.size == (64, 32) and header.preprocess.interpolation == "bilinear"
    assert list(header.arch_config["stages"]) == [2]


def rewrite(path: Path, **changes: object) -> None:
    table = json.loads(json.dumps(dataclasses.asdict(checkpoint.read_header(path)))) | changes
    save_file(load_file(path), path, metadata={"reidkit": json.dumps(table)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "checkpoint format 99, reidkit .* reads format 1"),
        ({"num_ids": "many"}, "damaged header.*num_ids must be a whole number"),
        ({"arch": "iaunett"}, "Did you mean iaunet"),
        ({"num_ids": 4}, "tensors do not fit iaunet"),
        ({"arch_config": {"backbone": "resnet34"}}, "tensors do not fit iaunet"),
        ({"num_ids": -1}, "num_ids is -1, expected 0 to"),
        ({"num_ids": 10**9}, r"head.classifier.bias is \[3\], expected \[1000000000\]"),
        ({"num_ids": 10**30}, "num_ids"),
        ({"frames": 10**15}, "frames is 1000000000000000, expected 0 to"),
        ({"arch": None}, "arch"),
        ({"arch_config": []}, "arch_config"),
        ({"preprocess": None}, "preprocess"),
        ({"preprocess": {"size": [0, 64]}}, "size"),
        ({"preprocess": {"size": [10**40, 64]}}, "size"),
        ({"preprocess": {"mean": [0.1]}}, "mean"),
        ({"recipe": 3, "metrics": "x"}, "recipe|metrics"),
    ],
)
def test_headers_and_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, *small())
    rewrite(path, **changes)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        checkpoint.load(path)


def test_other_files_are_refused_with_the_next_command(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match=r"no such checkpoint.*reidkit train"):
        checkpoint.load(path)
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        checkpoint.load(path)
    torch.save({"weight": torch.ones(1)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"reidkit import .*m\.pth --from FORMAT"):
        checkpoint.load(tmp_path / "m.pth")
    save_file({"weight": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="no reidkit header"):
        checkpoint.load(path)


@pytest.mark.parametrize("text", ['{"x":', "[1]", "null", "NaN", "[" * 100_000, '"' + "x" * 10**6])
def test_a_header_that_is_not_a_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"weight": torch.ones(1)}, path, metadata={"reidkit": text})
    with pytest.raises(CheckpointError, match="damaged header"):
        checkpoint.load(path)


def test_a_network_is_not_built_before_its_shapes_are_those_of_the_file(tmp_path: Path) -> None:
    """rga-s has a layer per position: at 4096 pixels a side it would take terabytes."""
    spec = get_arch("rga-s")
    config = spec.config(backbone="resnet18")
    model: ReidModel = spec.build(config, num_ids=3, input_size=(256, 128))
    table = dataclasses.asdict(config)
    header = Header("rga-s", table, Preprocess(size=(4096, 4096)), num_ids=3)
    checkpoint.save(tmp_path / "m.safetensors", model, header)
    with pytest.raises((CheckpointError, ConfigError), match=r"rga-s|size"):
        checkpoint.load(tmp_path / "m.safetensors")


def test_checkpoints_have_the_users_default_permissions(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m.safetensors", *small())
    (tmp_path / "other").touch()
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
