"""Options that several commands share, parsers of their values, and panels of `--help`."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from reidkit.choices import (
    ChannelOrder,
    ClipRule,
    EmbeddingPrecision,
    EmbeddingSide,
    ImageBackend,
    Interpolation,
    Provider,
)
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.types import Dataset

log = logging.getLogger(__name__)

ModelArgument = Annotated[
    Path | None,
    typer.Argument(help="Checkpoint, run folder or ONNX file.", show_default="the newest run"),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model", help="Checkpoint, run folder or ONNX file.", show_default="the newest run"
    ),
]
DatasetOption = Annotated[
    str, typer.Option("--dataset", help="Data set name, manifest file or folder.")
]
OptionalDatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Data set name, manifest file or folder.")
]
PartMasksOption = Annotated[
    Path | None,
    typer.Option("--masks", help="Part mask file.", show_default="masks/DATASET.h5"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change any setting; repeatable."),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root", help="Folder of the data sets.", show_default="$REIDKIT_DATA or data"
    ),
]
ClipsOption = Annotated[ClipRule, typer.Option(help="Rule that divides tracklets into test clips.")]
FlipOption = Annotated[
    bool, typer.Option("--flip", help="Add the embedding of the mirrored image.")
]
BatchOption = Annotated[
    int | None,
    typer.Option(min=1, help="Batch size.", show_default="64; 16 for ONNX files on the CPU"),
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Number of data loading processes.")]
DeviceOption = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")]
EmbeddingOption = Annotated[
    EmbeddingSide | None,
    typer.Option(help="Embedding before or after batch norm.", show_default="as trained"),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of ONNX Runtime on the CPU.", show_default="number of cores"),
]
ProviderOption = Annotated[
    Provider | None,
    typer.Option(help="ONNX Runtime's execution provider.", show_default="the device's"),
]
PrecisionOption = Annotated[
    EmbeddingPrecision,
    typer.Option(help="Precision of a checkpoint; checked against fp32 on the first batch."),
]
ImageBackendOption = Annotated[
    ImageBackend,
    typer.Option(help="Library that decodes and resizes; evaluation always takes pillow."),
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile a checkpoint's network; takes a minute.")
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run an ONNX file without a trial in a limited process, 1 s faster."
    ),
]
PreprocessOption = Annotated[
    Path | None,
    typer.Option(
        "--preprocess",
        help="TOML file with size, interpolation, mean, std, channels and output.",
        show_default="MODEL.toml",
    ),
]
OutputNameOption = Annotated[
    str | None,
    typer.Option("--output", metavar="NAME", help="Name of the embedding output."),
]
SizeOption = Annotated[
    str | None, typer.Option(help="Input size as HEIGHTxWIDTH.", show_default="256x128")
]
MeanOption = Annotated[
    str | None, typer.Option(help="Channel means, three numbers.", show_default="ImageNet")
]
StdOption = Annotated[
    str | None,
    typer.Option(help="Channel standard deviations, three numbers.", show_default="ImageNet"),
]
ChannelsOption = Annotated[
    ChannelOrder | None, typer.Option(help="Channel order.", show_default="rgb")
]
ResizeOption = Annotated[
    Interpolation | None, typer.Option(help="Interpolation of resizing.", show_default="bicubic")
]


def _set_offline(context: typer.Context, offline: bool) -> None:
    """Refuses downloads until the end of the command, in its child processes too."""
    if not offline:
        return
    earlier = os.environ.get("REIDKIT_OFFLINE")

    def restore() -> None:
        if earlier is None:
            os.environ.pop("REIDKIT_OFFLINE", None)
        else:
            os.environ["REIDKIT_OFFLINE"] = earlier

    os.environ["REIDKIT_OFFLINE"] = "1"
    context.call_on_close(restore)


OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        callback=_set_offline,
        help="Download nothing; as REIDKIT_OFFLINE=1.",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]


def option_panels(panels: Mapping[str, Sequence[str]]) -> type[TyperCommand]:
    """A command class whose `--help` shows parameters (by Python name) in panels, and which
    refuses an option that is given twice and is not a list: click would drop the first. A value
    that is not one of an option's choices is refused in reidkit's words. `--device` and
    `--provider` are checked before the command does anything."""
    panel_of = {name: panel for panel, names in panels.items() for name in names}

    class PanelCommand(TyperCommand):
        def __init__(self, *args: Any, help: str = "", **kwargs: Any) -> None:
            for parameter in kwargs.get("params") or []:
                parameter.rich_help_panel = panel_of.get(parameter.name)
            super().__init__(*args, help=_join_lines(help), **kwargs)

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            order: list[Any] = self.make_parser(ctx).parse_args(list(args))[2]
            for option in order:
                if not option.multiple and option.nargs == 1 and order.count(option) > 1:
                    raise typer.BadParameter("given more than once", ctx=ctx, param=option)
            try:
                return super().parse_args(ctx, args)
            except typer.BadParameter as error:
                raise _unknown_choice(error) or error from None

        def invoke(self, ctx: Any) -> Any:
            _check_execution(ctx.params.get("device"), ctx.params.get("provider"))
            return super().invoke(ctx)

        def get_help_option(self, ctx: Any) -> Any:
            option = super().get_help_option(ctx)
            if option is not None and panels:
                option.rich_help_panel = list(panels)[-1]
            return option

    return PanelCommand


def check_new(files: Iterable[Path | None], *, overwrite: bool) -> None:
    """Passes if no file to write exists, or all may be replaced; None is no file.

    Raises:
        ConfigError: naming the first one that exists.
    """
    found = [file for file in files if file is not None and file.exists()]
    if found and not overwrite:
        raise ConfigError(
            f"{found[0]} exists. Add --overwrite to replace it, or choose another name"
        )


def _unknown_choice(error: typer.BadParameter) -> ConfigError | None:
    """The message about a value that is not one of an option's choices; None for another error."""
    found = re.fullmatch(r"(?:Value error, )?('.*?') is not one of (.*)", error.message, re.DOTALL)
    if found is None or error.param is None:
        return None
    name = str(error.param.name).rstrip("_").replace("_", " ")
    *first, last = re.findall(r"'([^']*)'", found[2])
    listed = f"{', '.join(first)} or {last}" if first else last
    return ConfigError(f"unknown {name} {found[1]}: {listed}")


