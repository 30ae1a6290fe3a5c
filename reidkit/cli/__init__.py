"""The command line: one file per subcommand, and the only place that prints or exits.

Results go to stdout, progress and logs to stderr. Exit status 0 done, 1 a bug, 2 the user's to fix.
Command files import torch and its like inside their functions, so that --help is immediate.
"""

from __future__ import annotations

import errno
import logging
import sys
from typing import Annotated

import typer

import reidkit
from reidkit.cli import (
    attention,
    compare,
    datasets,
    demo,
    evaluate,
    export,
    extract,
    import_,
    masks,
    models,
    prepare_masks,
    reproduce,
    train,
)
from reidkit.errors import ReidkitError

app = typer.Typer(
    help="Person re-identification from a folder of images to a deployed model.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
# In the order of use; each group is a panel of `reidkit --help`.
app.command("demo", rich_help_panel="Start")(demo.demo)
app.add_typer(datasets.app, name="datasets", rich_help_panel="Data")
app.command("prepare-masks", rich_help_panel="Masks")(prepare_masks.prepare_masks)
app.add_typer(masks.app, name="masks", rich_help_panel="Masks")
app.command("models", rich_help_panel="Train")(models.models)
app.command("train", rich_help_panel="Train")(train.train)
app.command("import", rich_help_panel="Train")(import_.import_)
app.command("reproduce", rich_help_panel="Train")(reproduce.reproduce)
app.command("eval", rich_help_panel="Evaluate")(evaluate.evaluate)
app.command("compare", rich_help_panel="Evaluate")(compare.compare)
app.command("extract", rich_help_panel="Deploy")(extract.extract)
app.command("export", rich_help_panel="Deploy")(export.export)
app.command("attention", rich_help_panel="Explain")(attention.attention)


_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors of the place that is written to or read from, not of the program."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(reidkit.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    """Takes what stands before the command."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `reidkit`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        app(arguments)
    except ReidkitError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in _PLACE:
            raise
        _refuse(f"{error.strerror}: {error.filename or 'while writing'}. Free it and run again")


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
