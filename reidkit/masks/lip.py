"""From the labels of a human parser to body parts: label sets and groupings, read from TOML.

The four parts of IAUnet over LIP's 20 labels are nowhere published. The grouping here is the one
of SPReID (Kalayeh et al., CVPR 2018), whose four part names IAUnet shares.
"""

# H W pixels, L labels, P parts

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from reidkit.config.tables import read_toml
from reidkit.errors import ConfigError, suggest

MAX_PARTS = 15
"""Sixteen values, background included, still share a byte in the store."""

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelSet:
    """The classes of one human parser.

    Attributes:
        name: "lip", "cihp", "atr", "pascal-person-part", or a file's stem.
        names: one per label, position = label; the first is the background.
        mirror: pairs of labels that change places when the picture is mirrored.
        palette: RGB per label, or empty where no colouring is known.
        parts: the set's own grouping, part name -> labels.
    """

    name: str
    names: tuple[str, ...]
    mirror: tuple[tuple[int, int], ...]
    palette: tuple[tuple[int, int, int], ...]
    parts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def mirrored(self) -> list[int]:
        """For each label, the one that takes its place in the mirrored picture."""
        order = list(range(len(self.names)))
        for left, right in self.mirror:
            order[left], order[right] = right, left
        return order


@dataclass(frozen=True)
class Grouping:
    """Which labels make which part; part k of `parts` gets index k + 1, the rest 0.

    Attributes:
        name: of the label set, or of the file that says otherwise.
        labels: the label set that the numbers belong to.
        members: labels of each part, in the order of `parts`.
    """

    name: str
    labels: LabelSet
    parts: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    @cached_property
    def table(self) -> Labels:
        """uint8 [256]: label -> part index; labels that do not exist give 0."""
        table = np.zeros(256, np.uint8)
        for index, members in enumerate(self.members, start=1):
            table[list(members)] = index
        return table

    def part_map(self, label_map: Labels) -> Labels:
        """Part indices uint8 [H, W] of a label map uint8 [H, W]."""
        return self.table[label_map]

    def describe(self) -> dict[str, list[str]]:
        """Part name -> label names: what the store's `grouping` attribute holds."""
        return {
            part: [self.labels.names[label] for label in members]
            for part, members in zip(self.parts, self.members, strict=True)
        }


def list_label_sets() -> list[str]:
    """Names of the label sets that come with reidkit, sorted."""
    folder = resources.files("reidkit.masks") / "labels"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_label_set(name: str) -> LabelSet:
    """A label set by name, or by the path of a TOML file of the same form.

    Raises:
        ConfigError: if there is none, or its file is malformed.
    """
    if name.endswith(".toml"):
        return _label_set(Path(name).stem, read_toml(Path(name)), name)
    if name not in list_label_sets():
        raise ConfigError(f"unknown label set {name!r}. {suggest(name, list_label_sets())}")
    text = (resources.files("reidkit.masks") / "labels" / f"{name}.toml").read_text("utf-8")
    return _label_set(name, tomllib.loads(text), f"{name}.toml")


def default_grouping(labels: LabelSet) -> Grouping:
    """The label set's own grouping."""
    return Grouping(
        labels.name,
        labels,
        tuple(part for part, _ in labels.parts),
        tuple(members for _, members in labels.parts),
    )


def load_grouping(path: Path, labels: LabelSet | None = None) -> Grouping:
    """A grouping from a TOML file: `labels = "lip"` and a table [parts] of part = [labels].

    Labels are names or numbers. `labels` (argument) takes precedence over the file's line.

    Raises:
        ConfigError: for an unknown key or label, a label in two parts, no part or too many.
    """
    table, where = read_toml(path), path.name
    unknown = sorted(set(table) - {"labels", "parts", "description"})
    if unknown:
        known = ("labels", "parts", "description")
        raise ConfigError(f"{where}: unknown key {unknown[0]}. {suggest(unknown[0], known)}")
    if labels is None:
        name = table.get("labels", "lip")
        if not isinstance(name, str):
            raise ConfigError(f"{where}: labels is {name!r}, expected a label set's name")
        labels = load_label_set(name)
    parts = _parts(table.get("parts"), labels.names, where)
    return Grouping(path.stem, labels, tuple(p for p, _ in parts), tuple(m for _, m in parts))


def _label_set(name: str, table: Mapping[str, Any], where: str) -> LabelSet:
    known = ("description", "names", "mirror", "palette", "parts")
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key}. {suggest(key, known)}")
    names = table.get("names", [])
    if not _strings(names) or not 2 <= len(names) <= 256 or len(set(names)) != len(names):
        raise ConfigError(f"{where}: names must be 2 to 256 different strings, background first")
    mirror = tuple(
        (_label(left, names, where), _label(right, names, where))
        for left, right in _pairs(table.get("mirror", []), where)
    )
    palette = tuple(_colour(colour, where) for colour in table.get("palette", []))
    if palette and (len(palette) != len(names) or len(set(palette)) != len(names)):
        raise ConfigError(f"{where}: palette must be {len(names)} different colours, one per label")
    parts = _parts(table.get("parts"), names, where)
    return LabelSet(name, tuple(names), mirror, palette, parts)


def _parts(
    table: object, names: Sequence[str], where: str
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if not isinstance(table, dict) or not 1 <= len(table) <= MAX_PARTS:
        raise ConfigError(f"{where}: expected a table [parts] of 1 to {MAX_PARTS} parts")
    owner: dict[int, str] = {}
    parts = []
    for part, members in table.items():
        if not isinstance(members, list) or not members:
            raise ConfigError(f"{where}: [parts] {part}: expected a list of labels")
        labels = tuple(_label(member, names, f"{where}: [parts] {part}") for member in members)
        for label in labels:
            if label in owner:
                raise ConfigError(
                    f"{where}: label {label} ({names[label]}) is in {owner[label]!r} and in"
                    f" {part!r}; a label belongs to one part"
                )
            owner[label] = part
        parts.append((part, labels))
    return tuple(parts)


def _label(value: object, names: Sequence[str], where: str) -> int:
    if isinstance(value, str):
        if value not in names:
            raise ConfigError(f"{where}: unknown label {value!r}. {suggest(value, names)}")
        value = list(names).index(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < len(names):
        raise ConfigError(f"{where}: label {value!r} is not one of 1..{len(names) - 1}")
    return value


def _pairs(value: object, where: str) -> list[list[object]]:
    if not isinstance(value, list) or any(
        not isinstance(pair, list) or len(pair) != 2 for pair in value
    ):
        raise ConfigError(f"{where}: mirror must be a list of pairs of labels")
    return value


def _colour(value: object, where: str) -> tuple[int, int, int]:
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(isinstance(level, int) and 0 <= level <= 255 for level in value)
    ):
        raise ConfigError(f"{where}: palette entry {value!r} is not [red, green, blue] of 0..255")
    red, green, blue = value
    return red, green, blue


def _strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
