"""Run by test_mask_kill.py: a process that writes one store repeatedly, each time in a child
process, which dies by SIGKILL.

Usage: kill_writer.py ROOT STORE. Each line on stdin is a number: the Python or C call of the
child's main thread at which it kills itself, or 0 for never. Answers each with a line: the number
of calls the child made if it finished, else -1.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from toy_masks import lip_source, read_dataset

from reidkit.masks import writer

writer.BATCH = 8


def write(root: Path, path: Path, last_call: int) -> int:
    dataset = read_dataset(root)
    source = lip_source(dataset)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1
        if calls == last_call:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    writer.write_store(path, dataset, dataset.train, source)
    sys.setprofile(None)
    return calls


def main() -> None:
    root, path = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, str(write(root, path, int(line))).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        answer = os.read(reading, 100).decode() or "-1"
        os.close(reading)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
