"""A small data set with LIP label maps of a simple person: a head, a coat, trousers, two shoes."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.matching import label_stem, match_labels
from reidkit.masks.sources import FileSource, index_maps
from reidkit.types import Dataset, Sample


def make_labels(rng: np.random.Generator, *, height: int = 128, width: int = 64) -> np.ndarray:
    """LIP labels uint8 [height, width] of a person who stands near the middle."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    # shifted and tilted, so that no edge runs along the pixels
    x, y = (
        x + rng.uniform(-0.1, 0.1) + rng.uniform(-0.1, 0.1) * (y - 0.5),
        y + rng.uniform(-0.03, 0.03) + rng.uniform(-0.1, 0.1) * (x - 0.5),
    )
    labels = np.zeros((height, width), np.uint8)
    labels[(abs(x - 0.5) < 0.2) & (y > 0.2) & (y < 0.55)] = 7
    labels[(abs(x - 0.5) < 0.15) & (y >= 0.55) & (y < 0.9)] = 9
    labels[(abs(x - 0.42) < 0.06) & (y >= 0.9) & (y < 0.95)] = 18
    labels[(abs(x - 0.58) < 0.06) & (y >= 0.9) & (y < 0.95)] = 19
    labels[((x - 0.5) / 0.13) ** 2 + ((y - 0.12) / 0.08) ** 2 < 1] = 13
    labels[((x - 0.5) / 0.15) ** 2 + ((y - 0.08) / 0.05) ** 2 < 1] = 2
    return labels


def make_part_map(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Part indices 0..4 of such a person, uint8 of `size`."""
    grouping = default_grouping(load_label_set("lip"))
    return grouping.part_map(make_labels(rng, height=size[0], width=size[1]))


def save_labels(labels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def make_dataset(root: Path, *, images: int = 12, seed: int = 0) -> Dataset:
    """`images` grey JPEGs in train/, with label maps in labels/train/."""
    rng = np.random.default_rng(seed)
    for number in range(images):
        name = f"train/{number // 4:04d}_c{number % 4 + 1}s1_{number:06d}_01.jpg"
        labels = make_labels(rng)
        save_labels(labels, root / "labels" / f"{name[:-4]}.png")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(80 + 8 * labels).convert("RGB").save(root / name)
    return read_dataset(root)


def read_dataset(root: Path) -> Dataset:
    """The data set that `make_dataset` wrote."""
    return Dataset(
        name="toy",
        root=root,
        train=tuple(
            Sample(f"train/{file.name}", pid=int(file.name[:4]), camid=int(file.name[6]))
            for file in sorted((root / "train").iterdir())
        ),
        query=(),
        gallery=(),
        protocol="market",
        fingerprint="0" * 64,
    )


def lip_source(dataset: Dataset, labels: Path | None = None) -> FileSource:
    """The data set's own label maps, or those in another folder."""
    grouping = default_grouping(load_label_set("lip"))
    folder = labels or dataset.root / "labels"
    names = [sample.path for sample in dataset.train]
    matching = match_labels(names, folder, stem=label_stem).complete()
    return index_maps(dataset.root, matching, grouping)


class GreyParser:
    """Reads LIP labels from the grey levels that `make_dataset` paints, JPEG's noise included."""

    key, batch = "grey", 4

    def label_maps(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.clip(np.rint((i[..., 0] - 80.0) / 8), 0, 19).astype(np.uint8) for i in images]


class SocketProcesses:
    """Two processes that share a task, joined by a socket; a dead one raises EOFError in the
    other."""

    size = 2

    def __init__(self, rank: int, peer: socket.socket) -> None:
        self.rank, self.peer = rank, peer

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, items: Sequence) -> Sequence:
        return items[self.rank :: 2]

    def gather(self, value: object) -> list:
        text = pickle.dumps(value)
        self.peer.sendall(struct.pack("<I", len(text)) + text)
        (length,) = struct.unpack("<I", self._receive(4))
        other = pickle.loads(self._receive(length))
        return [value, other] if self.rank == 0 else [other, value]

    def broadcast(self, value: object) -> object:
        return self.gather(value)[0]

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.peer.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data
