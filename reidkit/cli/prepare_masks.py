"""reidkit prepare-masks."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.choices import ChannelOrder, MaskFiles, ParserFit, ParserPreset
from reidkit.cli.options import (
    DataRootOption,
    DatasetOption,
    DeviceOption,
    JsonOption,
    parse_size,
)
from reidkit.cli.output import print_json, progress

if TYPE_CHECKING:
    from reidkit.masks.labels import Grouping
    from reidkit.masks.parsers.onnx import OnnxParser
    from reidkit.masks.report import MaskReport
    from reidkit.masks.sources import MaskSource
    from reidkit.types import Dataset, Sample

log = logging.getLogger(__name__)

PANELS = {
    "Data": ("dataset", "data_root", "split"),
    "Source of the masks": ("labels", "source", "seg_part4", "parser", "label_set", "grouping"),
    "Parser": (
        *("preset", "size", "scales", "mirror", "fit", "order", "mean", "std", "batch", "device"),
    ),
    "Output": ("out", "overwrite", "sheet", "json"),
}


class MaskSplit(StrEnum):
    """Splits that can be masked."""

    TRAIN = "train"
    QUERY = "query"
    GALLERY = "gallery"
    ALL = "all"


def prepare_masks(
    dataset: DatasetOption,
    data_root: DataRootOption = None,
    split: Annotated[
        list[MaskSplit] | None,
        typer.Option(help="Split to prepare masks for; repeatable.", show_default="train"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps (PNG).", show_default="the data set's own, if any"),
    ] = None,
    source: Annotated[
        MaskFiles,
        typer.Option(
            help="Read --labels as maps of label indices or as palette colours (*_vis.png);"
            " stripes uses body proportions instead of a parser."
        ),
    ] = "index",
    seg_part4: Annotated[
        Path | None, typer.Option(help="Folder of part files as IAUnet's authors publish them.")
    ] = None,
    parser: Annotated[
        Path | None, typer.Option(help="Human parser (.onnx) to run on the images.")
    ] = None,
    label_set: Annotated[
        str | None,
        typer.Option(
            help="Label set: lip, cihp, atr, pascal-person-part or a TOML file.", show_default="lip"
        ),
    ] = None,
    grouping: Annotated[
        Path | None, typer.Option(help="Grouping of labels into parts (TOML).")
    ] = None,
    preset: Annotated[ParserPreset, typer.Option(help="Preprocessing preset.")] = "imagenet",
    size: Annotated[str | None, typer.Option(help="Input size, HEIGHTxWIDTH.")] = None,
    scales: Annotated[
        str | None, typer.Option(help="Scales to average over, such as 1,0.75,1.25.")
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option("--mirror/--no-mirror", help="Average with the mirrored image."),
    ] = None,
    fit: Annotated[
        ParserFit | None, typer.Option(help="Stretch or pad images to the input size.")
    ] = None,
    order: Annotated[ChannelOrder | None, typer.Option(help="Channel order.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Mean per channel, as 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Standard deviation per channel, as 0.229,0.224,0.225.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Batch size.")] = None,
    device: DeviceOption = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Mask file to write.", show_default="masks/<dataset>.h5"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that holds other masks.")
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of images and parts (PNG).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Prepare body-part masks.

    Masks come from label maps of a human parser, from a parser that reidkit runs, or from stripes
    by body proportions. Repeat the command to resume an interrupted run.

    \b
    Examples:
      reidkit prepare-masks --dataset market1501 --labels parsing/
      reidkit prepare-masks --dataset market1501 --parser schp.onnx --preset schp
    """
    from reidkit.data.manifest import open_dataset
    from reidkit.errors import ConfigError
    from reidkit.masks.contact_sheet import save_contact_sheet
    from reidkit.masks.labels import default_grouping, load_grouping, load_label_set
    from reidkit.masks.prepare import prepare
    from reidkit.masks.sources import five_files, stripes
    from reidkit.masks.store import MaskStore, default_path

    sources = {
        "--labels": labels is not None,
        "--seg-part4": seg_part4 is not None,
        "--parser": parser is not None,
        "--source stripes": source == "stripes",
    }
    chosen = [option for option, present in sources.items() if present]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} are different sources of masks; choose one")
    if grouping and (seg_part4 or source == "stripes"):
        raise ConfigError("--grouping groups a parser's labels; these masks are parts already")
    data = open_dataset(dataset, data_root)
    root = data.root
    samples, splits = select_splits(data, split or [MaskSplit.TRAIN])
    images = [sample.path for sample in samples]
    names = load_label_set(label_set) if label_set else None
    groups = (
        load_grouping(grouping, names)
        if grouping
        else default_grouping(names or load_label_set("lip"))
    )
    masks: MaskSource
    if source == "stripes":
        masks = stripes(root)
    elif seg_part4:
        masks = five_files(root, images, seg_part4)
    elif parser:
        options = {
            "size": None if size is None else tuple(parse_size(size)),
            "scales": None if scales is None else parse_numbers("--scales", scales),
            "mirror": mirror,
            "fit": fit,
            "order": order,
            "mean": None if mean is None else parse_numbers("--mean", mean, count=3),
            "std": None if std is None else parse_numbers("--std", std, count=3),
            "batch": batch,
        }
        masks = open_parser(parser, root, groups, device=device, preset=preset, options=options)
    else:
        folder = labels or data.labels
        if folder is None:
            raise ConfigError(
                f"{data.name} has no label maps of its own. Add --labels DIR, --parser FILE.onnx,"
                " --seg-part4 DIR or --source stripes"
            )
        masks = label_source(root, images, folder, groups, source)
    path = out or default_path(data.name)
    with progress("preparing masks") as on_progress:
        report = prepare(
            path, data, samples, masks, split=splits, overwrite=overwrite, progress=on_progress
        )
    if sheet:
        save_contact_sheet(sheet, MaskStore.open(path), report, root=root)
    if json:
        print_json({"file": str(path), "bytes": path.stat().st_size, **report.as_dict()})
        return
    print_report(path, report)
    if sheet:
        print(f"sheet: {sheet}")


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


