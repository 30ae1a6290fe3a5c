"""How several processes share the writing of one mask file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Processes(Protocol):
    """The processes that share one command: `reidkit.runtime.distributed.ProcessGroup`.

    Attributes:
        rank: of this process, 0 to size - 1.
        size: number of processes.
        is_main: whether this is the one process that completes files.
    """

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def is_main(self) -> bool: ...

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of `items`."""
        ...

    def gather(self, value: T) -> list[T]:
        """The values of all processes in order of rank; waits for all."""
        ...

    def broadcast(self, value: T) -> T:
        """The main process's value; waits for all."""
        ...


class OneProcess:
    """A command that is not shared."""

    rank, size, is_main = 0, 1, True

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        return items

    def gather(self, value: T) -> list[T]:
        return [value]

    def broadcast(self, value: T) -> T:
        return value


ONE_PROCESS = OneProcess()
