"""reidkit serve in a process of its own, on a free port."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server's process and its address."""
    command = [sys.executable, "-m", "reidkit", "serve", *arguments, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                found = re.search(r"listening on (http://\S+);", line)
                if found:
                    yield process, found[1]
                    return
            raise RuntimeError("".join(lines))
        finally:
            process.kill()
