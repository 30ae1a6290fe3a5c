"""reidkit train."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.options import DataRootOption, DatasetOption, DeviceOption, JsonOption, open_data
from reidkit.cli.output import print_json

if TYPE_CHECKING:
    from reidkit.config import Layer, RunConfig
    from reidkit.masks.store import MaskStore
    from reidkit.retrieval import RetrievalMetrics
    from reidkit.runtime.distributed import ProcessGroup
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
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16")] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile", help="torch.compile the network.")
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="optim.ema: decay of the weights' moving average")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            help="test.val_fraction: choose the best checkpoint by so many of the training "
            "identities, held out, instead of by the test set"
        ),
    ] = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 2,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's events.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build all, time three steps, say what a run takes.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or the newest.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a network; writes checkpoints, settings and metrics into a folder under runs/.

    Processes share every batch under torchrun: torchrun --nproc-per-node 4 -m reidkit train ...
    """
    from reidkit.cli.options import parse_size
    from reidkit.runtime.distributed import join_process_group

    flags = {
        "arch.name": arch,
        "schedule.epochs": epochs,
        "sampler.batch": batch,
        "optim.lr": lr,
        "optim.ema": ema,
        "test.val_fraction": val_fraction,
        "input.size": None if size is None else parse_size(size),
        "weights": weights,
        "seed": seed,
        "precision": precision,
        "compile": compile_,
    }
    asked = Asked(flags, preset, config, tuple(set_ or ()))
    with join_process_group(device) as (group, own_device):
        if not group.is_main:
            logging.getLogger().setLevel(logging.WARNING)
        job = Job(dataset, data_root, masks, out, own_device, workers, tensorboard, group)
        if dry_run:
            _dry_run(job, asked, json=json)
        else:
            _train(job, asked, resume=resume, json=json)


@dataclass(frozen=True)
class Asked:
    """What the command line says about settings."""

    flags: Mapping[str, object]
    preset: str | None
    file: Path | None
    assign: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What the command line says about where, from what and with whom."""

    dataset: str
    data_root: Path | None
    masks: Path | None
    out: Path | None
    device: str
    workers: int
    tensorboard: bool
    group: ProcessGroup


def _train(job: Job, asked: Asked, *, resume: bool, json: bool) -> None:
    from reidkit.checkpoint import read_header
    from reidkit.config import require
    from reidkit.device import torch_device
    from reidkit.training.run import new_folder, run

    data = open_data(job.dataset, job.data_root)
    folder = job.out
    if resume:
        folder = job.group.broadcast(folder or newest_folder())
        settings = load_resumed(folder, asked)
    else:
        settings = load_settings(data.name, asked)
        folder = job.group.broadcast(folder or new_folder(settings.arch.name, data.name))
        taken = job.group.broadcast((folder / "config.toml").exists())
        require(not taken, f"{folder} holds a run. Go on with it by --resume, or take another -o")
    log.info("run: %s", folder)
    with _bar(settings.schedule.epochs, shown=job.group.is_main) as watch, _stopped(job, folder):
        best = run(
            settings,
            data,
            folder=folder,
            masks=open_needed_masks(settings, data, job.masks),
            device=torch_device(job.device),
            workers=job.workers,
            resume=resume,
            watch=watch,
            group=job.group,
            tensorboard=job.tensorboard,
        )
    if not job.group.is_main:
        return
    metrics = read_header(best).metrics
    if json:
        print_json({"run": str(folder), "model": str(best), "metrics": metrics})
        return
    print(f"best checkpoint: epoch {metrics['epoch']}, chosen by the {metrics['chosen_by']}")
    print(f"mAP {100 * metrics['mAP']:.1f}  rank-1 {100 * metrics['cmc'][0]:.1f} on the test set")
    print(best)
    if data.synthetic:
        print("synthetic data: not comparable with published numbers", file=sys.stderr)


@contextlib.contextmanager
def _stopped(job: Job, folder: Path) -> Iterator[None]:
    """Ctrl-C ends with the line that goes on."""
    try:
        yield
    except KeyboardInterrupt:
        log.info("stopped. Go on: reidkit train --dataset %s --resume -o %s", job.dataset, folder)
        raise


def _dry_run(job: Job, asked: Asked, *, json: bool) -> None:
    import dataclasses

    from reidkit.device import torch_device
    from reidkit.training.dryrun import dry_run

    data = open_data(job.dataset, job.data_root)
    settings = load_settings(data.name, asked)
    forecast = dry_run(
        settings,
        data,
        masks=open_needed_masks(settings, data, job.masks),
        device=torch_device(job.device),
        workers=job.workers,
    )
    if json:
        print_json(dataclasses.asdict(forecast))
        return
    width = max(len(name) for name, _ in forecast.shapes)
    for name, shape in forecast.shapes:
        print(f"{name:{width}}  {shape}")
    each = " ".join(f"{seconds:.2f}" for seconds in forecast.step_seconds)
    losses = "  ".join(f"{name} {value:.3f}" for name, value in forecast.losses.items())
    print(f"parameters    {forecast.parameters:,} ({forecast.trainable:,} trainable)")
    print(f"training set  {forecast.identities:,} identities, {forecast.images:,} images")
    print(f"steps         {forecast.steps:,} an epoch, {forecast.epochs:,} epochs")
    print(f"step          {each} s ({forecast.precision}), loading included")
    print(f"training      {forecast.seconds / 3600:.2f} h, evaluations left out")
    print(f"peak memory   {forecast.memory / 2**30:.2f} GiB")
    print(f"losses        {losses}")


def open_needed_masks(settings: RunConfig, data: Dataset, path: Path | None) -> MaskStore | None:
    """The mask store, if the loss looks at parts."""
    from reidkit.training.run import build_model, needs_masks

    if needs_masks(settings, build_model(settings, num_ids=1)):
        return open_masks(settings.arch.name, data, path)
    return None


def load_settings(dataset: str, asked: Asked) -> RunConfig:
    """Settings from preset, file, environment, `--set` and flags, in that order."""
    from reidkit.config import load_run_config, with_recipe

    layers = with_recipe(_layers(asked), preset=asked.preset, dataset=dataset)
    log.info("settings: %s", ", ".join(layer.where for layer in layers if layer.table))
    settings = load_run_config(layers)
    if layers[0].where.endswith(".toml"):
        _warn_of_batch(load_run_config(layers[:1]), settings)
    return settings


def _layers(asked: Asked) -> list[Layer]:
    from reidkit.config import Layer, environment_layer, file_layer, set_layer
    from reidkit.config.tables import nested

    given = {name: value for name, value in asked.flags.items() if value is not None}
    layers = [file_layer(asked.file)] if asked.file else []
    return [*layers, environment_layer(), set_layer(asked.assign), Layer("flags", nested(given))]


def _warn_of_batch(recipe: RunConfig, settings: RunConfig) -> None:
    """Another batch than the recipe's makes its learning rate another one."""
    before, now = recipe.sampler.batch, settings.sampler.batch
    if before == now or settings.optim.lr != recipe.optim.lr:
        return
    scaled = recipe.optim.lr * now / before
    log.warning(
        "the recipe's learning rate %g belongs to its batch of %d; in proportion, a batch of %d "
        "takes --lr %.3g",
        recipe.optim.lr,
        before,
        now,
        scaled,
    )


