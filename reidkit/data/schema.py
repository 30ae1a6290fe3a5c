"""What a manifest file may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reidkit.types import Role


@dataclass(frozen=True)
class SplitSpec:
    """Where a split lies and what it holds when complete (None, "unknown": not published).

    Attributes:
        folder: under the data set's root.
        lists: files of `path id` lines (reader "lists").
        distractors_in: more folders, whose images are distractors whatever their names.
        images: every file, junk and distractors too.
        tracklets: all of them; 0 in data sets of single images.
        ids: persons.
        junk, distractors: images, or tracklets where there are any.
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
    """What is known of a data set before it is read.

    Attributes:
        name: masks and runs are called after it; `name@variant` once a variant is chosen.
        folders: names its folder may have under the data root, the published one first.
        marks: paths any of which shows that a folder is this data set; default its splits' folders.
        pattern: regular expression of an image's name, with groups `pid` and `camid`.
        cameras: how many, or "none": there are none, and rankings leave nothing out.
        labels: folder of 20-label LIP maps under the root, mirroring the images' paths.
        roles: the role of ids that are not persons, by their text in file names.
        identities: "disjoint": test people are not in train (checked); "numbered-apart": neither,
            but both halves count from 0; "same": the classes of train are to be told apart.
        unmatched: queries without a match in the gallery that are known of.
        dense: training tracklets are cut into chunks of so many frames (0: they are not).
        variants: releases or splits of the data set, each with the folders that differ; where
            there are such, what is on disk decides, otherwise the first is taken.
        variant: the chosen one.
        boxes: which of CUHK03's two sets of boxes.
        table: the CSV's name.
    """

    format: int
    name: str
    reader: str
    protocol: str
    splits: dict[str, SplitSpec]
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
    synthetic: bool = False
    seed: int | None = None
