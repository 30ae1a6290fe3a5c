"""reidkit prepare-masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import DataRootOption, DatasetOption, DeviceOption, JsonOption
from reidkit.cli.output import print_json, progress

if TYPE_CHECKING:
    from reidkit.masks.lip import Grouping
    from reidkit.masks.parser import OnnxParser
    from reidkit.masks.report import Report
    from reidkit.masks.sources import MaskSource
    from reidkit.types import Dataset, Sample

KINDS = ("index", "colours", "stripes")


def prepare_masks(
    dataset: DatasetOption,
    data_root: DataRootOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps (PNG). [default: the data set's own, if any]"),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="What --labels holds: index (maps of label numbers) or colours (palette pictures"
            " such as *_vis.png). Or stripes: bands by body proportions, without any parser."
        ),
    ] = "index",
    seg_part4: Annotated[
        Path | None,
        typer.Option(help="Folder in the layout of IAUnet's authors."),
    ] = None,
    parser: Annotated[
        Path | None, typer.Option(help="A human parser as .onnx, run on the images themselves.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="train, query, gallery or all; may be repeated. [default: train]"),
    ] = None,
    label_set: Annotated[
        str | None,
        typer.Option(help="lip, cihp, atr, pascal-person-part, or a TOML file. [default: lip]"),
    ] = None,
    grouping: Annotated[
        Path | None, typer.Option(help="Which labels make which part, in TOML.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="[default: masks/<dataset>.h5]")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that holds other masks.")
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw images with their parts over them, as PNG.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="How the parser is fed: imagenet, schp or jppnet.")
    ] = "imagenet",
    size: Annotated[str | None, typer.Option(help="Parser input, HEIGHTxWIDTH.")] = None,
    scales: Annotated[str | None, typer.Option(help="Averaged over, such as 1,0.75,1.25.")] = None,
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", help="Average with the mirror image.")
    ] = None,
    fit: Annotated[str | None, typer.Option(help="stretch or pad images to the size.")] = None,
    order: Annotated[str | None, typer.Option(help="Channel order, rgb or bgr.")] = None,
    mean: Annotated[str | None, typer.Option(help="Three numbers in channel order.")] = None,
    std: Annotated[str | None, typer.Option(help="Three numbers in channel order.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at a time.")] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Make the part masks that training reads: from label maps, from a parser, or stripes."""
    from reidkit.data.manifest import locate, read_dataset
    from reidkit.errors import ConfigError, suggest
    from reidkit.masks.lip import default_grouping, load_grouping, load_label_set
    from reidkit.masks.prepare import prepare
    from reidkit.masks.sources import five_files, stripes
    from reidkit.masks.store import MaskStore

    if source not in KINDS:
        raise ConfigError(f"unknown --source {source!r}. {suggest(source, KINDS)}")
    given = {
        "--labels": labels is not None,
        "--seg-part4": seg_part4 is not None,
        "--parser": parser is not None,
        "--source stripes": source == "stripes",
    }
    several = [option for option, chosen in given.items() if chosen]
    if len(several) > 1:
        raise ConfigError(f"masks come from one place, not from {' and '.join(several)}")
    if grouping and (seg_part4 or source == "stripes"):
        raise ConfigError("--grouping groups a parser's labels; these masks are parts already")
    manifest, root = locate(dataset, data_root)
    data = read_dataset(manifest, root)
    samples, splits = pick_splits(data, split or ["train"])
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
        changes = {
            "size": size,
            "scales": scales,
            "mirror": mirror,
            "fit": fit,
            "order": order,
            "mean": mean,
            "std": std,
            "batch": batch,
        }
        masks = open_parser(parser, root, groups, device=device, preset=preset, changes=changes)
    else:
        own = root / manifest.labels if manifest.labels else None
        if not (labels or own):
            raise ConfigError(
                f"{data.name} has no label maps of its own: give --labels DIR, --parser FILE.onnx,"
                " --seg-part4 DIR or --source stripes"
            )
        masks = match(root, images, labels or own, groups, source)
    path = out or Path("masks") / f"{data.name}.h5"
    with progress("preparing masks") as on_progress:
        report = prepare(
            path, data, samples, masks, split=splits, overwrite=overwrite, progress=on_progress
        )
    if sheet:
        from reidkit.masks.sheet import draw_sheet

        draw_sheet(sheet, MaskStore.open(path), report, root=root)
    if json:
        print_json({"file": str(path), "bytes": path.stat().st_size, **report.as_dict()})
        return
    print_report(path, report)
    if sheet:
        print(f"sheet: {sheet}")


