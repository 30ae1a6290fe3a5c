"""From images to part masks to training: a small human parser, trained on synthetic people.

    python benchmarks/parser_training.py [--steps 150] [--width 16] [--folder DIR]

Trains SCHP's network at a quarter of its width on the 20-label maps of a synthetic data set,
exports it to ONNX, prepares the masks of the training images with it, and trains iaunet on them for
one epoch, all but the training of the parser by the commands that users type. Prints the parser's
mean IoU on people that it has not seen, and that of the masks. The parser knows synthetic people
only: it shows that the commands fit together, and is of no use for photographs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reidkit import __version__
from reidkit.cli import app
from reidkit.data.manifest import open_dataset
from reidkit.export.parser import export_network
from reidkit.image import read_image
from reidkit.masks.agreement import confusion, intersection_over_union
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.parsers.exported import ParserHeader
from reidkit.masks.parsers.networks import weights_hash
from reidkit.masks.parsers.schp import MEAN, STD, Schp
from reidkit.synthetic import LAYOUTS
from reidkit.types import Dataset, Sample

# B batch, C classes, N side of the network's input, n of its scores

SIDE = 128
"""Of the network's input. SCHP's procedure puts a 128x64 image into a square of this side pixel by
pixel, between two black bars."""
BATCH = 16
IGNORED = 255
"""Label of the bars."""
LIP = load_label_set("lip")

Counts = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="batches of 16 images")
    parser.add_argument("--width", type=int, default=16, help="channels of the stem; SCHP has 64")
    parser.add_argument("--train-pids", type=int, default=20)
    parser.add_argument("--test-pids", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="to keep the files; must be empty or new")
    arguments = parser.parse_args()
    keep = arguments.folder
    with nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        run(
            Path(folder),
            steps=arguments.steps,
            width=arguments.width,
            train_pids=arguments.train_pids,
            test_pids=arguments.test_pids,
        )


def run(
    folder: Path,
    *,
    steps: int,
    width: int,
    train_pids: int,
    test_pids: int,
    training: Sequence[str] = ("--size", "128x64"),
) -> dict[str, float]:
    """Everything from images to a trained iaunet, in `folder`; the mean IoUs that are printed.

    Args:
        training: more options of `reidkit train`.
    """
    root, onnx, masks = folder / "people", folder / "parser.onnx", folder / "masks.h5"
    LAYOUTS["market1501"](root, train_pids=train_pids, test_pids=test_pids, seed=0, workers=1)
    data = open_dataset(str(root))
    network = train(data, steps=steps, width=width)
    header = ParserHeader(
        name="schp-lip",
        procedure="schp",
        label_set="lip",
        size=SIDE,
        weights=weights_hash(network),
        reidkit=__version__,
    )
    export_network(network, header, onnx)

    command = ["prepare-masks", "--dataset", str(root), "--parser", str(onnx), "--device", "cpu"]
    ious = {}
    for split in ("train", "query"):
        kept = folder / f"labels-{split}"
        more = ["--split", split, "--keep-labels", str(kept)]
        target = masks if split == "train" else folder / "query.h5"
        app([*command, *more, "-o", str(target)], standalone_mode=False)
        labels, parts = mean_ious(data, getattr(data, split), kept)
        ious |= {f"{split}, labels": labels, f"{split}, parts": parts}
    command = ["train", "--arch", "iaunet", "--dataset", str(root), "--masks", str(masks)]
    command += ["--epochs", "1", "--weights", "none", "--device", "cpu", "--workers", "0"]
    command += ["--set", "arch.backbone=resnet18"]
    app([*command, *training, "--out", str(folder / "run")], standalone_mode=False)
    for name, iou in ious.items():
        print(f"mean IoU, {name}: {iou:.3f}")
    return ious


def train(data: Dataset, *, steps: int, width: int) -> Schp:
    """SCHP's network, trained for `steps` batches on a data set's images and label maps."""
    torch.manual_seed(0)
    network = Schp(len(LIP.names), width=width, blocks=(2, 2, 2, 2)).train()
    network = network.to(memory_format=torch.channels_last)
    images, labels = load(data, data.train)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.1
    )
    losses: list[float] = []
    for step, rows in zip(range(steps), batches(len(images)), strict=False):
        x, y = images[rows], labels[rows]
        if step % 2:
            x, y = mirrored(x, y)
        scores = network(normalised(x))
        scores = F.interpolate(scores, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
        loss = F.cross_entropy(scores, y.long(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"step {step + 1} of {steps}: loss {np.mean(losses[-50:]):.3f}", flush=True)
    return network.eval()


def load(data: Dataset, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Images uint8 [*, N, N, 3] and labels uint8 [*, N, N] between the bars."""
    images = torch.zeros(len(samples), SIDE, SIDE, 3, dtype=torch.uint8)
    labels = torch.full((len(samples), SIDE, SIDE), IGNORED, dtype=torch.uint8)
    bar = (SIDE - 64) // 2
    for row, sample in enumerate(samples):
        pixels = np.asarray(read_image(data.root / sample.path))
        assert pixels.shape == (SIDE, 64, 3), sample.path
        images[row, :, bar:-bar] = torch.from_numpy(pixels.copy())
        labels[row, :, bar:-bar] = torch.from_numpy(true_labels(data, sample).copy())
    return images, labels


def true_labels(data: Dataset, sample: Sample) -> NDArray[np.uint8]:
    """The label map uint8 [H, W] that comes with a synthetic image."""
    assert data.labels is not None
    with Image.open((data.labels / sample.path).with_suffix(".png")) as file:
        return np.asarray(file)


def batches(count: int) -> Iterator[Tensor]:
    """Rows of one batch after another, shuffled for each epoch, without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // BATCH * BATCH].split(BATCH)


def mirrored(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, N, N, 3] and labels [B, N, N] mirrored, left and right labels swapped."""
    swap = torch.arange(256, dtype=torch.uint8)
    swap[: len(LIP.names)] = torch.tensor(LIP.mirrored, dtype=torch.uint8)
    return images.flip(2), swap[labels.flip(2).long()]


def normalised(images: Tensor) -> Tensor:
    """RGB uint8 [B, N, N, 3] -> BGR float32 [B, 3, N, N] as SCHP takes them."""
    return ((images.flip(3) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def mean_ious(data: Dataset, samples: Sequence[Sample], kept: Path) -> tuple[float, float]:
    """Mean IoU of the label maps in `kept` with the true ones: over the labels and over the four
    parts that occur, background included."""
    size = len(LIP.names)
    table = default_grouping(LIP).table
    by_label, by_part = np.zeros((size, size), np.int64), np.zeros((5, 5), np.int64)
    for sample in samples:
        true = true_labels(data, sample)
        with Image.open((kept / sample.path).with_suffix(".png")) as file:
            found = np.asarray(file)
        by_label += confusion(true, found, size=size)
        by_part += confusion(table[true], table[found], size=5)
    labels, parts = (np.nanmean(intersection_over_union(c)).item() for c in (by_label, by_part))
    return labels, parts


if __name__ == "__main__":
    main()
