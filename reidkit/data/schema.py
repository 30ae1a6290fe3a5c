"""The contents of a manifest file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reidkit.choices import ProtocolName
from reidkit.types import Role, Task


@dataclass(frozen=True)
class SplitSpec:
    """A split's location, and its counts when complete (None, "unknown": not published).

    Attributes:
        folder: under the data set's root.
        lists: files of `path id` lines (reader "lists").
        distractors_in: further folders, whose images are distractors whatever their names.
        images: all files, including junk and distractors.
        tracklets: all tracklets; 0 in data sets of images.
        ids: identities.
        junk, distractors: images, or tracklets in data sets of tracklets.
    """

    folder: str = "."
    lists: tuple[str, ...] = ()
    distractors_in: tuple[str, ...] = ()
    images: int | None = None
    tracklets: int | None = None
    ids: int | None = None
    junk: int | Literal["unknown"] = 0
    distractors: int | Literal["unknown"] = 0


@dataclass(frozen=True)
class Manifest:
    """Description of a data set, known before its images are read.

    Attributes:
        name: in the names of masks and runs; `name@variant` once a variant is chosen.
        task: "retrieval", or "classification" of the training classes (no protocol, no gallery).
        protocol: of the ranking; required for retrieval.
        folders: names of the data set's folder under the data root, the published one first.
        marks: any of these paths identifies a folder as this data set; default: splits' folders.
        pattern: regular expression of image names, with groups `pid` and `camid`.
        cameras: their number, or "none" if cameras are unknown; then nothing is removed from
            rankings.
        labels: folder of 20-label LIP maps under the root, with the paths of the images.
        roles: roles of ids that are not persons, as written in file names.
        identities: "disjoint": no test identity is in train (checked); "numbered-apart": the same,
            but both halves count from 0; "same": train and test have the same classes.
        unmatched: known number of queries without a match in the gallery.
        dense: length of the chunks that training tracklets are split into; 0: not split.
        variants: releases or splits of the data set, each with the folders that differ. If they
            have folders, those on disk decide; otherwise the first variant is the default.
        variant: the chosen one.
        boxes: which of CUHK03's two sets of bounding boxes.
        table: file name of the CSV (reader "csv").
        root: folder that the CSV's paths are relative to, absolute or relative to the manifest's
            folder, which is the default.
    """

    format: int
    name: str
    reader: str
    splits: dict[str, SplitSpec]
    task: Task = "retrieval"
    protocol: ProtocolName | None = None
    title: str = ""
    home: str = ""
    licence: str = ""
    paper: str = ""
    note: str = ""
    folders: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    pattern: str = ""
    cameras: int | Literal["none"] = "none"
    labels: str | None = None
    roles: dict[str, Role] = field(default_factory=dict)
    identities: Literal["disjoint", "numbered-apart", "same"] = "disjoint"
    unmatched: int | Literal["unknown"] = 0
    dense: int = 0
    variants: dict[str, dict[str, str]] = field(default_factory=dict)
    variant: str = ""
    boxes: Literal["", "labeled", "detected"] = ""
    table: str = "data.csv"
    root: str = ""
    synthetic: bool = False
    seed: int | None = None

    def __repr__(self) -> str:
        return f"Manifest({self.name[:40]}: reader {self.reader}, {', '.join(self.splits)})"
