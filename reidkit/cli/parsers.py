"""Human parsers on the command line: names, weights, and what is measured of a fast procedure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from reidkit.choices import ParserName, ParserPrecision, ParserPreset
from reidkit.errors import ConfigError, suggest

if TYPE_CHECKING:
    from reidkit.masks.agreement import Agreement
    from reidkit.masks.labels import Grouping
    from reidkit.masks.parser_source import LabelParser, ParserSource
    from reidkit.masks.parsers.base import NetworkParser
    from reidkit.masks.processes import Processes

log = logging.getLogger(__name__)

PARSER_NAMES: tuple[ParserName, ...] = get_args(ParserName)
PUBLISHED = {
    "jppnet": "JPPNet-s2",
    "schp-lip": "exp-schp-201908261155-lip.pth",
    "schp-atr": "exp-schp-201908301523-atr.pth",
    "schp-pascal": "exp-schp-201908270938-pascal-person-part.pth",
}
"""The names under which the authors publish the weights."""
LABEL_SETS = {
    "jppnet": "lip",
    "schp-lip": "lip",
    "schp-atr": "atr",
    "schp-pascal": "pascal-person-part",
}
ParserWeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--parser-weights", help="Weights of a named parser, as its authors publish them."
    ),
]


def named_parser(parser: str) -> ParserName | None:
    """The name if `parser` is one, None if it is an .onnx file.

    Raises:
        ConfigError: if it is neither.
    """
    if parser in PARSER_NAMES:
        return parser
    if not Path(parser).is_file():
        raise ConfigError(
            f"--parser {parser}: no such file; expected a human parser in ONNX, or a known network."
            f" {suggest(parser, PARSER_NAMES)}"
        )
    if not parser.endswith(".onnx"):
        raise ConfigError(
            f"--parser {parser}: expected an .onnx file. For weights of a known network:"
            f" --parser schp-lip --parser-weights {parser}"
        )
    return None


def existing_weights(name: ParserName, weights: Path | None) -> Path:
    """The weights of a named parser: a file, or for JPPNet also a folder or a prefix.

    Raises:
        ConfigError: if they are not given, or there is nothing of that name.
    """
    published = PUBLISHED[name]
    if weights is None:
        raise ConfigError(
            f"--parser {name} needs the weights that its authors publish as {published}:"
            f" add --parser-weights {published}. docs/masks.md says where they are"
        )
    if not weights.exists() and not weights.with_name(weights.name + ".index").exists():
        raise ConfigError(
            f"--parser-weights {weights}: no such file or folder; expected the weights of {name}"
            f" that its authors publish as {published}. docs/masks.md says where they are"
        )
    return weights


@dataclass(frozen=True, kw_only=True)
class ParserRequest:
    """What the command line says about a parser.

    Attributes:
        parser: name or .onnx file.
        weights: of a named parser.
        precision: of a named parser.
        preset: of an .onnx file.
        options: fields of `ParserOptions` that are given, of which a named parser has scales,
            mirror and batch.
        keep: folder for the parser's label maps.

    Raises:
        ConfigError: if the parser, or the weights that it needs, do not exist.
    """

    parser: str
    weights: Path | None
    precision: ParserPrecision
    preset: ParserPreset
    options: Mapping[str, Any]
    keep: Path | None

    def __post_init__(self) -> None:
        if name := named_parser(self.parser):
            existing_weights(name, self.weights)

    def label_set(self, given: str | None) -> str:
        """The name of the parser's label set; `given` is that of the command line.

        Raises:
            ConfigError: if a named parser has another one.
        """
        known = LABEL_SETS.get(self.parser)
        if known and given not in (None, known):
            raise ConfigError(
                f"--parser {self.parser} gives the labels of {known}; remove --label-set {given}"
            )
        return known or given or "lip"

    def source(
        self,
        root: Path,
        images: Sequence[str],
        groups: Grouping,
        *,
        device: str,
        processes: Processes,
        on_progress: Callable[[str, int, int], None],
    ) -> tuple[ParserSource, Callable[[Sequence[str]], Agreement] | None]:
        """The source that runs the parser, and what compares it with its original test procedure
        if it has another.

        Args:
            root: of the data set.
            images: that will be parsed.
            groups: the parser's labels in parts.
            device: of this process.
            processes: that share the images.
            on_progress: called with the stage, the number of images compared, and in all.
        """
        from reidkit.masks.label_folder import open_label_folder
        from reidkit.masks.parser_source import ParserSource

        parser: LabelParser
        original: LabelParser | None
        name = named_parser(self.parser)
        if name:
            parser, original = self._open_network(name, device)
        else:
            parser, original = self._open_onnx(groups, device)
        folder = None
        if self.keep:
            for turn in (True, False):  # the main process writes what the others find
                if processes.is_main == turn:
                    folder = open_label_folder(
                        self.keep,
                        labels=groups.labels,
                        parser=self.parser,
                        key=parser.key,
                        images=images,
                    )
                processes.broadcast(None)
        source = ParserSource(
            name=f"{name} ({groups.labels.name})" if name else f"parser ({groups.labels.name})",
            parser=parser,
            root=root,
            groups=groups,
            keep=folder,
        )
        if original is None:
            return source, None
        compare = partial(
            source.compare,
            original,
            processes=processes,
            progress=partial(on_progress, "comparing with the original procedure"),
        )
        return source, compare

    def _open_network(
        self, name: ParserName, device: str
    ) -> tuple[NetworkParser, NetworkParser | None]:
        """The parser, and the same with its original test procedure if that differs."""
        from reidkit.masks.parsers.networks import open_parser

        weights = existing_weights(name, self.weights)
        parser = open_parser(name, weights, device=device, precision=self.precision, **self.options)
        return parser, None if parser.is_original else parser.original()

    def _open_onnx(self, groups: Grouping, device: str) -> tuple[LabelParser, LabelParser | None]:
        """As `_open_network`; the preset's scales and mirroring are the original ones."""
        from dataclasses import replace

        from reidkit.device import torch_device
        from reidkit.files import sha256
        from reidkit.masks.parsers.onnx import PRESETS, OnnxParser, ParserOptions
        from reidkit.runtime.onnx_runtime import open_session

        file = Path(self.parser)
        session = open_session(file, torch_device(device))
        model_hash = sha256(file)

        def make(options: ParserOptions) -> OnnxParser:
            return OnnxParser(
                session, root=Path(), grouping=groups, options=options, model_hash=model_hash
            )

        preset = PRESETS[self.preset]
        options = replace(preset, **self.options)
        original = replace(options, scales=preset.scales, mirror=preset.mirror)
        parser = make(options)
        if options == original:
            return parser, None
        try:
            return parser, make(original)
        except ConfigError as error:
            log.info("not compared with the preset's own scales and mirroring: %s", error)
            return parser, None
