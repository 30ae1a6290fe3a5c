"""Checkpoints in the authors' formats, written here, into our networks."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from parser_checkpoints import (
    mutations,
    published_keys,
    random_tensors,
    use_width,
    write_bundle,
    write_pth,
)

from reidkit.errors import CheckpointError, ConfigError
from reidkit.masks.parsers.jppnet import JppNet
from reidkit.masks.parsers.networks import open_parser
from reidkit.masks.parsers.schp import Schp
from reidkit.masks.parsers.weights import jppnet_name, load_jppnet, load_schp

WIDTH = 16


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    use_width(monkeypatch, WIDTH)


@pytest.fixture
def jppnet() -> dict[str, np.ndarray]:
    return random_tensors("jppnet", width=WIDTH)


@pytest.fixture
def schp() -> dict[str, np.ndarray]:
    return random_tensors("schp-lip", width=WIDTH)


def own_shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    state = network.state_dict().items()
    return {k: tuple(v.shape) for k, v in state if not k.endswith("num_batches_tracked")}


def test_jppnet_has_the_608_published_variables_that_parsing_needs():
    with torch.device("meta"):
        own = own_shapes(JppNet())
    found = {jppnet_name(key): shape for key, shape in own.items()}
    published = {
        name: (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
        for name, shape in published_keys("jppnet").items()
    }
    assert len(published) == 624 and len(found) == 608
    assert found == {k: v for k, v in published.items() if not k.startswith("fc3_pose/")}


def test_schp_has_all_published_tensors_but_those_of_its_training_heads():
    with torch.device("meta"):
        own = own_shapes(Schp(20))
    published = {k.removeprefix("module."): v for k, v in published_keys("schp-lip").items()}
    heads = {
        f"{head}.{t}"
        for head in ("decoder.conv4", "edge.conv4", "edge.conv5")
        for t in ("weight", "bias")
    }
    assert len(published) == 603
    assert own == {k: v for k, v in published.items() if k not in heads}


@pytest.mark.parametrize("zipped", [False, True])
def test_schp_takes_each_tensor_of_its_file(tmp_path: Path, schp, zipped: bool):
    network = load_schp(write_pth(tmp_path / "a.pth", schp, zipped=zipped), 20)
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        expected = torch.from_numpy(schp[f"module.{name}"])
        module = network.get_submodule(name.rpartition(".")[0])
        if isinstance(module, torch.nn.BatchNorm2d) and name.endswith("weight"):
            expected = expected.abs() + 1e-5
        assert torch.equal(tensor, expected), name
    assert not network.training


def test_jppnet_takes_each_variable_of_its_checkpoint(tmp_path: Path, jppnet):
    momentum = {f"{name}/Momentum": values for name, values in jppnet.items()}
    network = load_jppnet(write_bundle(tmp_path / "JPPNet-s2", jppnet | momentum).parent)
    for key, tensor in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        expected = jppnet[jppnet_name(key)]
        if expected.ndim == 4:
            expected = expected.transpose(3, 2, 0, 1)
        np.testing.assert_array_equal(tensor.numpy(), expected)
    assert not network.training


def test_a_checkpoint_of_another_label_set_is_refused_with_the_parser_that_reads_it(tmp_path: Path):
    tensors = random_tensors("schp-lip", width=WIDTH, num_classes=18)
    path = write_pth(tmp_path / "atr.pth", tensors)
    with pytest.raises(CheckpointError, match=r"has 18 classes .*, schp-lip has 20.*schp-atr$"):
        load_schp(path, 20)
    assert load_schp(path, 18).fushion[3].out_channels == 18


def test_a_checkpoint_of_the_other_network_is_refused(tmp_path: Path, schp, jppnet):
    path = write_pth(tmp_path / "a.pth", schp)
    with pytest.raises(CheckpointError, match=r"jppnet takes .*folder JPPNet-s2.*schp-lip"):
        load_jppnet(path)
    folder = write_bundle(tmp_path / "JPPNet-s2", jppnet).parent
    for path in (folder, folder / "model.ckpt-1.index"):
        with pytest.raises(CheckpointError, match=r"exp-schp.*lip.pth.*--parser jppnet"):
            load_schp(path, 20)
    path = tmp_path / "a.pth"
    write_pth(path, {"module.conv1.weight": schp["module.conv1.weight"]})
    with pytest.raises(CheckpointError, match=r"not an SCHP checkpoint: it has no fushion.3"):
        load_schp(path, 20)
    write_bundle(tmp_path / "other", {"resnet/conv1/weights": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match="not a checkpoint of JppNet: it lacks conv1/weights"):
        load_jppnet(tmp_path / "other")


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path: Path, schp, jppnet):
    path = tmp_path / "a.pth"
    lacking = {k: v for k, v in schp.items() if k != "module.layer3.7.bn2.bias"}
    with pytest.raises(CheckpointError, match=r"a.pth is not .*Schp: it lacks layer3.7.bn2.bias$"):
        load_schp(write_pth(path, lacking), 20)
    with pytest.raises(CheckpointError, match=r"unknown tensors layer5.weight$"):
        load_schp(write_pth(path, schp | {"module.layer5.weight": np.ones(1)}), 20)
    other = {"module.bn1.bias": np.ones(3, np.float32)}
    with pytest.raises(CheckpointError, match=r"other shapes: bn1.bias \[3\], expected \[16\]$"):
        load_schp(write_pth(path, schp | other), 20)

    lacking = {k: v for k, v in jppnet.items() if not k.startswith("fc2_pose/")}
    with pytest.raises(CheckpointError, match=r"lacks fc2_pose/pose_remap/w, .* and 13 more$"):
        load_jppnet(write_bundle(tmp_path / "1", lacking))
    with pytest.raises(CheckpointError, match=r"unknown tensors bn9/gamma$"):
        load_jppnet(write_bundle(tmp_path / "2", jppnet | {"bn9/gamma": np.ones(3, np.float32)}))
    other = {"conv1/weights": np.ones((7, 7, 4, 16), np.float32)}
    with pytest.raises(CheckpointError, match=r"conv1/weights \[16, 4, 7, 7\], expected \[16, 3,"):
        load_jppnet(write_bundle(tmp_path / "3", jppnet | other))


def test_a_checkpoint_for_parsing_alone_needs_no_training_heads(tmp_path: Path, schp, jppnet):
    heads = ("module.decoder.conv4", "module.edge.conv4", "module.edge.conv5")
    kept = {name: values for name, values in schp.items() if not name.startswith(heads)}
    load_schp(write_pth(tmp_path / "a.pth", kept), 20)
    kept = {name: v for name, v in jppnet.items() if not name.startswith("fc3_pose")}
    load_jppnet(write_bundle(tmp_path / "b", kept | {"global_step": np.array(7, np.int64)}))


def test_a_damaged_jppnet_checkpoint_is_refused(tmp_path: Path, jppnet):
    prefix = write_bundle(tmp_path / "c", jppnet)
    file = prefix.with_name("model.ckpt-1.data-00000-of-00001")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001 is truncated: it has"):
        load_jppnet(prefix)
    damaged = bytearray(whole)
    damaged[10] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="has a wrong checksum"):
        load_jppnet(prefix)


class Unpickled:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys):
    path = tmp_path / "a.pth"
    with path.open("wb") as file:
        pickle.dump({"state_dict": Unpickled()}, file, protocol=2)
    with pytest.raises(CheckpointError, match=r"a.pth") as caught:
        load_schp(path, 20)
    assert "weights_only" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_a_truncated_pth_is_refused(tmp_path: Path, schp):
    path = write_pth(tmp_path / "a.pth", schp)
    whole = path.read_bytes()
    for part in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:part])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load_schp(path, 20)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"no such file, expected the authors' exp-schp-2019"):
        load_schp(path, 20)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_pth_raises_nothing_but_our_error(tmp_path: Path, zipped: bool):
    path = tmp_path / "a.pth"
    few = {f"module.a{i}.weight": np.ones((2, 3), np.float32) for i in range(6)}
    whole = write_pth(path, few, zipped=zipped).read_bytes()
    for damaged in mutations(whole, np.random.default_rng(0), 150):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load_schp(path, 20)


def test_parsers_open_by_name_with_the_authors_procedures(tmp_path: Path, schp, jppnet):
    path = write_pth(tmp_path / "a.pth", schp)
    folder = write_bundle(tmp_path / "JPPNet-s2", jppnet).parent
    parser = open_parser("schp-lip", path, device="cpu")
    assert parser.name == "schp-lip" and parser.labels.name == "lip" and parser.is_original
    assert parser.procedure.scales == (1.0,) and not parser.procedure.mirror
    assert parser.procedure.size == 473
    parser = open_parser("jppnet", folder, device="cpu")
    assert parser.labels.name == "lip" and parser.is_original
    assert parser.procedure.scales == (1.0, 0.75, 1.25) and parser.procedure.mirror
    assert parser.procedure.size == 384
    fast = open_parser("jppnet", folder, device="cpu", scales=(1.0,), mirror=False)
    assert not fast.is_original
    assert fast.original().is_original and fast.original().key == parser.key != fast.key

    for name, label_set, classes in (("schp-atr", "atr", 18), ("schp-pascal", None, 7)):
        write_pth(path, random_tensors("schp-lip", width=WIDTH, num_classes=classes))
        parser = open_parser(name, path, device="cpu", mirror=True)
        assert parser.labels.name == (label_set or "pascal-person-part")
        assert parser.procedure.size == 512 and not parser.is_original
        assert len(parser.procedure.swap) == classes


def test_the_key_follows_weights_procedure_and_precision(tmp_path: Path, schp):
    path = write_pth(tmp_path / "a.pth", schp)
    options = {"device": "cpu", "precision": "fp32"}
    key = open_parser("schp-lip", path, **options).key
    assert open_parser("schp-lip", path, **options, batch=7).key == key
    assert open_parser("schp-lip", path, **options, mirror=True).key != key
    assert open_parser("schp-lip", path, device="cpu", precision="bf16").key != key
    schp["module.fushion.3.bias"] = schp["module.fushion.3.bias"] + np.float32(1e-6)
    assert open_parser("schp-lip", write_pth(path, schp), **options).key != key


@pytest.mark.parametrize("wrong", [{"scales": ()}, {"scales": (9.0,)}, {"batch": 0}])
def test_impossible_parser_options_are_refused(tmp_path: Path, schp, wrong):
    with pytest.raises(ConfigError, match=r"expected (numbers of 0.1 to 4|at least 1)"):
        open_parser("schp-lip", write_pth(tmp_path / "a.pth", schp), device="cpu", **wrong)
