"""From the labels of a human parser to body parts: label sets and groupings, read from TOML.

The four parts of IAUnet over LIP's 20 labels are nowhere published. The grouping here is the one
of SPReID (Kalayeh et al., CVPR 2018), whose four part names IAUnet shares.
"""

# H W pixels, L labels, P parts

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reidkit.config.tables import from_table, read_toml
from reidkit.errors import ConfigError, suggest

MAX_PARTS = 15

Labels = npt.NDArray[np.uint8]
Parts = dict[str, tuple[int | str, ...]]


@dataclass(frozen=True)
class LabelSet:
    """The classes of one human parser.

    Attributes:
        name: "lip", "cihp", "atr", "pascal-person-part", or a file's stem.
        names: one per label, position = label; the first is the background.
        mirror: pairs of labels that swap when the image is mirrored.
        palette: RGB per label, or empty where no palette is known.
        parts: the set's own grouping, part name -> labels.
        note: what users of that grouping should know, or "".
    """

    name: str
    names: tuple[str, ...]
    mirror: tuple[tuple[int, int], ...]
    palette: tuple[tuple[int, int, int], ...]
    parts: dict[str, tuple[int, ...]]
    note: str = ""

    @property
    def mirrored(self) -> list[int]:
        """For each label, the one that replaces it in the mirrored image."""
        order = list(range(len(self.names)))
        for left, right in self.mirror:
            order[left], order[right] = right, left
        return order


@dataclass(frozen=True)
class Grouping:
    """Which labels make which part; part k of `parts` gets index k + 1, the rest 0.

    Attributes:
        name: of the label set, or of the grouping's file.
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

    def describe(self) -> dict[str, tuple[str, ...]]:
        """Part name -> label names: the store's `grouping` attribute."""
        return {
            part: tuple(self.labels.names[label] for label in members)
            for part, members in zip(self.parts, self.members, strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class _LabelSetFile:
    """A label set as TOML; labels are names or numbers."""

    names: tuple[str, ...]
    parts: Parts
    mirror: tuple[tuple[int | str, int | str], ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    note: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class _GroupingFile:
    """A grouping as TOML."""

    parts: Parts = field(default_factory=dict)
    labels: str | None = None
    description: str = ""


def list_label_sets() -> list[str]:
    """Names of the label sets that come with reidkit, sorted."""
    folder = resources.files("reidkit.masks") / "label_sets"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_label_set(name: str) -> LabelSet:
    """A label set by name, or by the path of a TOML file of the same form.

    Raises:
        ConfigError: if there is none, or its file is malformed.
    """
    if name.endswith(".toml"):
        return _label_set(Path(name).stem, read_toml(Path(name)), where=name)
    if name not in list_label_sets():
        raise ConfigError(f"unknown label set {name!r}. {suggest(name, list_label_sets())}")
    text = (resources.files("reidkit.masks") / "label_sets" / f"{name}.toml").read_text("utf-8")
    return _label_set(name, tomllib.loads(text), where=f"{name}.toml")


def default_grouping(labels: LabelSet) -> Grouping:
    """The label set's own grouping."""
    return Grouping(labels.name, labels, tuple(labels.parts), tuple(labels.parts.values()))


def load_grouping(path: Path, labels: LabelSet | None = None) -> Grouping:
    """A grouping from a TOML file: `labels = "lip"` and a table [parts] of part = [labels].

    Labels are names or numbers.

    Args:
        labels: that are to be grouped. Default: those that the file names, or else LIP's.

    Raises:
        ConfigError: for an unknown key or label, a label in two parts, no part or too many, or if
            the file groups other labels than `labels`.
    """
    file = from_table(_GroupingFile, read_toml(path), where=path.name)
    named = load_label_set(file.labels) if file.labels else None
    if named and labels and named.names != labels.names:
        raise ConfigError(
            f"{path.name} groups the labels of {named.name}, but the label maps have those of"
            f" {labels.name}. Write a grouping with labels = {labels.name!r}"
        )
    labels = labels or named or load_label_set("lip")
    parts = _numbered(file.parts, labels.names, where=path.name)
    return Grouping(path.stem, labels, tuple(parts), tuple(parts.values()))


def _label_set(name: str, table: Mapping[str, object], *, where: str) -> LabelSet:
    file = from_table(_LabelSetFile, table, where=where)
    names, palette = file.names, file.palette
    if not 2 <= len(names) <= 256 or len(set(names)) != len(names):
        raise ConfigError(f"{where}: names must be 2 to 256 different strings, background first")
    mirror = tuple(
        (_number(left, names, where=where), _number(right, names, where=where))
        for left, right in file.mirror
    )
    if not all(0 <= level <= 255 for colour in palette for level in colour):
        raise ConfigError(f"{where}: palette must be [red, green, blue] of 0..255 per label")
    if palette and (len(palette) != len(names) or len(set(palette)) != len(names)):
        raise ConfigError(f"{where}: palette must be {len(names)} different colours, one per label")
    parts = _numbered(file.parts, names, where=where)
    return LabelSet(name, names, mirror, palette, parts, file.note)


def _numbered(parts: Parts, names: Sequence[str], *, where: str) -> dict[str, tuple[int, ...]]:
    """Parts with their labels as numbers, each label in one part at most."""
    if not 1 <= len(parts) <= MAX_PARTS:
        raise ConfigError(f"{where}: expected a table [parts] of 1 to {MAX_PARTS} parts")
    owner: dict[int, str] = {}
    numbered = {}
    for part, members in parts.items():
        if not members:
            raise ConfigError(f"{where}: [parts] {part}: expected a list of labels")
        numbered[part] = tuple(
            _number(member, names, where=f"{where}: [parts] {part}") for member in members
        )
        for label in numbered[part]:
            if owner.setdefault(label, part) != part:
                raise ConfigError(
                    f"{where}: label {label} ({names[label]}) is in {owner[label]!r} and in"
                    f" {part!r}; a label belongs to one part"
                )
    return numbered


def _number(label: int | str, names: Sequence[str], *, where: str) -> int:
    if isinstance(label, str):
        if label not in names:
            raise ConfigError(f"{where}: unknown label {label!r}. {suggest(label, names)}")
        label = list(names).index(label)
    if not 0 < label < len(names):
        raise ConfigError(f"{where}: label {label} is not one of 1..{len(names) - 1}")
    return label