def _check_execution(device: str | None, provider: Provider | None) -> None:
    """Refuses a device or a provider that this machine does not have."""
    from reidkit.device import check_device

    if device is not None:
        check_device(device)
    if provider is not None:
        import onnxruntime

        from reidkit.runtime.onnx_session import choose_provider

        choose_provider(device or "auto", provider, onnxruntime.get_available_providers())


def _join_lines(text: str) -> str:
    """Each paragraph on one line, for the terminal to wrap, unless it is marked by \\b."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else " ".join(p.split()) for p in paragraphs)


def open_data(dataset: str, data_root: Path | None) -> Dataset:
    """Opens a data set, with a warning if its counts differ from the manifest's."""
    from reidkit.data.manifest import locate, read_dataset
    from reidkit.data.verify import verify

    manifest, root = locate(dataset, data_root)
    data = read_dataset(manifest, root)
    wrong = [check for check in verify(manifest, data) if not check.passed]
    if wrong:
        first, *others = wrong
        more = {0: "", 1: " (and another difference)"}
        log.warning(
            "%s differs from its manifest: [%s] found %d %s, expected %d%s. "
            "Run: reidkit datasets verify %s",
            *(data.name, first.split, first.found, first.what, first.expected),
            more.get(len(others), f" (and {len(others)} more differences)"),
            dataset,
        )
    return data


_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6}
_UNITS |= {"GB": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def parse_size(text: str) -> list[int]:
    """ "256x128" -> [256, 128], height first."""
    height, x, width = text.partition("x")
    if not (x and height.isdecimal() and width.isdecimal()):
        raise ConfigError(f"--size {text}: write HEIGHTxWIDTH in pixels, such as 256x128")
    return [int(height), int(width)]


def parse_memory(text: str, option: str = "--max-memory") -> int:
    """ "500MiB" or "2G" -> bytes; `option` is named in the error."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigError(f"{option} {text}: write a number and a unit, such as 500MiB or 2GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


THIRD_PARTY = ("trust", "preprocess", "size", "mean", "std", "channels", "resize", "output")
"""Parameters of commands that run third-party ONNX models, for a panel."""


def third_party_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `external_inputs` and, as its argument `inputs`, what that
    returns for them."""
    options = inspect.signature(external_inputs, eval_str=True).parameters.values()
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        given = {option.name: arguments.pop(option.name) for option in options}
        command(**arguments, inputs=external_inputs(**given))

    kept = [each for each in signature.parameters.values() if each.name != "inputs"]
    added = [option.replace(kind=option.KEYWORD_ONLY) for option in options]
    with_options.__signature__ = signature.replace(parameters=kept + added)  # type: ignore[attr-defined]
    return with_options


def external_inputs(
    preprocess: PreprocessOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    channels: ChannelsOption = None,
    resize: ResizeOption = None,
    output: OutputNameOption = None,
) -> dict[str, Any]:
    """The fields of `Preprocess`, and "output", set by options or by a TOML file, for models that
    do not state their own; an option takes precedence over the file.

    Raises:
        ConfigError: if a value is invalid, or the file has other keys.
    """
    given = {
        "size": None if size is None else parse_size(size),
        "mean": None if mean is None else _numbers("--mean", mean),
        "std": None if std is None else _numbers("--std", std),
        "channels": channels,
        "interpolation": resize,
        "output": output,
    }
    table: dict[str, Any] = {}
    if preprocess is not None:
        from reidkit.runtime.onnx_contract import read_inputs

        table = read_inputs(preprocess)
    return table | {name: value for name, value in given.items() if value is not None}


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(number) for number in text.replace(",", " ").split()]
    except ValueError as error:
        raise ConfigError(
            f"{option} {text}: write three numbers, such as 0.485,0.456,0.406"
        ) from error


def embedding_option(embedding: str | None) -> dict[str, str]:
    """`--embedding` as an architecture option."""
    return {} if embedding is None else {"embedding": embedding}
