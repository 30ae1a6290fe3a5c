"""Texts of options, read into values."""

from __future__ import annotations

import re
from typing import Any

from reidkit.errors import ConfigError

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6}
_UNITS |= {"GB": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def parse_size(text: str) -> list[int]:
    """ "256x128" -> [256, 128], height first."""
    height, x, width = text.partition("x")
    if not (x and height.isdigit() and width.isdigit()):
        raise ConfigError(f"--size {text}: write HEIGHTxWIDTH in pixels, as 256x128")
    return [int(height), int(width)]


def parse_memory(text: str) -> int:
    """ "500MiB" or "2G" -> bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigError(f"--max-memory {text}: write a number and a unit, as 500MiB or 2GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def external_inputs(
    *,
    size: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    resize: str | None,
) -> dict[str, Any]:
    """The fields of `Preprocess` that options give; for models that do not tell their own."""
    given = {
        "size": None if size is None else parse_size(size),
        "mean": None if mean is None else _numbers("--mean", mean),
        "std": None if std is None else _numbers("--std", std),
        "channels": channels,
        "interpolation": resize,
    }
    return {name: value for name, value in given.items() if value is not None}


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(number) for number in text.replace(",", " ").split()]
    except ValueError as error:
        raise ConfigError(f"{option} {text}: write three numbers, as 0.485,0.456,0.406") from error


def embedding_option(embedding: str | None) -> dict[str, str]:
    """`--embedding` as an option of an architecture."""
    return {} if embedding is None else {"embedding": embedding}
