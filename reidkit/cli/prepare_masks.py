"""reidkit prepare-masks."""

from __future__ import annotations

import logging
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.choices import ChannelOrder, MaskFiles, ParserFit, ParserPrecision, ParserPreset
from reidkit.cli.mask_sources import (
    check_options,
    chosen_source,
    file_source,
    find_grouping,
    main_progress,
    shared_processes,
)
from reidkit.cli.options import (
    DataRootOption,
    DatasetOption,
    DeviceOption,
    JsonOption,
    TrustOption,
    parse_size,
)
from reidkit.cli.output import print_json
from reidkit.cli.parsers import ParserRequest, ParserWeightsOption

if TYPE_CHECKING:
    from reidkit.masks.report import MaskReport
    from reidkit.masks.sources import MaskSource
    from reidkit.types import Dataset, Sample

log = logging.getLogger(__name__)

PANELS = {
    "Data": ("dataset", "data_root", "split"),
    "Source of the masks": (
        *("labels", "source", "seg_part4", "parser", "parser_weights", "label_set", "grouping"),
    ),
    "Parser": ("scales", "mirror", "batch", "precision", "device", "keep_labels"),
    "Parser in ONNX": ("trust", "preset", "size", "fit", "order", "mean", "std"),
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
        str | None,
        typer.Option(
            help="Human parser to run on the images: jppnet, schp-lip, schp-atr, schp-pascal, or"
            " an .onnx file."
        ),
    ] = None,
    parser_weights: ParserWeightsOption = None,
    label_set: Annotated[
        str | None,
        typer.Option(
            help="Label set: lip, cihp, atr, pascal-person-part or a TOML file.", show_default="lip"
        ),
    ] = None,
    grouping: Annotated[
        Path | None, typer.Option(help="Grouping of labels into parts (TOML).")
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(help="Scales to average over, such as 1,0.75,1.25.", show_default="original"),
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="Average with the mirrored image.",
            show_default="original",
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=64, help="Batch size.")] = None,
    precision: Annotated[
        ParserPrecision | None,
        typer.Option(help="Arithmetic of a named parser.", show_default="fp32"),
    ] = None,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
    keep_labels: Annotated[
        Path | None, typer.Option(help="Also write the parser's label maps to this folder (PNG).")
    ] = None,
    preset: Annotated[
        ParserPreset | None, typer.Option(help="Preprocessing preset.", show_default="imagenet")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Input size, HEIGHTxWIDTH.")] = None,
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
    by body proportions. Repeat the command to resume an interrupted run. Under torchrun, several
    processes share the images of a parser.

    \b
    Examples:
      reidkit prepare-masks --dataset market1501 --labels parsing/
      reidkit prepare-masks --dataset market1501 --parser x.onnx --preset schp
      reidkit prepare-masks --dataset market1501 --parser jppnet \\
        --parser-weights JPPNet-s2
    """
    from reidkit.data.manifest import open_dataset
    from reidkit.masks.contact_sheet import save_contact_sheet
    from reidkit.masks.labels import load_label_set
    from reidkit.masks.parser_source import ParserSource
    from reidkit.masks.prepare import prepare
    from reidkit.masks.store import MaskStore, default_path

    check_options(
        chosen_source(labels=labels, source=source, seg_part4=seg_part4, parser=parser),
        {
            "--parser-weights": parser_weights,
            "--precision": precision,
            "--label-set": label_set,
            "--grouping": grouping,
            "--scales": scales,
            "--mirror" if mirror else "--no-mirror": mirror,
            "--batch": batch,
            "--device": None if device == "auto" else device,
            "--keep-labels": keep_labels,
            "--preset": preset,
            "--size": size,
            "--fit": fit,
            "--order": order,
            "--mean": mean,
            "--std": std,
        },
    )
    request = None
    if parser:
        request = ParserRequest(
            parser=parser,
            weights=parser_weights,
            precision=precision or "fp32",
            label_set=label_set,
            options=only_given(
                scales=None if scales is None else parse_numbers("--scales", scales),
                mirror=mirror,
                batch=batch,
            ),
            inputs=only_given(
                preset=preset,
                size=None if size is None else tuple(parse_size(size)),
                fit=fit,
                order=order,
                mean=None if mean is None else parse_numbers("--mean", mean, count=3),
                std=None if std is None else parse_numbers("--std", std, count=3),
            ),
        )
    label_names = load_label_set(label_set) if label_set else None
    data = open_dataset(dataset, data_root)
    samples, splits = select_splits(data, split or [MaskSplit.TRAIN])
    images = sorted({sample.path for sample in samples})
    path = out or default_path(data.name)
    with (
        shared_processes(request, device) as (processes, local_device),
        main_progress(processes) as on_progress,
    ):
        masks: MaskSource
        compare = None
        if request:
            opened = request.open(local_device, trust=trust)
            groups = find_grouping(opened.labels, grouping)
            if not processes.is_main:
                processes.broadcast(None)  # the main process opens the folder of label maps first
            masks = opened.source(data.root, images, groups, keep=keep_labels)
            if processes.is_main:
                processes.broadcast(None)
            if opened.original:
                compare = partial(
                    masks.compare,
                    opened.original,
                    processes=processes,
                    progress=partial(on_progress, "comparing with the original procedure"),
                )
        else:
            groups = find_grouping(label_names, grouping)
            masks = file_source(data, images, groups, labels, source, seg_part4)
        report = prepare(
            path,
            data,
            samples,
            masks,
            split=splits,
            overwrite=overwrite,
            compare=compare,
            processes=processes,
            progress=partial(on_progress, "preparing masks"),
        )
        if isinstance(masks, ParserSource):
            masks.keep_missing(images, processes=processes)
    if not processes.is_main:
        return
    if sheet:
        save_contact_sheet(sheet, MaskStore.open(path), report, root=data.root)
    if json:
        print_json({"file": str(path), "bytes": path.stat().st_size, **report.as_dict()})
        return
    print_report(path, report)
    if sheet:
        print(f"sheet: {sheet}")


def only_given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


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
    if report.agreement:
        print(f"  {report.agreement.describe()}")
    for warning in report.warnings:
        print(f"  warning: {warning}")
