"""reidkit train."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.common import (
    DataRootOption,
    DatasetOption,
    DeviceOption,
    JsonOption,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from reidkit.config import RunConfig
    from reidkit.masks.store import MaskStore
    from reidkit.retrieval import Report
    from reidkit.training.loop import EpochReport
    from reidkit.training.run import Watch
    from reidkit.types import Dataset

log = logging.getLogger(__name__)


def train(
    dataset: DatasetOption,
    arch: Annotated[
        str | None, typer.Option(help="Architecture; reidkit models lists them. [default: iaunet]")
    ] = None,
    data_root: DataRootOption = None,
    masks: Annotated[
        Path | None, typer.Option(help="Part masks. [default: masks/<dataset>.h5]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The run's folder. [default: runs/<arch>-<dataset>-<time>]"
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Recipe by name; none: bare defaults. [default: the arch's]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, as optim.lr=3e-4; repeatable.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="schedule.epochs")] = None,
    batch: Annotated[int | None, typer.Option(help="sampler.batch, images in a step")] = None,
    lr: Annotated[float | None, typer.Option(help="optim.lr")] = None,
    size: Annotated[str | None, typer.Option(help="input.size as HEIGHTxWIDTH, 256x128")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="ImageNet weights: auto (download), none, or a file. [default: auto]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same run.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16")] = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 2,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or the newest.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a network; writes checkpoints, settings and metrics into a folder under runs/."""
    from reidkit.checkpoint import read_header
    from reidkit.cli.inputs import parse_size
    from reidkit.config import require
    from reidkit.data.manifest import open_dataset
    from reidkit.device import torch_device
    from reidkit.training.run import build_model, needs_masks, new_folder, run

    data = open_dataset(dataset, data_root)
    folder = out
    if resume:
        folder = folder or newest_folder()
        settings = load_resumed(folder, data)
    else:
        flags = {
            "arch.name": arch,
            "schedule.epochs": epochs,
            "sampler.batch": batch,
            "optim.lr": lr,
            "input.size": None if size is None else parse_size(size),
            "weights": weights,
            "seed": seed,
            "precision": precision,
        }
        settings = load_settings(data.name, flags, preset=preset, file=config, assign=set_ or [])
        folder = folder or new_folder(settings.arch.name, data.name)
        taken = (folder / "config.toml").exists()
        require(not taken, f"{folder} holds a run. Go on with it by --resume, or take another -o")
    store = None
    if needs_masks(settings, build_model(settings, num_ids=1)):
        store = open_masks(settings.arch.name, data, masks)
    log.info("run: %s", folder)
    with progress("training") as on_progress:
        best = run(
            settings,
            data,
            folder=folder,
            masks=store,
            device=torch_device(device),
            workers=workers,
            resume=resume,
            watch=make_watch(settings.schedule.epochs, on_progress),
        )
    metrics = read_header(best).metrics
    if json:
        print_json({"run": str(folder), "model": str(best), "metrics": metrics})
        return
    print(f"best of the epochs that were judged on the test set: epoch {metrics['epoch']}")
    print(f"mAP {100 * metrics['mAP']:.1f}  rank-1 {100 * metrics['cmc'][0]:.1f}")
    print(best)
    if data.synthetic:
        print("synthetic data: not comparable with published numbers", file=sys.stderr)


def load_settings(
    dataset: str,
    flags: Mapping[str, object],
    *,
    preset: str | None,
    file: Path | None,
    assign: list[str],
) -> RunConfig:
    """Settings from preset, file, environment, `--set` and flags, in that order."""
    from reidkit.config import (
        Layer,
        arch_name,
        default_preset,
        environment_layer,
        file_layer,
        load_run_config,
        preset_layer,
        set_layer,
    )
    from reidkit.tables import nested

    given = {name: value for name, value in flags.items() if value is not None}
    layers = [file_layer(file)] if file else []
    layers += [environment_layer(), set_layer(assign), Layer("flags", nested(given))]
    if preset is None:
        preset = default_preset(arch_name(layers), dataset) or "none"
    if preset != "none":
        layers.insert(0, preset_layer(preset))
        log.info("recipe: %s", preset)
    return load_run_config(layers)


def load_resumed(folder: Path, dataset: Dataset) -> RunConfig:
    """The settings of an earlier run, if its data are still the same."""
    from reidkit.config import Layer, load_run_config
    from reidkit.errors import ConfigError
    from reidkit.tables import read_toml

    table = read_toml(folder / "config.toml")
    before = table.pop("dataset", {}).get("fingerprint")
    if before != dataset.fingerprint:
        raise ConfigError(
            f"{folder} was trained on other data: its fingerprint is {str(before)[:12]}, that of "
            f"{dataset.name} in {dataset.root} is {dataset.fingerprint[:12]}. Start a new run"
        )
    return load_run_config([Layer(f"{folder}/config.toml", table)])


def newest_folder(runs: Path = Path("runs")) -> Path:
    """The run that was written to last."""
    from reidkit.errors import ConfigError

    found = sorted(runs.glob("*/config.toml"), key=lambda path: path.parent.stat().st_mtime)
    if not found:
        raise ConfigError(f"no run under {runs} to go on with. Start one without --resume")
    return found[-1].parent


def open_masks(arch: str, dataset: Dataset, path: Path | None) -> MaskStore:
    """The mask store of a data set, checked against it."""
    from reidkit.masks.store import MaskStore, require_store
    from reidkit.types import PARTS

    path = path or Path("masks") / f"{dataset.name}.h5"
    require_store(path, arch=arch, dataset=dataset.name)
    return MaskStore.open(path, dataset=dataset, parts=PARTS)


def make_watch(epochs: int, on_progress: Callable[[int, int], None]) -> Watch:
    """Progress over all steps of the run; a line per epoch and per evaluation on stderr."""
    from reidkit.training.run import Watch

    def on_epoch(report: EpochReport) -> None:
        losses = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
        log.info(
            "epoch %d/%d  lr %.2e  %s  accuracy %.1f%%  %.0f images/s",
            report.epoch + 1,
            epochs,
            report.lr,
            losses,
            100 * report.accuracy,
            report.images / report.seconds,
        )

    def on_evaluation(epoch: int, report: Report) -> None:
        log.info(
            "epoch %d: mAP %.1f  rank-1 %.1f", epoch + 1, 100 * report.mAP, 100 * report.rank(1)
        )

    return Watch(
        on_step=lambda epoch, step, steps: on_progress(epoch * steps + step, epochs * steps),
        on_epoch=on_epoch,
        on_evaluation=on_evaluation,
    )
