"""Readers: one file per on-disk layout of data sets.

A reader takes a manifest, the data set's folder and a list that it appends problems to, and yields
one row per image; `rows.build_splits` converts rows to samples and tracklets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from reidkit.data.readers.cuhk03 import read_cuhk03
from reidkit.data.readers.lists import read_lists
from reidkit.data.readers.mars import read_mars
from reidkit.data.readers.pattern import read_pattern, read_tracklets
from reidkit.data.readers.rows import Row
from reidkit.data.readers.table import read_csv
from reidkit.data.schema import Manifest

Reader = Callable[[Manifest, Path, list[str]], Iterator[Row]]

READERS: dict[str, Reader] = {
    "pattern": read_pattern,
    "tracklets": read_tracklets,
    "lists": read_lists,
    "mars": read_mars,
    "cuhk03": read_cuhk03,
    "csv": read_csv,
}
