"""Errors that a user can fix. The command line prints them as one line and exits with status 2.

ReidkitError
├── ConfigError      a setting or an option is invalid
├── DataError        a data set, an image or a label map is invalid
├── MaskError        a mask file is missing, damaged or of another data set
├── CheckpointError  a weights file cannot be read or does not fit the network
└── RuntimeMissing   a device or an optional package is not available
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReidkitError(Exception):
    """The message says what was found, what was expected, where, and what to do next."""


class ConfigError(ReidkitError):
    """A setting or an option is invalid."""


class DataError(ReidkitError):
    """A data set, an image or a label map is invalid."""


class MaskError(ReidkitError):
    """A mask file is missing, damaged or belongs to another data set."""


class CheckpointError(ReidkitError):
    """A weights file cannot be read or does not fit the network."""


class RuntimeMissing(ReidkitError):
    """A device or an optional package is not available."""


def suggest(wrong: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    nearest = max(known, key=lambda name: _similarity(wrong, name), default="")
    if _similarity(wrong, nearest) >= 0.6:
        return f"Did you mean {nearest}?"
    return f"Known: {', '.join(known)}." if known else ""


def _similarity(wrong: str, name: str) -> float:
    """0 to 1; initials of the right words count as equal (learning_rate, lr)."""
    initials = "".join(word[:1] for word in wrong.rpartition(".")[2].split("_"))
    same_table = wrong.rpartition(".")[0] == name.rpartition(".")[0]
    if same_table and len(initials) > 1 and initials == name.rpartition(".")[2]:
        return 1.0
    return difflib.SequenceMatcher(None, wrong.lower(), name.lower()).ratio()
