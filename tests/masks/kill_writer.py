"""Run by test_mask_kill.py: processes that write one store repeatedly, each time in new child
processes, of which one dies by SIGKILL and the others with it, as under torchrun.

Usage: kill_writer.py ROOT STORE [LABELS]. With LABELS, masks come from a parser whose label maps
are kept in that folder. Each line on stdin has two numbers: how many processes write, and the
Python or C call of the last one's main thread at which it kills itself, or 0 for never. Answers
each with a line: the number of calls that it made if it finished, else -1.
"""

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from toy_masks import GreyParser, SocketProcesses, lip_source, read_dataset

from reidkit.masks import writer
from reidkit.masks.label_folder import open_label_folder
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.parser_source import ParserSource
from reidkit.masks.processes import ONE_PROCESS, Processes

writer.BATCH = 8


def write(root: Path, path: Path, keep: Path | None, last_call: int, processes: Processes) -> int:
    dataset = read_dataset(root)
    images = [sample.path for sample in dataset.train]
    label_source = lip_source(dataset)
    lip = load_label_set("lip")
    groups = default_grouping(lip)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1
        if calls == last_call:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    if keep is None:
        writer.write_store(path, dataset, dataset.train, label_source, processes=processes)
    else:
        for turn in (True, False):
            if processes.is_main == turn:
                folder = open_label_folder(keep, labels=lip, parser="grey", key="", images=images)
            processes.broadcast(None)
        source = ParserSource(
            name="grey",
            parser=GreyParser(),
            root=root,
            groups=groups,
            keep=folder,
        )
        writer.write_store(path, dataset, dataset.train, source, processes=processes)
        source.keep_missing(images, processes=processes)
    sys.setprofile(None)
    return calls


def main() -> None:
    root, path, *more = map(Path, sys.argv[1:])
    keep = more[0] if more else None
    for line in sys.stdin:
        size, last_call = map(int, line.split())
        reading, writing = os.pipe()
        sockets = socket.socketpair()
        children = []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                last = rank == size - 1
                sockets[1 - rank].close()
                processes = ONE_PROCESS if size == 1 else SocketProcesses(rank, sockets[rank])
                try:
                    calls = write(root, path, keep, last_call if last else 0, processes)
                    if last:
                        os.write(writing, str(calls).encode())
                except (EOFError, ConnectionError):
                    os.kill(os.getpid(), signal.SIGKILL)  # torchrun would have done so
                os._exit(0)
            children.append(child)
        for end in sockets:
            end.close()
        os.close(writing)
        for child in children:
            os.waitpid(child, 0)
        answer = os.read(reading, 100).decode() or "-1"
        os.close(reading)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
