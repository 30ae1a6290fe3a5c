"""Human parsers on the command line: names, weights, and what is measured of a fast procedure."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from reidkit.choices import ParserName, ParserPrecision
from reidkit.errors import ConfigError, suggest
from reidkit.files import check_regular

if TYPE_CHECKING:
    from reidkit.masks.labels import Grouping, LabelSet
    from reidkit.masks.parser_source import LabelParser, ParserSource
    from reidkit.masks.parsers.base import NetworkParser

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
    check_regular(Path(parser), ConfigError)
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
class OpenedParser:
    """A parser that can run.

    Attributes:
        name: for people.
        labels: of its label maps.
        original: the same with its original test procedure, if that differs.
    """

    name: str
    labels: LabelSet
    parser: LabelParser
    original: LabelParser | None

    def source(
        self, root: Path, images: Sequence[str], groups: Grouping, *, keep: Path | None
    ) -> ParserSource:
        """The source that runs the parser on a data set's images.

        Args:
            root: of the data set.
            images: that will be parsed.
            groups: the parser's labels in parts.
            keep: folder for its label maps.
        """
        from reidkit.masks.label_folder import open_label_folder
        from reidkit.masks.parser_source import ParserSource

        folder = None
        if keep:
            folder = open_label_folder(
                keep, labels=self.labels, parser=self.name, key=self.parser.key, images=images
            )
        return ParserSource(
            name=f"{self.name} ({self.labels.name})",
            parser=self.parser,
            root=root,
            groups=groups,
            keep=folder,
        )


@dataclass(frozen=True, kw_only=True)
class ParserRequest:
    """What the command line says about a parser.

    Attributes:
        parser: name or .onnx file.
        weights: of a named parser.
        precision: of a named parser.
        label_set: of an .onnx file; None if it is not given.
        options: scales, mirror and batch, as far as they are given.
        inputs: preset, and the fields of `ParserOptions` that describe the input of an .onnx file,
            as far as they are given.

    Raises:
        ConfigError: if the parser, or the weights that it needs, do not exist.
    """

    parser: str
    weights: Path | None
    precision: ParserPrecision
    label_set: str | None
    options: Mapping[str, Any]
    inputs: Mapping[str, Any]

    def __post_init__(self) -> None:
        if name := named_parser(self.parser):
            existing_weights(name, self.weights)
            self._check_label_set(LABEL_SETS[name])

    def open(self, device: str, *, trust: bool = False) -> OpenedParser:
        """Reads the weights; an .onnx file is tried first (`onnx_trial`) unless it is trusted.

        Raises:
            ReidkitError: if they are damaged or of something else, or the options do not fit.
        """
        if name := named_parser(self.parser):
            from reidkit.masks.parsers.networks import open_parser

            return _opened(
                open_parser(
                    name,
                    existing_weights(name, self.weights),
                    device=device,
                    precision=self.precision,
                    **self.options,
                )
            )
        from reidkit.device import cuda_index
        from reidkit.masks.parsers.exported import open_exported, read_header
        from reidkit.masks.parsers.onnx import PRESETS
        from reidkit.runtime.onnx_session import open_session
        from reidkit.runtime.onnx_trial import try_model

        if not trust:
            preset = PRESETS[self.inputs.get("preset", "imagenet")]
            size = self.inputs.get("size", preset.size)
            on_cpu = cuda_index(device) is None
            try_model(Path(self.parser), "parser", inputs={"size": size}, on_cpu=on_cpu)
        session = open_session(Path(self.parser), device)
        header = read_header(session)
        if header is None:
            return self._third_party(session)
        if self.inputs:
            given = ", ".join(f"--{name}" for name in self.inputs)
            raise ConfigError(f"{self.parser} states its own test procedure; remove {given}")
        self._check_label_set(header.label_set)
        return _opened(open_exported(session, header, **self.options))

    def _third_party(self, session: Any) -> OpenedParser:
        """A parser in an .onnx file whose input is described by options; scales and mirroring of
        the preset are the original ones."""
        from reidkit.files import sha256
        from reidkit.masks.labels import load_label_set
        from reidkit.masks.parsers.onnx import PRESETS, OnnxParser, ParserOptions

        labels = load_label_set(self.label_set or "lip")
        model_hash = sha256(Path(self.parser))

        def make(options: ParserOptions) -> OnnxParser:
            return OnnxParser(session, labels=labels, options=options, model_hash=model_hash)

        inputs = dict(self.inputs)
        preset = PRESETS[inputs.pop("preset", "imagenet")]
        options = replace(preset, **inputs, **self.options)
        published = replace(options, scales=preset.scales, mirror=preset.mirror)
        parser, original = make(options), None
        if options != published:
            try:
                original = make(published)
            except ConfigError as error:
                log.info("not compared with the preset's own scales and mirroring: %s", error)
        return OpenedParser(name="parser", labels=labels, parser=parser, original=original)

    def _check_label_set(self, known: str) -> None:
        if self.label_set not in (None, known):
            raise ConfigError(
                f"--parser {self.parser} gives the labels of {known};"
                f" remove --label-set {self.label_set}"
            )


def _opened(parser: NetworkParser) -> OpenedParser:
    return OpenedParser(
        name=parser.name,
        labels=parser.labels,
        parser=parser,
        original=None if parser.is_original else parser.original(),
    )
