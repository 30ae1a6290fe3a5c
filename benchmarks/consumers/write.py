"""Writes every network as ONNX, with images and embeddings to compare with, for check.py.

Run by hand, in reidkit's environment. The networks have random weights, ResNet-18 where the
architecture has a backbone, and batch norm statistics of random images; two have ResNet-50. Each
file comes with an .npz: `images` as the file takes them, and `embeddings` of PyTorch. With --for
triton the folder is a repository for check_triton.py.

    python benchmarks/consumers/write.py MODELS [--for boxmot] [--precision fp16] [NETWORK ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from reidkit import checkpoint
from reidkit.export.consumers import CONSUMERS, settings_for
from reidkit.export.exporter import caller_preprocess, export_onnx
from reidkit.export.verification import feed_for, random_crops, reference
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch, list_archs

SMALL = {(256, 128): (128, 64), (384, 128): (192, 64)}
"""Sizes that networks are exported at in place of the published ones."""

EXTRA = {
    "iaunet-video": ("iaunet", "resnet18", 4),
    "baseline-video": ("baseline", "resnet18", 4),
    "baseline-googlenet": ("baseline", "googlenet", 0),
    "baseline-resnet50": ("baseline", "resnet50", 0),
    "iaunet-resnet50": ("iaunet", "resnet50", 0),
}
"""File: architecture, backbone, frames."""


def save_checkpoint(path: Path, arch: str, backbone: str, frames: int) -> None:
    """A network whose batch norm statistics fit its weights, and whose residual branches, initially
    zero, are not."""
    torch.manual_seed(0)
    spec = get_arch(arch)
    names = {field.name for field in dataclasses.fields(spec.config)}
    config = spec.config(**({"backbone": backbone} if "backbone" in names else {}))
    published = arch.startswith("rga") or backbone == "resnet50"
    size = spec.input_size if published else SMALL.get(spec.input_size, spec.input_size)
    model = spec.build(config, num_ids=5, input_size=size)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(6, *([frames] if frames else []), 3, *size))
    header = checkpoint.Header(
        arch=arch,
        arch_config=dataclasses.asdict(config),
        preprocess=Preprocess(size=size),
        num_ids=5,
        frames=frames,
    )
    checkpoint.save(path, model, header)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--for", dest="consumer", choices=CONSUMERS, default="onnxruntime")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    arguments = parser.parse_intermixed_args()
    networks = {arch: (arch, "resnet18", 0) for arch in list_archs()} | EXTRA
    settings = settings_for(arguments.consumer, precision=arguments.precision)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks or networks:
        target = arguments.folder / f"{name.replace('/', '-')}.onnx"
        if arguments.consumer == "triton":
            target = target.with_suffix("") / "1/model.onnx"
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.safetensors"
            save_checkpoint(source, *networks[name])
            report = export_onnx(source, target, settings, overwrite=True)
            model, header = checkpoint.load(source)
        frames = header.frames
        (crops,) = random_crops([(3, frames)], header.preprocess.size)
        feed = CONSUMERS[arguments.consumer].feed or feed_for(
            caller_preprocess(header.preprocess, settings), settings.pixels
        )
        embeddings = reference(model, crops, header.preprocess).float().numpy()
        np.savez(target.with_suffix(".npz"), images=feed(crops), embeddings=embeddings, crops=crops)
        share = f"  float16 {report.float16_share:.0%}" if arguments.precision == "fp16" else ""
        print(
            f"{name:20} cosine >= {min(p.cosine for p in report.parities):.6f}{share}", flush=True
        )


if __name__ == "__main__":
    main()
