"""The command line: one file per command, and the only place that prints or exits.

Results go to stdout, progress and logs to stderr. Exit status: 0 success, 1 a bug, 2 an error that
the user can fix, 130, 143 and 129 stopped by Ctrl-C, SIGTERM and SIGHUP. Commands import torch
inside their functions, so that --help is fast.
"""

from __future__ import annotations

import errno
import logging
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

import reidkit
from reidkit.cli import (
    attention,
    bench,
    compare,
    datasets,
    demo,
    doctor,
    evaluate,
    export,
    extract,
    import_,
    index,
    masks,
    models,
    prepare_masks,
    report,
    reproduce,
    search,
    serve,
    settings,
    train,
    visualize,
)
from reidkit.cli.options import option_panels
from reidkit.cli.output import LogHandler
from reidkit.errors import ReidkitError
from reidkit.files import printable
from reidkit.interrupt import Interrupted, handlers, stop_command

GROUPS = {
    "Start": ("demo", "doctor"),
    "Data": ("datasets",),
    "Masks": ("prepare-masks", "masks"),
    "Train": ("models", "settings", "train", "import", "reproduce"),
    "Evaluate": ("eval", "compare"),
    "Search": ("search", "index"),
    "Deploy": ("extract", "export", "bench", "serve", "report"),
    "Explain": ("visualize", "attention"),
}
"""Panels of `reidkit --help`, in the order of use."""

PANEL_OF = {command: group for group, commands in GROUPS.items() for command in commands}


class MainGroup(TyperGroup):
    """Lists commands in the order of `GROUPS`; a signal ends a command by one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(PANEL_OF)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # Typer would say nothing and exit by 130
            _stop(error)


app = typer.Typer(
    help="Person re-identification from a folder of images to a deployed model.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    cls=MainGroup,
)
for name, group in (
    ("datasets", datasets.app),
    ("masks", masks.app),
    ("index", index.app),
    ("visualize", visualize.app),
):
    for command in group.registered_commands:
        if command.cls in (None, TyperCommand):  # it has no panels of its own
            command.cls = option_panels({})
    app.add_typer(group, name=name, rich_help_panel=PANEL_OF[name])
for name, function, panels in (
    ("demo", demo.demo, {}),
    ("doctor", doctor.doctor, {}),
    ("prepare-masks", prepare_masks.prepare_masks, prepare_masks.PANELS),
    ("models", models.models, {}),
    ("settings", settings.settings, {}),
    ("train", train.train, train.PANELS),
    ("import", import_.import_, {}),
    ("reproduce", reproduce.reproduce, reproduce.PANELS),
    ("eval", evaluate.evaluate, evaluate.PANELS),
    ("compare", compare.compare, {}),
    ("search", search.search, search.PANELS),
    ("extract", extract.extract, extract.PANELS),
    ("export", export.export, export.PANELS),
    ("bench", bench.bench, bench.PANELS),
    ("serve", serve.serve, serve.PANELS),
    ("report", report.report, report.PANELS),
    ("attention", attention.attention, {}),
):
    app.command(name, rich_help_panel=PANEL_OF[name], cls=option_panels(panels))(function)


_STORAGE_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.EBUSY, errno.EXDEV, errno.ESTALE, errno.ENOENT),
}
"""Errors of the disk, its permissions, or what others remove meanwhile, not of the program."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(reidkit.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the command."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `reidkit`."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop_command(number, frame)

    try:
        with handlers(stop):
            logging.basicConfig(level=logging.INFO, handlers=[LogHandler()])
            app(arguments)
    except SystemExit as ended:
        if received and ended.code == 130 != 128 + received[0]:  # Typer's, of any Interrupted
            _stop(Interrupted(received[0]))
        raise
    except Exception as error:
        if received:  # compiled code, such as pydantic's, turns Interrupted into errors of its own
            _stop(Interrupted(received[0]))
        _fail_or_raise(error)
    except KeyboardInterrupt as error:
        _stop(error)


def _fail_or_raise(error: Exception) -> NoReturn:
    """Ends the command by one line where the user can fix the error."""
    if isinstance(error, ReidkitError):
        _fail(str(error))
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
        _fail(
            f"{error.strerror}: {error.filename or 'while writing'}. Check free space and "
            "permissions, then run the same command again"
        )
    if isinstance(error, ModuleNotFoundError):
        from reidkit.doctor.packages import missing_packages

        missing = missing_packages()
        if error.name in missing:
            _fail(
                f"this command needs {missing[error.name]}, which is not installed; without it, "
                "reidkit can serve exported models (.onnx). "
                f"Run: pip install {' '.join(missing.values())}"
            )
    raise error


def _stop(error: KeyboardInterrupt) -> NoReturn:
    stopped = error if isinstance(error, Interrupted) else Interrupted()
    print(f"stopped. {stopped.advice}".removesuffix(". "), file=sys.stderr)
    sys.exit(stopped.status)


def _fail(message: str) -> NoReturn:
    # what a file contains may be in it, and must not control the terminal
    shown = "\n".join(printable(line) for line in message.split("\n"))
    print(f"error: {shown}", file=sys.stderr)
    sys.exit(2)
