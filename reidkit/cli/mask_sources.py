"""Where masks come from, on the command line: the options that each source knows, and the sources
that need no parser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit.choices import MaskFiles
from reidkit.cli.output import stage_progress
from reidkit.cli.parsers import PARSER_NAMES, ParserRequest, named_parser

if TYPE_CHECKING:
    from reidkit.masks.labels import Grouping, LabelSet
    from reidkit.masks.processes import Processes
    from reidkit.masks.sources import MaskSource
    from reidkit.types import Dataset

log = logging.getLogger(__name__)

LABELS = {"--label-set", "--grouping"}
RUN = {"--scales", "--mirror", "--no-mirror", "--batch", "--device", "--keep-labels"}
INPUT = {"--preset", "--size", "--fit", "--order", "--mean", "--std"}
ACCEPTED: dict[str, set[str]] = {
    "--labels": LABELS,
    "--source colours": LABELS,
    "--source stripes": set(),
    "--seg-part4": set(),
    "--parser NAME": {"--parser-weights", "--precision"} | LABELS | RUN,
    "--parser FILE.onnx": INPUT | LABELS | RUN,
}
"""The options that each source of masks knows."""


def chosen_source(
    *, labels: Path | None, source: MaskFiles, seg_part4: Path | None, parser: str | None
) -> str:
    """The source of masks among the options, a key of `ACCEPTED`.

    Raises:
        ConfigError: if there are several, or there is no such parser.
    """
    from reidkit.errors import ConfigError

    if parser and not parser.endswith(".onnx"):
        named_parser(parser)
    sources = {
        "--labels": labels is not None and source == "index",
        "--source colours": source == "colours",
        "--source stripes": source == "stripes",
        "--seg-part4": seg_part4 is not None,
        "--parser NAME": parser in PARSER_NAMES,
        "--parser FILE.onnx": parser is not None and parser not in PARSER_NAMES,
    }
    chosen = [option for option, present in sources.items() if present]
    if source == "stripes" and labels:
        chosen.insert(0, "--labels")
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} are different sources of masks; choose one")
    return chosen[0] if chosen else "--labels"


def check_options(source: str, options: Mapping[str, Any]) -> None:
    """Refuses options that the source of masks does not know.

    Args:
        source: a key of `ACCEPTED`.
        options: name -> value, None where it is not given.
    """
    from reidkit.errors import ConfigError

    given = {option for option, value in options.items() if value is not None}
    if "--parser-weights" in given and not source.startswith("--parser"):
        raise ConfigError(
            "--parser-weights needs the network that they are of: add --parser with"
            f" {', '.join(PARSER_NAMES[:-1])} or {PARSER_NAMES[-1]}"
        )
    for option in sorted(given - ACCEPTED[source]):
        *most, last = [name for name, known in ACCEPTED.items() if option in known]
        knowing = f"{', '.join(most)} or {last}" if most else last
        raise ConfigError(f"{option} applies to {knowing}, not to {source}; remove it")


def find_grouping(labels: LabelSet | None, file: Path | None) -> Grouping:
    """The grouping in a file, or the label set's own, LIP's by default; says what that lacks."""
    from reidkit.masks.labels import default_grouping, load_grouping, load_label_set

    if file:
        return load_grouping(file, labels)
    labels = labels or load_label_set("lip")
    if labels.note:
        log.warning("label set %s: %s", labels.name, labels.note)
    return default_grouping(labels)


@contextmanager
def shared_processes(request: ParserRequest | None, device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that share the command, and the device of this one: those of torchrun if a
    parser is run, else this process alone."""
    from reidkit.masks.processes import ONE_PROCESS

    if request is None:
        yield ONE_PROCESS, device
        return
    from reidkit.runtime.distributed import join_process_group

    with join_process_group(device) as joined:
        yield joined


@contextmanager
def main_progress(processes: Processes) -> Iterator[Callable[[str, int, int], None]]:
    """`on_progress(stage, done, total)`, which only the main process shows."""
    if not processes.is_main:
        yield lambda stage, done, total: None
        return
    with stage_progress() as on_progress:
        yield on_progress


def file_source(
    data: Dataset,
    images: list[str],
    groups: Grouping,
    labels: Path | None,
    kind: MaskFiles,
    seg_part4: Path | None,
) -> MaskSource:
    """The source that runs no parser."""
    from reidkit.errors import ConfigError
    from reidkit.masks.sources import five_files, stripes

    if kind == "stripes":
        return stripes(data.root)
    if seg_part4:
        return five_files(data.root, images, seg_part4)
    folder = labels or data.labels
    if folder is None:
        raise ConfigError(
            f"{data.name} has no label maps of its own. Add --labels DIR, --parser FILE.onnx,"
            " --parser NAME --parser-weights PATH, --seg-part4 DIR or --source stripes"
        )
    return label_source(data.root, images, folder, groups, kind)


def label_source(
    root: Path, images: list[str], folder: Path, grouping: Grouping, kind: MaskFiles
) -> MaskSource:
    """The source that reads label files, each matched to its image; logs the match."""
    from reidkit.masks.matching import colour_stem, label_stem, match_labels
    from reidkit.masks.sources import colour_maps, index_maps

    stem, make = (colour_stem, colour_maps) if kind == "colours" else (label_stem, index_maps)
    matching = match_labels(images, folder, stem=stem)
    log.info("%s: %s", folder, matching.summary())
    return make(root, matching.complete(), grouping)
