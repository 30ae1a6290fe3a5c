"""Parsers by name: a published checkpoint, its network and its test procedure."""

from __future__ import annotations

from pathlib import Path

from reidkit.choices import ParserName, ParserPrecision
from reidkit.masks.parsers.base import NetworkParser


def open_parser(
    name: ParserName,
    weights: Path,
    *,
    device: str = "auto",
    scales: tuple[float, ...] | None = None,
    mirror: bool | None = None,
    precision: ParserPrecision = "auto",
    batch: int | None = None,
) -> NetworkParser:
    """The parser `name` with the weights of a published checkpoint.

    Args:
        weights: SCHP: the .pth file. JPPNet: the folder JPPNet-s2, the .index file, or the prefix
            of both files.
        device: auto, cpu, cuda or cuda:N.
        scales: of the network's input size; scores are averaged over them. Default: the authors'.
        mirror: average with the mirrored image, left and right labels swapped. Default: the
            authors' choice.
        precision: auto is bf16 where the device computes it natively.
        batch: images per forward pass. Default: by network and device.

    Raises:
        CheckpointError: if the file cannot be read, is damaged, or is of another network or label
            set.
        ConfigError: if scales or batch are impossible.
        RuntimeMissing: if the device is not available.
    """
    raise NotImplementedError
