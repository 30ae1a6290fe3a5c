"""Errors a user can mend. The command line prints them as one line and exits with status 2.

ReidkitError
├── ConfigError      a recipe, an option or an architecture setting is impossible
├── DataError        a data set, an image or a label map is not what it should be
├── MaskError        a mask store is missing, damaged or of another data set
├── CheckpointError  a weights file cannot be read or does not fit
└── RuntimeMissing   a device or a library that was asked for is not there
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReidkitError(Exception):
    """Says what was found, what was expected, where, and what to do next."""


class ConfigError(ReidkitError):
    """A recipe, an option or an architecture setting is impossible."""


class DataError(ReidkitError):
    """A data set, an image or a label map is not what it should be."""


class MaskError(ReidkitError):
    """A mask store is missing, damaged or belongs to another data set."""


class CheckpointError(ReidkitError):
    """A weights file cannot be read or does not fit the network."""


class RuntimeMissing(ReidkitError):
    """A device or a library that was asked for is not there."""


def suggest(wrong: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(wrong, known, n=1)
    if not near:  # a.learning_rate is far from a.lr as a whole: compare the last words too
        near = [name for name in known if name.rpartition(".")[0] == wrong.rpartition(".")[0] != ""]
        near = sorted(near, key=lambda name: -_overlap(wrong, name))[:1]
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known: {', '.join(known)}." if known else ""


def _overlap(wrong: str, name: str) -> float:
    initials = "".join(word[0] for word in wrong.rpartition(".")[2].split("_") if word)
    last = name.rpartition(".")[2]
    return max(difflib.SequenceMatcher(None, wrong, name).ratio(), 1.0 if initials == last else 0.0)
