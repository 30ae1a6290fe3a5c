"""Readers: one file per way that data sets are laid out on disk.

A reader takes a manifest and the data set's folder and returns its splits, sorted by path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reidkit.data.readers.pattern import read_pattern
from reidkit.types import Item

Reader = Callable[[Any, Any], Mapping[str, Sequence[Item]]]

READERS: dict[str, Reader] = {
    "pattern": read_pattern,
}
