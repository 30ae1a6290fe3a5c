"""Identity and camera in the paths of your own images (`reidkit datasets init`)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reidkit.data.expressions import MAX_NAME, compile_expression
from reidkit.errors import ConfigError
from reidkit.types import SPLITS

MAX_OTHERS = 0.1
"""Share of images with other names among those that are named as a known data set's."""

CONVENTIONS = (
    ("CUHK01", r"^(?P<pid>\d{4})(?P<camid>\d{3})\.", "1=1,2=1,3=2,4=2"),
    ("VIPeR", r"cam_(?P<camid>[ab])/(?P<pid>\d+)_", ""),
    ("Market-1501", r"^(?P<pid>-?\d+)_c(?P<camid>\d+)s\d+_", ""),
    ("DukeMTMC-reID", r"^(?P<pid>\d+)_c(?P<camid>\d+)_f\d+", ""),
    ("NAME_cCAMERA_NUMBER", r"^(?P<pid>[^_]+)_c(?:am)?(?P<camid>\d+)_", ""),
)
"""(name, pattern, camera map) of known file names, for suggestions. CUHK01's images 001 and 002 are
of one camera, 003 and 004 of the other (Li, Zhao and Wang, ACCV 2012)."""


@dataclass(frozen=True)
class ImageRow:
    """A line of the table; `split` is "" until splits are assigned."""

    split: str
    path: str
    pid: str
    camid: str
    tracklet: str = ""

    @property
    def unit(self) -> tuple[str, str, str]:
        """What is a query or a gallery item as a whole: an image or a tracklet."""
        return self.pid, self.camid, self.tracklet or self.path


@dataclass(frozen=True)
class NamePattern:
    """Identity and camera of an image, from its path below the folder.

    Attributes:
        pattern: regular expression with the group `pid` and optionally `camid`, searched in the
            file name, or, if it contains a slash, in the path; "": the person is the folder.
        cameras: "none", or a regular expression whose one group is the camera in the path.
        camera_map: captured camera -> camera; empty: as captured.
        tracklets: each innermost folder is a tracklet, its frames sorted by name.

    Raises:
        ConfigError: an expression is invalid or lacks a group, or options contradict one another.
    """

    pattern: str = ""
    cameras: str = "none"
    camera_map: Mapping[str, str] = field(default_factory=dict)
    tracklets: bool = False

    def __post_init__(self) -> None:
        if self.cameras != "none":
            expression = compile_expression(self.cameras, where="--cameras")
            if expression.groups != 1:
                raise ConfigError(
                    f"--cameras {shlex.quote(self.cameras)} has {expression.groups} groups, "
                    "expected one that matches the camera, such as 'cam(\\w+)'"
                )
        groups = compile_expression(self.pattern, where="--pattern").groupindex
        if self.pattern and "pid" not in groups:
            raise ConfigError(
                f"--pattern {shlex.quote(self.pattern)} has no group pid, which matches the "
                "person. For names such as 0001_c2_07.jpg: "
                "--pattern '(?P<pid>\\d+)_c(?P<camid>\\d+)'"
            )
        unknown = sorted(groups.keys() - {"pid", "camid"})
        if unknown:
            raise ConfigError(
                f"--pattern {shlex.quote(self.pattern)} has the group {unknown[0]}; the groups are "
                "pid and camid"
            )
        if "camid" in groups and self.cameras != "none":
            raise ConfigError("--pattern has a group camid; remove --cameras")
        if self.camera_map and not self.has_cameras:
            raise ConfigError(
                "--camera-map needs cameras: a group camid in --pattern, or --cameras"
            )

    @property
    def has_cameras(self) -> bool:
        """Whether cameras are known."""
        return self.cameras != "none" or "camid" in re.compile(self.pattern).groupindex

    def row(self, path: str) -> ImageRow | str:
        """The row of an image; for an image that does not match, what is missing."""
        parts = path.split("/")
        split = parts.pop(0) if parts[0] in SPLITS and len(parts) > 1 else ""
        camid = ""
        if self.pattern:
            match = _search(self.pattern, path)
            if match is None or not match["pid"]:
                return "pattern"
            pid, camid = match["pid"], match.groupdict().get("camid") or ""
        elif len(parts) < 2:
            return "folder"
        else:
            pid = parts[0]
        if self.cameras != "none":
            found = re.search(self.cameras, path) if len(path) <= MAX_NAME else None
            camid = (found[1] or "") if found else ""
        if self.has_cameras:
            if not camid:
                return "camera"
            if self.camera_map:
                mapped = self.camera_map.get(camid, self.camera_map.get(_plain(camid)))
                if mapped is None:
                    return "camera map"
                camid = mapped
        folder = "/".join(parts[:-1])
        below = folder if self.pattern else "/".join(parts[1:-1])
        return ImageRow(split, path, pid, camid, (below or pid) if self.tracklets else "")


