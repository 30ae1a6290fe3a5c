"""Command lines in Markdown pages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COMMAND_PAGES = sorted((DOCS / "commands").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\s*(?:\$ )?(?:torchrun .*?-m )?(?:\.venv/bin/)?reidkit (.*)$")


def command_lines(page: Path, *languages: str) -> Iterator[list[str]]:
    """The arguments of every `reidkit ...` in a page's code blocks of these languages."""
    for block in _FENCE.finditer(page.read_text(encoding="utf-8")):
        if block[1] not in languages:
            continue
        for line in block[2].replace("\\\n", " ").splitlines():
            for part in line.split(" && "):
                command = _COMMAND.match(part)
                if command:
                    yield _arguments(command[1])


def _arguments(text: str) -> list[str]:
    """As a shell splits them, up to a redirection; variables are 1."""
    words = shlex.split(re.sub(r"\$\w+", "1", text), comments=True)
    end = next((i for i, word in enumerate(words) if word.startswith((">", "|"))), len(words))
    return words[:end]
