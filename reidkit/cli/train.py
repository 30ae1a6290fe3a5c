"""reidkit train."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.choices import Precision
from reidkit.cli.options import (
    DataRootOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    OptionalDatasetOption,
    PartMasksOption,
    SetOption,
    open_data,
    parse_size,
)
from reidkit.cli.output import print_json, progress
from reidkit.cli.run_settings import (
    ConfigOverrides,
    LaunchOptions,
    cap_workers,
    check_early,
    load_resumed_settings,
    load_settings,
    log_settings,
    restart_command,
)
from reidkit.cli.runs import find_model, newest_run
from reidkit.cli.training_progress import training_progress
from reidkit.interrupt import Interrupted

if TYPE_CHECKING:
    from reidkit.config import RunConfig
    from reidkit.masks.store import MaskStore
    from reidkit.runtime.distributed import ProcessGroup
    from reidkit.training.dry_run import DryRun
    from reidkit.training.trainer import Callbacks, Trainer
    from reidkit.types import Dataset

log = logging.getLogger(__name__)

_CONTAINS_RUN = "{} contains a run. Resume it with --resume, or choose another folder with -o"

RECIPE = "from the recipe"

PANELS = {
    "Data": ("dataset", "data_root", "masks", "size", "val_fraction", "patience"),
    "Recipe": (
        *("arch", "preset", "config", "set_", "weights", "init", "init_partial", "freeze"),
        *("epochs", "batch", "lr", "ema", "seed"),
    ),
    "Hardware": ("device", "precision", "compile_", "workers"),
    "Run": (
        *("out", "resume", "keep_resume", "dry_run", "find_lr", "offline", "tensorboard", "json"),
    ),
}


def train(
    dataset: OptionalDatasetOption = None,
    data_root: DataRootOption = None,
    masks: PartMasksOption = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Input size in pixels, such as 256x128.", show_default=RECIPE
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the training identities to hold out for choosing the best "
            "checkpoint.",
            show_default="0, choose by the test set",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Stop after this many evaluations on held-out identities without a better result.",
            show_default="never",
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="Architecture, see `reidkit models`.", show_default="iaunet"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Recipe by name, or none.", show_default="the published recipe"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    set_: SetOption = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="ImageNet weights: auto (download), none, or a file.", show_default=RECIPE
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to start from, in place of ImageNet weights."),
    ] = None,
    init_partial: Annotated[
        bool | None,
        typer.Option("--init-partial", help="Start from those tensors of --init that fit."),
    ] = None,
    freeze: Annotated[
        int | None,
        typer.Option(min=0, help="Epochs in which the backbone is not trained.", show_default="0"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Number of epochs.", show_default=RECIPE)
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="INT|auto",
            help="Batch size, over all processes; auto is the largest that fits.",
            show_default=RECIPE,
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default=RECIPE)] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of a moving average of the weights.", show_default="0, none"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed.", show_default="0")] = None,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision; auto is bf16 where the device supports it natively.",
            show_default="auto",
        ),
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile", help="Compile the network with torch.compile.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Number of data loading processes.", show_default="2"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder.", show_default="runs/ARCH-DATASET-TIME"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the run in --out, or the newest one."),
    ] = False,
    keep_resume: Annotated[
        bool, typer.Option("--keep-resume", help="Keep resume.pt after the last epoch.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Time three steps, estimate the run, and write nothing."),
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Run a learning-rate range test, plot it, and stop."),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a network.

    Settings come from the recipe, --config, REIDKIT_* variables, --set and flags; later ones win.
    Under torchrun, several processes share each batch. --resume takes data set, masks, device and
    workers from the run.

    \b
    Examples:
      reidkit train --dataset market1501
      reidkit train --resume
      reidkit train --arch rga-sc --dataset msmt17 --set optim.lr=3e-4
      torchrun --nproc-per-node 4 -m reidkit train --dataset market1501
    """
    from reidkit.config import require

    options = LaunchOptions(dataset, data_root, masks, device, workers)
    if resume:
        alone = {"--init": init, "--dry-run": dry_run, "--find-lr": find_lr}
        given = [name for name, value in alone.items() if value]
        require(not given, f"--resume continues a run as it is: leave out {', '.join(given)}")
        out = out or newest_run()
        require((out / "config.toml").is_file(), f"no such run: {out}. Start one without --resume")
        options = options.resumed(out)
    require(options.dataset is not None, "no data set given: --dataset NAME")
    flags = {
        "arch.name": arch,
        "schedule.epochs": epochs,
        "sampler.batch": None if batch in (None, "auto") else parse_batch(str(batch)),
        "optim.lr": lr,
        "optim.ema": ema,
        "test.val_fraction": val_fraction,
        "input.size": None if size is None else parse_size(size),
        "test.patience": patience,
        "schedule.freeze_epochs": freeze,
        "init": None if init is None else str(find_model(init).resolve()),
        "init_partial": init_partial,
        "weights": weights,
        "seed": seed,
        "precision": precision,
        "compile": compile_,
    }
    overrides = ConfigOverrides(flags, preset, config, tuple(set_ or ()))
    check_early(options, overrides, out if resume else None)
    options = cap_workers(options)

    from reidkit.device import torch_device
    from reidkit.runtime.distributed import join_process_group

    with join_process_group(options.device) as (group, local_device):
        if not group.is_main:
            logging.getLogger().setLevel(logging.WARNING)
        place = str(torch_device(local_device))
        data = open_data(str(options.dataset), options.data_root)
        args = TrainArgs(options, data, out, place, keep_resume, tensorboard)
        if batch == "auto" and not resume:
            overrides = overrides.with_flag("sampler.batch", find_batch(args, overrides, group))
        if dry_run:
            _dry_run(args, overrides, json=json)
        elif find_lr:
            _find_lr(args, overrides, json=json)
        else:
            _train(args, overrides, group, resume=resume, json=json)


