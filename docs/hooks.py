"""Options of a command, from the command itself, in place of `<!-- options: NAME -->` in a page.

MkDocs calls `on_page_markdown` for every page (`hooks` in .mkdocs.yml).
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

import typer.main

from reidkit.cli import app

MARK = re.compile(r"^<!-- options: ([a-z -]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return MARK.sub(lambda mark: option_tables(mark[1].split()), markdown)


def option_tables(path: list[str]) -> str:
    """One Markdown table per panel of `reidkit PATH --help`.

    Raises:
        KeyError: if there is no such command.
    """
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    context = command.make_context(" ".join(path), [], resilient_parsing=True)
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            name, meaning = (_cell(text) for text in record)
            is_argument = parameter.param_type_name == "argument"
            panel = "Arguments" if is_argument else parameter.rich_help_panel or "Options"
            row = f"| <code>{name}</code> | {meaning} |\n"
            panels.setdefault(panel, []).append(row)
    header = "| option | meaning |\n|---|---|\n"
    return "\n".join(f"**{panel}**\n\n{header}{''.join(rows)}" for panel, rows in panels.items())


def _cell(text: str) -> str:
    """Text as HTML in a table's cell, where a line may end after each choice."""
    plain = escape(" ".join(text.split()), quote=False).replace("*", "&#42;").replace("_", "&#95;")
    return plain.replace("|", "&#124;<wbr>")