def load_resumed(folder: Path, asked: Asked) -> RunConfig:
    """The settings of an earlier run, with what is asked for now on top: whether they still are the
    same is checked against the run's own file."""
    from reidkit.config import Layer, load_run_config, preset_layer
    from reidkit.config.tables import read_toml

    table = read_toml(folder / "config.toml")
    table.pop("dataset", None)
    layers = [Layer(f"{folder}/config.toml", table), *_layers(asked)]
    if asked.preset not in (None, "none"):
        layers.insert(1, preset_layer(str(asked.preset)))
    return load_run_config(layers)


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
    require_store(path, arch=arch, dataset=dataset)
    return MaskStore.open(path, dataset=dataset, parts=PARTS)


def make_watch(epochs: int, on_progress: Callable[[int, int], None]) -> Watch:
    """Progress over all steps of the run; a line per epoch and per evaluation on stderr."""
    from reidkit.training.history import epoch_line, evaluation_line
    from reidkit.training.run import Watch

    def on_epoch(report: EpochReport) -> None:
        log.info("%s", epoch_line(report, epochs))

    def on_evaluation(epoch: int, report: RetrievalMetrics) -> None:
        log.info("%s", evaluation_line(epoch, report))

    return Watch(
        on_step=lambda epoch, step, steps: on_progress(epoch * steps + step, epochs * steps),
        on_epoch=on_epoch,
        on_evaluation=on_evaluation,
    )


@contextlib.contextmanager
def _bar(epochs: int, *, shown: bool) -> Iterator[Watch]:
    """Watches a run: a line per epoch and evaluation on stderr, and on a terminal a bar with
    losses, steps a second, time left and memory."""
    from reidkit.training.run import Watch

    if not shown:
        yield Watch()
        return
    watch = make_watch(epochs, lambda done, total: None)
    if not sys.stderr.isatty():
        yield watch
        return

    import dataclasses

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]}  {task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=None, rate="", losses="")

        def on_step(epoch: int, step: int, steps: int) -> None:
            bar.update(task, completed=epoch * steps + step, total=epochs * steps)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.2f} steps/s" if speed else "")

        def on_losses(losses: dict[str, float]) -> None:
            text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            bar.update(task, losses=f"{text}  {memory_text()}")

        yield dataclasses.replace(watch, on_step=on_step, on_losses=on_losses)


def memory_text() -> str:
    """Peak memory so far, for people."""
    import torch

    from reidkit.training.memory import peak_memory

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return f"{peak_memory(torch.device(kind)) / 2**30:.1f} GiB"
