"""An exported file is verified against PyTorch before it is written."""

import dataclasses
from pathlib import Path

import pytest
import reidkit.runtime.export
import torch
from reidkit.runtime.export import Parity, export_onnx

from reidkit import checkpoint
from reidkit.errors import ReidkitError
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = get_arch("baseline")
    config = spec.config(backbone="resnet18")
    torch.manual_seed(0)
    model = spec.build(config, num_ids=3, input_size=(64, 32))
    header = checkpoint.Header(
        arch="baseline",
        arch_config=dataclasses.asdict(config),
        preprocess=Preprocess(size=(64, 32)),
        num_ids=3,
    )
    path = tmp_path_factory.mktemp("export") / "model.safetensors"
    checkpoint.save(path, model, header)
    return path


def test_a_file_contains_no_local_paths_or_source_lines(source: Path, tmp_path: Path) -> None:
    parities = export_onnx(source, tmp_path / "m.onnx", output_name="vector")
    assert all(parity.error < 1e-5 for parity in parities)
    content = (tmp_path / "m.onnx").read_bytes()
    assert str(Path(reidkit.runtime.export.__file__).parent).encode() not in content
    assert b"stack_trace" not in content and b"return self." not in content


def parity(batch: int, cosine: float) -> Parity:
    return Parity(batch=batch, frames=0, cosine=cosine, error=1 - cosine)


def test_an_export_that_differs_is_not_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [parity(1, 1.0), parity(8, 0.97)]
    monkeypatch.setattr(reidkit.runtime.export, "compare", lambda *args, **options: found)
    with pytest.raises(ReidkitError, match=r"at batch 8 .* cosine 0\.970000 .* was not written"):
        export_onnx(source, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_verification_detects_a_wrong_weight(source: Path, tmp_path: Path) -> None:
    export_onnx(source, tmp_path / "m.onnx")
    model, header = checkpoint.load(source)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "layer2.0.conv1" in name).add_(0.05)
    wrong = reidkit.runtime.export.ExportModule(model).eval()
    parities = reidkit.runtime.export.compare(
        wrong, tmp_path / "m.onnx", header.preprocess, [(1, 0), (3, 0)]
    )
    assert not all(parity.passed for parity in parities)