def mismatch(
    reason: str, folder: Path, names: NamePattern, failed: Sequence[str], total: int
) -> str:
    """The message about images of which a part of the row is not found.

    Args:
        reason: as `NamePattern.row` returns it.
        failed: paths of these images, of `total`.
    """
    which = f"{len(failed)} of {total} images, the first is {failed[0]}"
    if reason == "folder":
        return (
            f"{folder / failed[0]} is not in a person's folder ({which}). Expected "
            f"{folder}/NAME/*.jpg, or names that a --pattern matches. "
            + (suggestion(folder, failed) or "See: reidkit datasets init --help")
        )
    if reason == "pattern":
        return f"--pattern {shlex.quote(names.pattern)} does not match {which}. " + (
            suggestion(folder, failed) or "Extend it, or move these images out of the folder"
        )
    if reason == "camera":
        option = (
            f"--cameras {shlex.quote(names.cameras)}" if names.cameras != "none" else "--pattern"
        )
        return (
            f"{option} finds no camera in {which}. Use an expression that matches all cameras, "
            "such as 'cam(\\w+)', or --cameras none if cameras are unknown"
        )
    entries = ",".join(f"{captured}={camera}" for captured, camera in names.camera_map.items())
    return f"--camera-map {entries} does not contain the camera of {which}. Add it"


def suggestion(folder: Path, paths: Sequence[str], *, more_than: int = 0) -> str:
    """The command for images that are named as a known data set's are, apart from a few; "" if they
    are not, or if their names are of `more_than` people or fewer."""
    for title, pattern, camera_map in CONVENTIONS:
        matches = [_search(pattern, path) for path in paths]
        pids = {match["pid"] for match in matches if match is not None}
        others = [path for path, match in zip(paths, matches, strict=True) if match is None]
        if len(others) > MAX_OTHERS * len(paths) or len(pids) <= more_than:
            continue
        option = f" --camera-map {camera_map}" if camera_map else ""
        move = ""
        if others:
            move = f"Move {len(others)} other images out of the folder, such as {others[0]}. "
        return (
            f"The names look like {title}'s, of {len(pids)} people. {move}Run: reidkit datasets "
            f"init {shlex.quote(str(folder))} --pattern {shlex.quote(pattern)}{option} --dry-run"
        )
    return ""


def _search(pattern: str, path: str) -> re.Match[str] | None:
    """The match in the file name, or, if the pattern contains a slash, in the path; none in one
    that is longer than `MAX_NAME`."""
    text = path if "/" in pattern else path.rpartition("/")[2]
    return re.search(pattern, text) if len(text) <= MAX_NAME else None


def parse_camera_map(text: str) -> dict[str, str]:
    """ "1=1,2=1,3=2" -> {"1": "1", "2": "1", "3": "2"}.

    Raises:
        ConfigError: an entry is not CAPTURED=CAMERA, or is repeated.
    """
    pairs = [entry.strip().partition("=") for entry in text.split(",")]
    mapping = {_plain(captured.strip()): camera.strip() for captured, _, camera in pairs}
    if not all(captured and camera for captured, _, camera in pairs) or len(mapping) < len(pairs):
        raise ConfigError(
            f"--camera-map {text}: expected CAPTURED=CAMERA pairs separated by commas, each "
            "captured text once, such as 1=1,2=1,3=2,4=2"
        )
    return mapping


def _plain(text: str) -> str:
    """Numbers without leading zeros, so that 1 stands for 001."""
    return str(int(text)) if re.fullmatch(r"[0-9]+", text) else text
