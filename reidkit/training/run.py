"""A training run from its settings to the files in its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from reidkit import checkpoint
from reidkit.config import RunConfig, to_table
from reidkit.config.tables import read_toml, to_toml
from reidkit.data.loading import Masks, RawBatch, train_loader
from reidkit.errors import ConfigError
from reidkit.files import atomic, exclusive_lock
from reidkit.retrieval import Report
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.embedder import TorchEmbedder
from reidkit.training.history import History, RunLog, epoch_line, evaluation_line, warnings_in
from reidkit.training.judge import judge
from reidkit.training.loop import LOOK, EpochReport, NotFiniteStep, Stepper, Tally, train_epoch
from reidkit.training.optim import learning_rate, set_learning_rate
from reidkit.training.prefetch import on_device
from reidkit.training.resume import State, check_same, load_state, save_state
from reidkit.training.setup import Setup, build_model, document, needs_masks, prepare
from reidkit.training.trouble import (
    NotFinite,
    OutOfMemory,
    first_nonfinite_layer,
    first_rows,
    fitting_batch,
    is_out_of_memory,
    not_finite_message,
    out_of_memory_message,
)
from reidkit.types import Batch, Dataset

__all__ = ["BEST", "LAST", "Watch", "build_model", "is_due", "needs_masks", "new_folder", "run"]

log = logging.getLogger(__name__)

BEST = "model.safetensors"
LAST = "last.safetensors"
SETTINGS = "config.toml"


@dataclass(frozen=True)
class Watch:
    """What is told to whoever watches a run; the command line prints it."""

    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    on_losses: Callable[[dict[str, float]], None] = lambda losses: None
    on_epoch: Callable[[EpochReport], None] = lambda report: None
    on_evaluation: Callable[[int, Report], None] = lambda epoch, report: None


def run(
    config: RunConfig,
    dataset: Dataset,
    *,
    folder: Path,
    masks: Masks | None,
    device: torch.device,
    workers: int = 2,
    resume: bool = False,
    watch: Watch | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    save_seconds: float = 600.0,
    tensorboard: bool = False,
) -> Path:
    """Trains, evaluates now and then, and returns the best checkpoint's path.

    The best is by rank-1: on held-out training identities with `test.val_fraction`, else on the
    data set's query and gallery, as the papers chose theirs; the checkpoint's metrics say which.

    Args:
        folder: gets config.toml, model.safetensors (best), last.safetensors, resume.pt,
            metrics.jsonl, metrics.csv, curves.png and train.log.
        masks: part maps of the training images; needed where the loss has a weight on them.
        resume: go on from the folder's resume.pt.
        group: the processes that share this run; its leader alone writes and watches.
        save_seconds: resume.pt is written this often within an epoch, and after every epoch.
    Raises:
        ConfigError, DataError: if settings, data and masks do not go together.
        CheckpointError: if a resumed run's state is missing or damaged, or its settings or data
            have changed.
        NotFinite, OutOfMemory: with what to do about it.
    """
    watch = (watch or Watch()) if group.is_main else Watch()
    setup = prepare(config, dataset, masks=masks, device=device, group=group)
    now = document(setup.config, dataset)
    state = State()
    if resume:
        _check_folder(folder, now)
        state = load_state(folder, setup.learner, group=group)
    elif group.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / SETTINGS) as partial_file:
            partial_file.write_text(to_toml(now))
    group.gather(None)  # nobody goes on before the folder is there
    journal = RunLog(folder / "train.log") if group.is_main else None
    history = History(folder, tensorboard=tensorboard) if group.is_main else None
    if not resume:
        save_state(folder, state, setup.learner, group=group)
    with (
        exclusive_lock(folder) if group.is_main else contextlib.nullcontext(),
        warnings_in(folder / "train.log") if group.is_main else contextlib.nullcontext(),
    ):
        if journal is not None:
            start = f"epoch {state.epoch + 1}, step {state.step + 1}"
            journal.write(f"{'goes on' if resume else 'starts'} at {start}; {_origin(setup)}")
        _train(setup, state, folder, device, workers, watch, group, save_seconds, journal, history)
        if setup.validation is not None:
            _judge_best(setup, folder, device, group)
    return folder / BEST


def _train(
    setup: Setup,
    state: State,
    folder: Path,
    device: torch.device,
    workers: int,
    watch: Watch,
    group: ProcessGroup,
    save_seconds: float,
    journal: RunLog | None,
    history: History | None,
) -> None:
    config = setup.config
    epochs, test = config.schedule.epochs, config.test
    drawn = setup.batches(epoch=state.epoch, step=state.step, group=group)
    steps = len(drawn.epoch(state.epoch))
    raw = iter(train_loader(setup.images, drawn, workers=workers, pin=device.type == "cuda"))
    batches = on_device(raw, setup.images, device)
    saver = _Saver(folder, setup, group, save_seconds)

    def set_lr(epoch: float) -> float:
        whole = epoch if config.schedule.kind == "cosine" else int(epoch)
        lr = learning_rate(config.schedule, config.optim.lr, whole)
        set_learning_rate(setup.learner.optimizer, lr)
        return lr

    while state.epoch < epochs:
        with _explained(setup, drawn.epoch(state.epoch), state.epoch, device, group):
            report = train_epoch(
                setup.stepper,
                batches,
                epoch=state.epoch,
                steps=steps,
                first_step=state.step,
                tally=state.tally.to(device),
                set_lr=set_lr,
                on_step=partial(watch.on_step, state.epoch),
                on_losses=watch.on_losses,
                on_position=partial(saver.within_epoch, state),
            )
        report = _over_group(report, group)
        watch.on_epoch(report)
        if journal is not None:
            journal.write(epoch_line(report, epochs))
        record: dict[str, Any] = dataclasses.asdict(report)
        best = state.best
        last = state.epoch + 1 == epochs
        if is_due(state.epoch + 1, test.every, epochs):
            judged = _judge(setup, state.epoch, best, folder, device, group)
            best = max(best, float(judged.cmc[0]))
            record["validation" if setup.validation else "test"] = {
                "epoch": state.epoch + 1,
                **judged.to_dict(),
            }
            watch.on_evaluation(state.epoch, judged)
            if journal is not None:
                journal.write(evaluation_line(state.epoch, judged))
        if history is not None:
            history.add(record, last=last)
        state = State(state.epoch + 1, 0, best, state.seconds + report.seconds)
        saver.save(state)


def _over_group(report: EpochReport, group: ProcessGroup) -> EpochReport:
    """Means over all processes, whose slices are of equal size."""
    reports = group.gather(report)
    return dataclasses.replace(
        report,
        losses={
            name: sum(r.losses[name] for r in reports) / len(reports) for name in report.losses
        },
        accuracy=sum(r.accuracy for r in reports) / len(reports),
        images=sum(r.images for r in reports),
    )


class _Saver:
    """Writes resume.pt: after every epoch, and within one when the time has come."""

    def __init__(self, folder: Path, setup: Setup, group: ProcessGroup, seconds: float) -> None:
        self.folder = folder
        self.setup = setup
        self.group = group
        self.seconds = seconds
        self.saved = time.monotonic()

    def save(self, state: State) -> None:
        save_state(self.folder, state, self.setup.learner, group=self.group)
        self.saved = time.monotonic()

    def within_epoch(self, before: State, step: int, tally: Tally) -> None:
        if self.group.size > 1 and step % LOOK:
            return  # the processes agree on the time only now and then
        due = time.monotonic() - self.saved >= self.seconds
        if self.group.broadcast(due) and int(tally.bad.item()) < 0:
            self.save(dataclasses.replace(before, step=step, tally=tally))


def _judge(
    setup: Setup, epoch: int, best: float, folder: Path, device: torch.device, group: ProcessGroup
) -> Report:
    """Judges the network (its averaged weights, if there are any) and keeps it."""
    model, config = setup.model, setup.config
    average = setup.learner.average
    embedder = TorchEmbedder(model, preprocess=config.input, device=device, frames=setup.frames)
    with average.applied(model) if average else contextlib.nullcontext():
        report = judge(embedder, setup.validation or setup.dataset, config.test, group=group)
        if group.is_main:
            chosen_by = "test set"
            if setup.validation is not None:
                chosen_by = f"{config.test.val_fraction:.0%} of the training identities, held out"
            metrics = {"epoch": epoch + 1, "chosen_by": chosen_by, **report.to_dict()}
            header = make_header(setup, metrics=metrics)
            checkpoint.save(folder / LAST, model, header)
            if report.cmc[0] > best:
                checkpoint.save(folder / BEST, model, header)
    return report


def _judge_best(setup: Setup, folder: Path, device: torch.device, group: ProcessGroup) -> None:
    """Judges the checkpoint that the held-out identities chose on the test set, once."""
    group.gather(None)
    model, header = checkpoint.load(folder / BEST)
    if "validation" in header.metrics:
        return  # a finished run that was resumed
    embedder = TorchEmbedder(
        model, preprocess=header.preprocess, device=device, frames=setup.frames
    )
    report = judge(embedder, setup.dataset, setup.config.test, group=group)
    chosen = {name: header.metrics[name] for name in ("epoch", "chosen_by")}
    metrics = {**chosen, **report.to_dict(), "validation": header.metrics}
    if group.is_main:
        checkpoint.save(folder / BEST, model, dataclasses.replace(header, metrics=metrics))


@contextlib.contextmanager
def _explained(
    setup: Setup, drawn: list[Any], epoch: int, device: torch.device, group: ProcessGroup
) -> Iterator[None]:
    """Turns what goes wrong in a step into a message that says what to do."""
    try:
        yield
    except NotFiniteStep as found:
        draws = group.shard(drawn[found.step])
        raw = setup.images.batch(list(draws))
        batch = setup.images.finish(raw, device)
        setup.model.train()
        stepper = dataclasses.replace(setup.stepper, network=setup.model)
        began = "the other processes wait, so no layer was looked for"
        if group.size == 1:
            began = first_nonfinite_layer(partial(stepper.forward, batch.images), setup.model)
        paths = [setup.images.path(draw) for draw in draws]
        raise NotFinite(
            not_finite_message(
                epoch=epoch, step=found.step, losses=found.losses, paths=paths, began=began
            )
        ) from found
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = error
    else:
        return
    _explain_memory(setup, drawn[0], device, group, failed)


def _explain_memory(
    setup: Setup, draws: list[Any], device: torch.device, group: ProcessGroup, failed: BaseException
) -> NoReturn:
    sampler = setup.config.sampler
    fits = None
    if group.size == 1:
        setup.learner.optimizer.zero_grad(set_to_none=True)
        raw: RawBatch = setup.images.batch(list(draws))
        multiple = 2 if sampler.kind == "shuffle" else sampler.samples_per_id
        host = setup.images.finish(raw, torch.device("cpu"))
        fits = fitting_batch(
            partial(_attempt, setup.stepper, host, device), sampler.batch, multiple=multiple
        )
    message = out_of_memory_message(sampler.batch, fits, setup.config.optim.lr, device)
    raise OutOfMemory(message) from failed


def _attempt(stepper: Stepper, host: Batch, device: torch.device, count: int) -> None:
    stepper.try_out(first_rows(host, count, device))


def is_due(epoch: int, every: int, epochs: int) -> bool:
    """Whether the network is judged after `epoch` (from 1): each `every`, and after the last."""
    return epoch == epochs or (every > 0 and epoch % every == 0)


def new_folder(arch: str, dataset: str, runs: Path = Path("runs")) -> Path:
    """runs/<arch>-<dataset>-<time>, one that does not exist yet."""
    stem = f"{arch.replace('/', '-')}-{dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = runs / stem, 2
    while folder.exists():
        folder, number = runs / f"{stem}-{number}", number + 1
    return folder


def make_header(setup: Setup, *, metrics: dict[str, Any]) -> checkpoint.Header:
    """What the checkpoint will say of itself."""
    config, dataset = setup.config, setup.dataset
    return checkpoint.Header(
        arch=config.arch.name,
        arch_config=dataclasses.asdict(config.arch.options),
        preprocess=config.input,
        num_ids=setup.num_ids,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        synthetic=dataset.synthetic,
        frames=setup.frames,
        stride=config.clip.stride if setup.frames else 0,
        recipe=to_table(config),
        metrics=metrics,
        git=checkpoint.git_version(),
    )


def _check_folder(folder: Path, now: dict[str, Any]) -> None:
    if not (folder / SETTINGS).is_file():
        raise ConfigError(
            f"{folder} holds no run ({SETTINGS} is missing). Start one without --resume"
        )
    before = read_toml(folder / SETTINGS)
    data, data_now = before.pop("dataset", {}), dict(now["dataset"])
    for table in (data, data_now):
        table.pop("root", None)  # data may move
    check_same(folder, "training data", data, data_now)
    check_same(folder, "settings", before, {k: v for k, v in now.items() if k != "dataset"})


def _origin(setup: Setup) -> str:
    config = setup.config
    return (
        f"{config.arch.name} on {setup.dataset.name} ({setup.num_ids} identities, "
        f"{len(setup.images.samples)} images), {config.precision}, torch {torch.__version__}"
    )