def open_parser(
    file: Path,
    root: Path,
    grouping: Grouping,
    *,
    device: str,
    preset: ParserPreset,
    options: dict[str, Any],
) -> OnnxParser:
    """The source that runs a parser: a preset with the options that are not None."""
    from dataclasses import replace

    from reidkit.errors import ConfigError
    from reidkit.files import sha256
    from reidkit.masks.parsers.onnx import PRESETS, OnnxParser
    from reidkit.runtime.onnx_session import open_session

    if not file.is_file():
        raise ConfigError(f"--parser {file}: no such file; expected a human parser in ONNX")
    changes = {name: value for name, value in options.items() if value is not None}
    return OnnxParser(
        open_session(file, device),
        root=root,
        grouping=grouping,
        options=replace(PRESETS[preset], **changes),
        model_hash=sha256(file),
    )


def parse_numbers(option: str, text: str, *, count: int | None = None) -> tuple[float, ...]:
    """ "1,0.75" -> (1.0, 0.75)."""
    from reidkit.errors import ConfigError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or (count and len(values) != count):
        expected = f"{count} numbers" if count else "numbers"
        raise ConfigError(f"{option} {text}: expected {expected} separated by commas")
    return values


def select_splits(dataset: Dataset, splits: list[MaskSplit]) -> tuple[list[Sample], str]:
    """The images of some splits, and the splits' names joined by "+"."""
    from reidkit.types import SPLITS, frames

    chosen = [name for name in SPLITS if name in splits or MaskSplit.ALL in splits]
    chosen = [name for name in chosen if name in splits or getattr(dataset, name)]
    return [s for name in chosen for s in frames(getattr(dataset, name))], "+".join(chosen)


def print_report(path: Path, report: MaskReport) -> None:
    """Prints a report as text."""
    size = path.stat().st_size
    print(
        f"{path}: {report.images:,} masks ({report.split}) from {report.source},"
        f" {size / 1e3:,.0f} kB, {size / report.images:.0f} bytes per image"
    )
    print(f"  {'part':16} {'coverage':>8} {'absent in':>12}")
    for part, share, absent in zip(report.parts, report.coverage, report.absent, strict=True):
        print(f"  {part:16} {100 * share:6.1f} % {absent:>12,}")
    print(f"  {report.empty:,} nearly empty, {report.suspicious:,} suspicious")
    for suspect in report.suspects:
        print(f"    {suspect.path}: {'; '.join(suspect.reasons)}")
    for warning in report.warnings:
        print(f"  warning: {warning}")