@dataclass(frozen=True)
class TrainArgs:
    """Everything else on the command line; `device` is this process's."""

    launch: LaunchOptions
    data: Dataset
    out: Path | None
    device: str
    keep_resume: bool
    tensorboard: bool


def _train(
    args: TrainArgs, overrides: ConfigOverrides, group: ProcessGroup, *, resume: bool, json: bool
) -> None:
    from reidkit.checkpoint import read_header
    from reidkit.config import require
    from reidkit.training.checkpoints import has_run, new_folder

    data = args.data
    if resume:
        assert args.out is not None
        folder = group.broadcast(args.out)
        settings = load_resumed_settings(folder, overrides)
        require(
            group.broadcast(has_run(folder)),
            f"{folder} has no checkpoint and no usable resume.pt: the run was stopped before its "
            f"first step. Start it again: {restart_command(folder, args.launch)}",
        )
    else:
        settings = load_settings(data.name, overrides)
        log_settings(data.name, overrides, settings)
        folder = group.broadcast(args.out or new_folder(settings.arch.name, data.name))
        require(not group.broadcast(has_run(folder)), _CONTAINS_RUN.format(folder))
    log.info("run: %s", folder)
    try:
        with training_progress(settings.schedule.epochs, shown=group.is_main) as callbacks:
            callbacks = dataclasses.replace(callbacks, on_start=partial(_start, args, folder))
            trainer = build_trainer(args, settings, folder, group=group, callbacks=callbacks)
            best = trainer.fit(resume=resume)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        advice = "No step was completed: run the same command again"
        if has_run(folder):
            advice = f"Resume: reidkit train --resume -o {shlex.quote(str(folder))}"
        raise Interrupted(number, advice) from None
    if not group.is_main:
        return
    metrics = read_header(best).metrics
    if json:
        print_json({"run": str(folder), "model": str(best), "metrics": metrics})
        return
    from reidkit.evaluation import percentages
    from reidkit.retrieval.metrics import AP_NAMES

    scores = list(percentages(metrics).items())[:2]
    rule = f" ({AP_NAMES[metrics['ap']]})" if "ap" in metrics else ""
    print(f"best checkpoint: epoch {metrics['epoch']}, chosen by the {metrics['chosen_by']}")
    print("test set: " + "  ".join(f"{name} {value:.1f}" for name, value in scores) + rule)
    print(best)
    if data.synthetic:
        print("synthetic data: not comparable with published numbers", file=sys.stderr)


def _start(args: TrainArgs, folder: Path) -> None:
    """Stores the command line of a new run, unless another process has trained one in its folder
    meanwhile."""
    from reidkit.config import require
    from reidkit.training.checkpoints import has_run

    require(not has_run(folder), _CONTAINS_RUN.format(folder))
    args.launch.write(folder, args.data)