def match(
    root: Path, images: list[str], labels: Path | None, grouping: Grouping, kind: str
) -> MaskSource:
    """The source that reads label files, each matched to its image; says on stderr how."""
    import sys

    from reidkit.masks.matching import colour_stem, label_stem, match_labels
    from reidkit.masks.sources import colour_maps, index_maps

    assert labels is not None
    stem, make = (colour_stem, colour_maps) if kind == "colours" else (label_stem, index_maps)
    matching = match_labels(images, labels, stem=stem)
    print(f"{labels}: {matching.summary()}", file=sys.stderr)
    return make(root, matching.complete(), grouping)


def open_parser(
    file: Path,
    root: Path,
    grouping: Grouping,
    *,
    device: str,
    preset: str,
    changes: dict[str, Any],
) -> OnnxParser:
    """The source that runs a parser: a preset, changed where an option says otherwise."""
    from dataclasses import replace

    from reidkit.device import torch_device
    from reidkit.errors import ConfigError, suggest
    from reidkit.files import sha256
    from reidkit.masks.parser import PRESETS, OnnxParser
    from reidkit.runtime.onnx_runtime import open_session

    if preset not in PRESETS:
        raise ConfigError(f"unknown --preset {preset!r}. {suggest(preset, PRESETS)}")
    if not file.is_file():
        raise ConfigError(f"--parser {file}: no such file; expected a human parser in ONNX")
    changes = {name: value for name, value in changes.items() if value is not None}
    for name, kind, separator, count in (
        ("size", int, "x", 2),
        ("scales", float, ",", None),
        ("mean", float, ",", 3),
        ("std", float, ",", 3),
    ):
        if name in changes:
            changes[name] = numbers(name, changes[name], kind, separator, count)
    return OnnxParser(
        open_session(file, torch_device(device)),
        root=root,
        grouping=grouping,
        options=replace(PRESETS[preset], **changes),
        model_hash=sha256(file),
    )


def numbers(name: str, text: str, kind: type, separator: str, count: int | None) -> tuple[Any, ...]:
    """ "256x128" -> (256, 128); "1,0.75" -> (1.0, 0.75)."""
    from reidkit.errors import ConfigError

    try:
        values = tuple(kind(part) for part in text.split(separator))
    except ValueError:
        values = ()
    if not values or (count and len(values) != count):
        wanted = f"{count} numbers" if count else "numbers"
        raise ConfigError(f"--{name} {text!r}: expected {wanted} joined by {separator!r}")
    return values


def pick_splits(dataset: Dataset, splits: list[str]) -> tuple[list[Sample], str]:
    """The images of some splits, and the splits' names joined by "+"."""
    from reidkit.errors import ConfigError, suggest
    from reidkit.masks.store import frames
    from reidkit.types import SPLITS

    if "all" in splits:
        splits = [name for name in SPLITS if getattr(dataset, name)]
    for name in splits:
        if name not in SPLITS:
            raise ConfigError(f"--split {name}: {suggest(name, [*SPLITS, 'all'])}")
    chosen = [name for name in SPLITS if name in splits]
    return [s for name in chosen for s in frames(getattr(dataset, name))], "+".join(chosen)


def print_report(path: Path, report: Report) -> None:
    """A report for people, on stdout."""
    size = path.stat().st_size
    print(
        f"{path}: {report.images:,} masks ({report.split}) from {report.source},"
        f" {size / 1e6:.1f} MB, {size / report.images:.0f} bytes each"
    )
    print(f"  {'part':16} {'covers':>7} {'absent in':>12}")
    for part, share, absent in zip(report.parts, report.coverage, report.absent, strict=True):
        print(f"  {part:16} {100 * share:5.1f} % {absent:>12,}")
    print(f"  {report.empty:,} next to empty, {report.suspicious:,} suspicious")
    for suspect in report.suspects:
        print(f"    {suspect.path}: {'; '.join(suspect.reasons)}")
    for warning in report.warnings:
        print(f"  warning: {warning}")
