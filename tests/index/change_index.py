"""Run by test_index_directory.py: child processes fill and thin an index, and each kills itself at
one of its calls.

Usage: change_index.py INDEX CALL..., where CALL is a number, or 0 for never. Prints the exit status
of each child.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import numpy as np

from reidkit.index.directory import IndexDirectory
from reidkit.index.records import DATABASE, Header, Record, check_vectors

HEADER = Header(model="m.onnx", model_sha256="ab", preprocess="{}", flip=False, dimension=4)


def change(path: Path, last_call: int) -> None:
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1
        if calls == last_call:
            os.kill(os.getpid(), signal.SIGKILL)

    vectors = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    exists = (path / DATABASE).is_file()
    sys.setprofile(count)
    index = IndexDirectory(path) if exists else IndexDirectory.create(path, HEADER)
    for start in range(0, 60, 20):
        records = [Record(f"p{k}") for k in range(start, start + 20)]
        index.add(vectors[start : start + 20], records)
    index.remove([f"p{k}" for k in range(0, 60, 3)])
    sys.setprofile(None)


def main() -> None:
    path = Path(sys.argv[1])
    check_vectors(np.ones((1, 4), np.float32), HEADER, name="index")  # imports before forking
    for last_call in map(int, sys.argv[2:]):
        child = os.fork()
        if child == 0:
            change(path, last_call)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{status}\n")


main()
