"""reidkit prepare-masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.common import DataRootOption, DatasetOption, JsonOption, print_json, progress

if TYPE_CHECKING:
    from reidkit.masks.report import Report
    from reidkit.types import Dataset, Sample


def prepare_masks(
    dataset: DatasetOption,
    data_root: DataRootOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps (PNG). [default: the data set's own, if any]"),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="train, query, gallery or all; may be repeated. [default: train]"),
    ] = None,
    label_set: Annotated[
        str, typer.Option(help="lip, cihp, atr, pascal-person-part, or a TOML file.")
    ] = "lip",
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
    json: JsonOption = False,
) -> None:
    """Turn a human parser's label maps into the part masks that training reads."""
    from reidkit.data.manifest import locate, read_dataset
    from reidkit.errors import ConfigError
    from reidkit.masks.lip import default_grouping, load_grouping, load_label_set
    from reidkit.masks.matching import label_stem, match_labels
    from reidkit.masks.prepare import prepare
    from reidkit.masks.sources import index_maps
    from reidkit.masks.store import MaskStore

    manifest, root = locate(dataset, data_root)
    data = read_dataset(manifest, root)
    samples, splits = pick_splits(data, split or ["train"])
    if labels is None:
        if manifest.labels is None:
            raise ConfigError(f"{data.name} has no label maps of its own: give --labels DIR")
        labels = root / manifest.labels
    names = load_label_set(label_set)
    groups = load_grouping(grouping, names) if grouping else default_grouping(names)
    matching = match_labels([s.path for s in samples], labels, stem=label_stem).complete()
    source = index_maps(root, matching, groups)
    path = out or Path("masks") / f"{data.name}.h5"
    with progress("preparing masks") as on_progress:
        report = prepare(
            path,
            data,
            samples,
            source,
            split=splits,
            overwrite=overwrite,
            progress=on_progress,
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


def pick_splits(dataset: Dataset, splits: list[str]) -> tuple[list[Sample], str]:
    """The images of some splits, and the splits' names joined by "+"."""
    from reidkit.data.manifest import SPLITS
    from reidkit.errors import ConfigError, suggest
    from reidkit.masks.store import frames

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
