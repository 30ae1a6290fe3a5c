"""Run by test_index_directory.py: fills and thins an index, and kills itself at one of its calls.

Usage: change_index.py INDEX CALL, where CALL is a number, or 0 for never.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import numpy as np

from reidkit.index.directory import DATABASE, IndexDirectory
from reidkit.index.records import Header, Record

HEADER = Header(model="m.onnx", model_sha256="ab", preprocess="{}", flip=False, dimension=4)
path, last_call = Path(sys.argv[1]), int(sys.argv[2])
calls = 0


def count(frame: FrameType, event: str, argument: object) -> None:
    global calls
    calls += 1
    if calls == last_call:
        os.kill(os.getpid(), signal.SIGKILL)


vectors = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
exists = (path / DATABASE).is_file()
sys.setprofile(count)
index = IndexDirectory(path) if exists else IndexDirectory.create(path, HEADER)
for start in range(0, 60, 20):
    index.add(vectors[start : start + 20], [Record(f"p{k}") for k in range(start, start + 20)])
index.remove([f"p{k}" for k in range(0, 60, 3)])
sys.setprofile(None)
