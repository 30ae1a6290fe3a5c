"""Text files that list images with their ids, one `path id` per line (MSMT17)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reidkit.data.expressions import compile_expression, match_name
from reidkit.data.readers.rows import Row, is_file, read_lines
from reidkit.data.schema import Manifest


def read_lists(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """All images in a split's lists, relative to the split's folder; the camera is the pattern's
    group in the image's name. A listed image that does not exist is a problem.
    """
    pattern = compile_expression(manifest.pattern, where=f"{manifest.name}: pattern")
    for name, split in manifest.splits.items():
        if not (root / split.folder).is_dir():
            problems.append(f"[{name}] missing folder {root / split.folder}")
            continue
        absent = []
        for file in split.lists:
            if not is_file(root / file):
                problems.append(f"[{name}] missing list {root / file}")
                continue
            for number, line in enumerate(read_lines(root / file, problems), start=1):
                path, _, pid = line.strip().rpartition(" ")
                match = match_name(pattern, path.rpartition("/")[2])
                if not pid.isdecimal() or match is None or not match["camid"]:
                    problems.append(
                        f"[{name}] {file}, line {number}: expected `path id`, the name matching "
                        f"{manifest.pattern}, got {line!r}"
                    )
                    break
                outside = path.startswith("/") or ".." in path.split("/")
                if outside or not is_file(root / split.folder / path):
                    absent.append(path)
                    continue
                yield Row(name, f"{split.folder}/{path}", pid, match["camid"])
        if absent:
            problems.append(
                f"[{name}] {len(absent)} listed images are not under {root / split.folder}, the "
                f"first is {absent[0]}. Is the archive fully unpacked?"
            )
