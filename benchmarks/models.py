"""Untrained networks for benchmarks, as checkpoints and in ONNX files:

    python benchmarks/models.py FOLDER

writes ResNet-50 iaunet as a checkpoint and as exports in float32, in float16, in float16 with an
input of uint8 pixels, and in float32 with batches of 8.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from reidkit.export.exporter import export_onnx
from reidkit.export.settings import ExportSettings

EXPORTS = {
    "fp32": ExportSettings(),
    "fp16": ExportSettings(precision="fp16"),
    "fp16-uint8": ExportSettings(precision="fp16", pixels="uint8-nhwc"),
    "fp32-batch8": ExportSettings(batch=8),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = iaunet_checkpoint(folder)
    for name, settings in EXPORTS.items():
        export_onnx(checkpoint, folder / f"iaunet-{name}.onnx", settings)


def small_network(folder: Path) -> Path:
    """A network of OSNet's kind in an ONNX file: 1x1 and depthwise 3x3 convolutions, 1.8 million
    parameters, 0.85 billion multiplications at 256x128."""
    import torch
    from torch import nn

    def separable(inner: int, outer: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inner, outer, 1, bias=False),
            nn.Conv2d(outer, outer, 3, padding=1, groups=outer, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
        )

    class Block(nn.Module):
        def __init__(self, inner: int, outer: int) -> None:
            super().__init__()
            middle = outer // 4
            self.body = nn.Sequential(
                separable(inner, middle),
                separable(middle, middle),
                separable(middle, middle),
                nn.Conv2d(middle, outer, 1, bias=False),
                nn.BatchNorm2d(outer),
            )
            self.skip = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.skip(x) + self.body(x))

    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2, 1), Block(64, 256)]
    layers += [Block(256, 256), Block(256, 256), nn.Conv2d(256, 256, 1), nn.AvgPool2d(2)]
    layers += [Block(256, 384), Block(384, 384), Block(384, 384), nn.Conv2d(384, 384, 1)]
    layers += [nn.AvgPool2d(2), Block(384, 512), Block(512, 512), nn.Conv2d(512, 512, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 512)]
    path = folder / "small.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            nn.Sequential(*layers).eval(),
            (torch.zeros(2, 3, 256, 128),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=False,
            verbose=False,
        )
    return path


def iaunet_checkpoint(folder: Path) -> Path:
    """An untrained ResNet-50 iaunet."""
    import torch

    from reidkit import checkpoint
    from reidkit.preprocess import Preprocess

    header = checkpoint.Header(arch="iaunet", arch_config={}, preprocess=Preprocess(), num_ids=751)
    model = checkpoint.build(header).train()
    with torch.no_grad():
        model(torch.randn(8, 3, 256, 128))  # so that batch norm has statistics
    checkpoint.save(folder / "iaunet.safetensors", model, header)
    return folder / "iaunet.safetensors"


def iaunet(folder: Path) -> Path:
    """The same in an ONNX file."""
    export_onnx(iaunet_checkpoint(folder), folder / "iaunet.onnx")
    return folder / "iaunet.onnx"


if __name__ == "__main__":
    main()
