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
    nearest = max(known, key=lambda name: _likeness(wrong, name), default="")
    if _likeness(wrong, nearest) >= 0.6:
        return f"Did you mean {nearest}?"
    return f"Known: {', '.join(known)}." if known else ""


def _likeness(wrong: str, name: str) -> float:
    """0 to 1; an abbreviation of the right words is as near as can be (learning_rate, lr)."""
    initials = "".join(word[:1] for word in wrong.rpartition(".")[2].split("_"))
    same_table = wrong.rpartition(".")[0] == name.rpartition(".")[0]
    if same_table and len(initials) > 1 and initials == name.rpartition(".")[2]:
        return 1.0
    return difflib.SequenceMatcher(None, wrong.lower(), name.lower()).ratio()
