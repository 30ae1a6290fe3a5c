"""Parsers in ONNX: small networks in the authors' formats, exported and run by ONNX Runtime."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from parser_checkpoints import write_bundle, write_pth

from reidkit.errors import CheckpointError, ConfigError, ReidkitError
from reidkit.export import parser as parser_export
from reidkit.export.parser import export_parser_onnx
from reidkit.masks.parsers import networks, weights
from reidkit.masks.parsers.base import NetworkParser
from reidkit.masks.parsers.exported import METADATA, open_exported, read_header
from reidkit.masks.parsers.jppnet import JppNet
from reidkit.masks.parsers.networks import PARSERS, open_parser
from reidkit.masks.parsers.schp import Schp
from reidkit.masks.parsers.weights import jppnet_name
from reidkit.runtime.onnx_session import open_session

SMALL = {"width": 16, "blocks": (1, 1, 1, 1)}
SIDES = {"schp-lip": 65, "jppnet": 64}


def write_checkpoint(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    if name == "jppnet":
        state = JppNet(**SMALL).state_dict()
        tensors = {jppnet_name(k): v.numpy() for k, v in state.items() if v.dim()}
        for key, values in tensors.items():
            if values.ndim == 4:
                tensors[key] = np.ascontiguousarray(values.transpose(2, 3, 1, 0))
        return write_bundle(folder / "JPPNet-s2", tensors).parent
    state = Schp(20, **SMALL).state_dict()
    return write_pth(folder / "a.pth", {f"module.{k}": v.numpy() for k, v in state.items()})


@pytest.fixture(scope="module", params=["schp-lip", "jppnet"])
def exported(request, tmp_path_factory: pytest.TempPathFactory):
    """Name, checkpoint, ONNX file and what the verification found."""
    name, folder = request.param, tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "Schp", partial(Schp, **SMALL))
        patch.setattr(weights, "JppNet", partial(JppNet, **SMALL))
        small = dataclasses.replace(PARSERS[name], size=SIDES[name])
        patch.setitem(networks.PARSERS, name, small)
        checkpoint, file = write_checkpoint(name, folder), folder / "parser.onnx"
        parities = export_parser_onnx(name, checkpoint, file)
        yield SimpleNamespace(name=name, checkpoint=checkpoint, file=file, parities=parities)


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(128, 64), (64, 128), (33, 20), (1, 1), (90, 90)]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def open_file(file: Path, **options) -> NetworkParser:
    session = open_session(file, "cpu")
    header = read_header(session)
    assert header is not None
    return open_exported(session, header, **options)


def test_the_file_gives_pytorchs_label_maps(exported):
    parser = open_parser(exported.name, exported.checkpoint, device="cpu", precision="fp32")
    file = open_file(exported.file)
    assert file.name == exported.name and file.labels == parser.labels
    assert file.is_original and file.key != parser.key
    for ours, theirs in zip(file.label_maps(images()), parser.label_maps(images()), strict=True):
        assert ours.shape == theirs.shape
        assert (ours == theirs).mean() > 0.999


def test_scales_and_mirroring_can_be_chosen(exported):
    options = {"scales": (1.0,), "mirror": exported.name == "schp-lip"}
    parser = open_parser(
        exported.name, exported.checkpoint, device="cpu", precision="fp32", **options
    )
    file = open_file(exported.file, **options, batch=2)
    assert not file.is_original and file.original().key == open_file(exported.file).key
    for ours, theirs in zip(file.label_maps(images()), parser.label_maps(images()), strict=True):
        assert (ours == theirs).mean() > 0.999


def test_scales_that_a_file_cannot_run_are_refused(exported):
    expected = "65" if exported.name == "schp-lip" else "multiples of 8"
    with pytest.raises(ConfigError, match=f"inputs of only {expected} pixels.* scale 1.1 gives 7"):
        open_file(exported.file, scales=(1.0, 1.1))


def test_the_verification_covers_batches_and_sizes(exported):
    sides = [65, 65] if exported.name == "schp-lip" else [64, 48]
    assert [(parity.batch, parity.side) for parity in exported.parities] == [
        (1, sides[0]),
        (3, sides[1]),
    ]
    assert all(parity.error < 1e-5 and parity.agreement > 0.999 for parity in exported.parities)


def test_the_file_has_no_local_paths(exported):
    content = exported.file.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert str(exported.checkpoint).encode() not in content


def test_an_export_that_fails_its_verification_writes_nothing(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(parser_export, "MAX_ERROR", -1.0)
    monkeypatch.setattr(parser_export, "_exported", lambda *_: onnx.load(exported.file))
    with pytest.raises(ReidkitError, match=r"failed its verification: for a batch of 1 at"):
        export_parser_onnx(exported.name, exported.checkpoint, tmp_path / "new.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        export_parser_onnx("schp-atr", tmp_path / "none.pth", tmp_path / "new.onnx")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "Export it again: reidkit masks export-parser"),
        ("[]", "Export it again"),
        ('{"format": 2}', "Export it again"),
        ('{"format": 1, "name": "schp-lip"}', METADATA),
    ],
)
def test_a_malformed_header_is_refused(exported, tmp_path, header, message):
    model = onnx.load(exported.file)
    onnx.helper.set_model_props(model, {METADATA: header})
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match=message):
        read_header(open_session(tmp_path / "a.onnx", "cpu"))


def test_other_files_have_no_header(exported, tmp_path):
    model = onnx.load(exported.file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "a.onnx")
    assert read_header(open_session(tmp_path / "a.onnx", "cpu")) is None
