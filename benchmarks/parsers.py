"""Measures a named parser: images per second against eager float32 one image at a time, and the
share of pixels whose label the faster arithmetic keeps.

    python benchmarks/parsers.py [--parser schp-lip] [--parser-weights FILE] [--images 4]

Without weights the network is random, its batch normalisation set by a pass over the images; such a
network turns small differences into other labels far more often than a trained one. The variants
take turns in every round, so that other load on the machine meets all alike; the ratios are medians
over rounds. Tables go to stdout.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reidkit.choices import ParserName
from reidkit.device import torch_device
from reidkit.masks.labels import load_label_set
from reidkit.masks.parsers.base import ProcedureParser
from reidkit.masks.parsers.jppnet import JppNet
from reidkit.masks.parsers.networks import PARSERS, build_procedure, torch_forward
from reidkit.masks.parsers.schp import Schp

SIZE = (256, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parser", choices=get_args(ParserName), default="schp-lip")
    parser.add_argument("--parser-weights", type=Path)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast", action="store_true", help="One scale, no mirroring.")
    arguments = parser.parse_args()
    device = torch_device(arguments.device)
    images = sampled_images(arguments.images)
    network = open_network(arguments.parser, arguments.parser_weights, images).to(device)
    published = PARSERS[arguments.parser]
    procedure = build_procedure(published.procedure, published.label_set, published.size)
    if arguments.fast:
        procedure = procedure.averaged((1.0,), False)
    eager = ProcedureParser(
        name=arguments.parser,
        labels=load_label_set(published.label_set),
        procedure=procedure,
        forward=network,
        device=device,
        batch=1,
        facts=(),
    )
    fp32, bf16 = (
        replace(eager, forward=torch_forward(network, device, p)) for p in ("fp32", "bf16")
    )
    variants = {
        "eager fp32, one image": eager,
        "fp32, batch": replace(fp32, batch=published.batch),
        "bf16, batch": replace(bf16, batch=published.batch),
    }
    threads = torch.get_num_threads()
    print(f"{arguments.parser}, {len(images)} images, {threads} threads, {device}")
    reference = np.stack(eager.label_maps(images))
    agreement = {
        name: (np.stack(v.label_maps(images)) == reference).mean() for name, v in variants.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(arguments.rounds):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant.label_maps(images)
            seconds[name].append((time.perf_counter() - start) / len(images))
    base = np.array(seconds["eager fp32, one image"])
    print(f"{'variant':24} {'s/image':>8} {'times as fast':>22} {'equal labels':>13}")
    for name, found in seconds.items():
        ratios = base / np.array(found)
        spread = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        print(f"{name:24} {np.median(found):8.2f} {spread:>22} {agreement[name]:13.2%}", flush=True)


def sampled_images(count: int) -> list[np.ndarray]:
    """Smooth noise, RGB uint8 [H, W, 3]."""
    coarse = torch.rand(count, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    pixels = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1) * 255
    return list(pixels.permute(0, 2, 3, 1).to(torch.uint8).numpy())


def open_network(name: ParserName, weights: Path | None, images: list[np.ndarray]) -> nn.Module:
    published = PARSERS[name]
    if weights:
        return published.load(weights)
    torch.manual_seed(0)
    network: nn.Module = (
        JppNet() if name == "jppnet" else Schp(len(load_label_set(published.label_set).names))
    )
    procedure = build_procedure(published.procedure, published.label_set, published.size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it has seen
    with torch.no_grad():
        procedure.averaged((1.0,), False).label_maps(
            images[:2], network.train(), torch.device("cpu")
        )
    return network.eval()


if __name__ == "__main__":
    main()