def find_batch(args: TrainArgs, overrides: ConfigOverrides, group: ProcessGroup) -> int:
    """The largest batch size that fits, for `--batch auto`."""
    from reidkit.training.search import largest_batch

    settings = load_settings(args.data.name, overrides)
    trainer = build_trainer(args, settings, Path(), group=group)
    found = largest_batch(trainer)
    limit = f"{found.too_large} does not fit the memory of {trainer.device}"
    if found.too_large is None:
        limit = f"limited by the number of images, {len(trainer.images.items)}"
    log.info("batch: %d, the largest that fits (%s)", found.size, limit)
    return found.size


def _find_lr(args: TrainArgs, overrides: ConfigOverrides, *, json: bool) -> None:
    from reidkit.training.search import (
        learning_rate_test,
        plot_learning_rates,
        suggest_learning_rate,
    )

    settings = load_settings(args.data.name, overrides)
    log_settings(args.data.name, overrides, settings)
    trainer = build_trainer(args, settings, Path())
    with progress("learning rates") as on_progress:
        rates, losses = learning_rate_test(trainer, on_progress=on_progress)
    suggestion = suggest_learning_rate(rates, losses)
    path = (args.out or Path()) / "learning-rates.png"
    plot_learning_rates(rates, losses, suggestion, path)
    if json:
        print_json({"plot": str(path), "lr": suggestion, "rates": rates, "losses": losses})
        return
    print(f"the loss falls most steeply at {suggestion:.2g}: --lr {suggestion:.2g}")
    print(f"the recipe's learning rate is {trainer.config.optim.lr:g}")
    print(path)


def parse_batch(text: str) -> int:
    """ "64" -> 64."""
    from reidkit.config import require

    require(text.isdecimal() and int(text) > 0, f"--batch {text}: write a number from 1, or auto")
    return int(text)


def _dry_run(args: TrainArgs, overrides: ConfigOverrides, *, json: bool) -> None:
    from reidkit.training.dry_run import dry_run

    settings = load_settings(args.data.name, overrides)
    log_settings(args.data.name, overrides, settings)
    found = dry_run(build_trainer(args, settings, Path()))
    if json:
        print_json(dataclasses.asdict(found))
    else:
        _print_dry_run(found)


def _print_dry_run(found: DryRun) -> None:
    width = max(len(name) for name, _ in found.shapes)
    for name, shape in found.shapes:
        print(f"{name:{width}}  {shape}")
    steps = " ".join(f"{seconds:.2f}" for seconds in found.step_seconds)
    losses = "  ".join(f"{name} {value:.3f}" for name, value in found.losses.items())
    print(f"parameters    {found.parameters:,} ({found.trainable:,} trainable)")
    print(f"training set  {found.identities:,} identities, {found.images:,} images")
    print(f"steps         {found.steps:,} per epoch, {found.epochs:,} epochs")
    print(f"step          {steps} s ({found.precision}), with data loading")
    print(f"training      {timedelta(seconds=round(found.seconds))} h, without evaluations")
    print(f"peak memory   {found.memory / 2**30:.2f} GiB")
    print(f"losses        {losses} (total is weighted)")


def build_trainer(
    args: TrainArgs,
    settings: RunConfig,
    folder: Path,
    *,
    group: ProcessGroup | None = None,
    callbacks: Callbacks | None = None,
) -> Trainer:
    """A trainer with the part masks that its loss needs."""
    from reidkit.device import torch_device
    from reidkit.runtime.distributed import SINGLE_PROCESS
    from reidkit.training.trainer import RunOptions, Trainer

    workers = 2 if args.launch.workers is None else args.launch.workers
    return Trainer(
        settings,
        args.data,
        folder=folder,
        masks=open_masks_if_needed(settings, args.data, args.launch.masks),
        device=torch_device(args.device),
        group=group or SINGLE_PROCESS,
        callbacks=callbacks,
        options=RunOptions(
            workers=workers, keep_resume=args.keep_resume, tensorboard=args.tensorboard
        ),
    )


def open_masks_if_needed(settings: RunConfig, data: Dataset, path: Path | None) -> MaskStore | None:
    """The data set's mask file, checked against it, if the loss compares part maps with masks."""
    from reidkit.masks.store import MaskStore, default_path, require_store
    from reidkit.training.setup import needs_masks
    from reidkit.types import PARTS

    if not needs_masks(settings):
        return None
    path = path or default_path(data.name)
    require_store(path, arch=settings.arch.name, dataset=data)
    return MaskStore.open(path, dataset=data, parts=PARTS)
