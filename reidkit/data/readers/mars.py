"""MARS: frames in two folders, tracklets in MATLAB files (Zheng et al., ECCV 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.data.matlab import read_mat
from reidkit.data.readers.rows import Row, read_lines, whole_numbers
from reidkit.data.schema import Manifest
from reidkit.errors import DataError

INFO = ("train_name.txt", "test_name.txt", "tracks_train_info.mat", "tracks_test_info.mat")


def read_mars(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """Tracklets from `info/`: each row is (first frame, last frame, id, camera), frames are 1-based
    indices into the lists of names. query_IDX.mat lists the test tracklets that are queries; all
    other test tracklets are the gallery. Images are in folders called after their names' first four
    characters.
    """
    info = root / "info"
    missing = [f for f in (*INFO, "query_IDX.mat") if not (info / f).is_file()]
    folders = sorted({split.folder for split in manifest.splits.values()})
    problems += [f"missing file {info / name}" for name in missing]
    problems += [f"missing folder {root / f}" for f in folders if not (root / f).is_dir()]
    if missing:
        return
    query = set((_matrix(info / "query_IDX.mat", problems).reshape(-1) - 1).tolist())
    for half in ("train", "test"):
        names = "\n".join(read_lines(info / f"{half}_name.txt", problems)).split()
        strange = [name for name in names if "/" in name or "\0" in name]
        if strange:
            problems.append(f"{half}_name.txt: {strange[0]!r} is not the name of a file")
            continue
        tracks = _matrix(info / f"tracks_{half}_info.mat", problems)
        if tracks.ndim != 2 or tracks.shape[1] != 4:
            problems.append(f"tracks_{half}_info.mat: expected N x 4, found {tracks.shape}")
            continue
        folder = manifest.splits["train" if half == "train" else "gallery"].folder
        present = {path.name for path in (root / folder).glob("*")}
        for index, (start, end, pid, camid) in enumerate(tracks.tolist()):
            split = "train" if half == "train" else "query" if index in query else "gallery"
            where = f"[{split}] track {index + 1} of tracks_{half}_info.mat"
            frames = names[start - 1 : end]
            if not frames:
                problems.append(f"{where} has no frames: {start} to {end} of {len(names)}")
                continue
            if start < 1 or end > len(names):
                problems.append(f"{where}: frames {start} to {end} of {len(names)} names")
                continue
            if {name[:6] for name in frames} != {frames[0][:6]}:
                problems.append(f"{where} has frames of several ids or cameras")
            if frames[0][:4] not in present:
                problems.append(f"{where}: missing folder {root / folder / frames[0][:4]}")
                continue
            for frame, name in enumerate(frames):
                path = f"{folder}/{name[:4]}/{name}"
                yield Row(split, path, str(pid), str(camid), f"{half}/{index}", frame)


def _matrix(path: Path, problems: list[str]) -> NDArray[np.int64]:
    """The only matrix in a .mat file, as int64, whatever its variable name."""
    nothing = np.zeros((0, 4), np.int64)
    try:
        found = list(read_mat(path).values())
        if len(found) == 1:
            return whole_numbers(found[0])
        problems.append(f"{path}: expected one numeric matrix, found {len(found)} variables")
    except DataError as error:
        problems.append(str(error))
    except ValueError as error:
        problems.append(f"{path}: expected one numeric matrix, but {error}")
    return nothing
