from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from reidkit import checkpoint
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch

SIZE = (64, 32)


def save_network(
    path: Path, *, preprocess: Preprocess, frames: int = 0, arch: str = "baseline"
) -> Path:
    spec = get_arch(arch)
    config = spec.config(backbone="resnet18")
    torch.manual_seed(0)
    model = spec.build(config, num_ids=3, input_size=SIZE)
    header = checkpoint.Header(
        arch=arch,
        arch_config=dataclasses.asdict(config),
        preprocess=preprocess,
        num_ids=3,
        frames=frames,
    )
    checkpoint.save(path, model, header)
    return path


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image network with ImageNet's normalisation."""
    path = tmp_path_factory.mktemp("network") / "model.safetensors"
    return save_network(path, preprocess=Preprocess(size=SIZE))


@pytest.fixture(scope="session")
def bgr_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image network that takes BGR and has a normalisation of its own."""
    path = tmp_path_factory.mktemp("bgr") / "model.safetensors"
    preprocess = Preprocess(
        size=SIZE,
        channels="bgr",
        mean=(0.1, 0.5, 0.7),
        std=(0.4, 0.2, 0.3),
        interpolation="bilinear",
    )
    return save_network(path, preprocess=preprocess)


@pytest.fixture(scope="session")
def video_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "model.safetensors"
    return save_network(path, preprocess=Preprocess(size=SIZE), frames=4)


@pytest.fixture(scope="session")
def exported_iaunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose parts exchange information over clips of any length."""
    from reidkit.export.exporter import export_onnx

    source = tmp_path_factory.mktemp("iaunet") / "model.safetensors"
    save_network(source, preprocess=Preprocess(size=SIZE), frames=2, arch="iaunet")
    return export_onnx(source, source.with_name("model.onnx")).file


@pytest.fixture(scope="session")
def exported(network: Path) -> Path:
    """The image network, exported with all defaults."""
    from reidkit.export.exporter import export_onnx

    return export_onnx(network, network.with_name("model.onnx")).file
