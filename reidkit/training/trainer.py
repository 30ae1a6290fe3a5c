"""A training run, from its settings to the files in its folder."""

# B batch

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from reidkit import checkpoint
from reidkit.config import RunConfig, ScheduleConfig, to_table
from reidkit.data.loading import Masks, train_loader
from reidkit.data.sampler import TrainBatches
from reidkit.errors import CheckpointError, ConfigError
from reidkit.evaluation import EvaluationResult, EvaluationSettings, evaluate_by_task
from reidkit.files import exclusive_lock
from reidkit.interrupt import Interrupted, Interrupts
from reidkit.losses import compute_losses
from reidkit.models.base import ReidModel
from reidkit.models.weights import load_imagenet
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.torch_embedder import TorchEmbedder
from reidkit.training.checkpoints import (
    BEST,
    LAST,
    RESUME,
    Position,
    check_settings,
    completed,
    create_folder,
    load_last_checkpoint,
    load_resume_point,
    save_resume_point,
    write_settings,
)
from reidkit.training.diagnostics import (
    LostWorker,
    NonFiniteStep,
    check_finite,
    explain_failures,
    is_lost_worker,
    lost_worker_message,
    peak_memory,
)
from reidkit.training.distributed import check_divisible, convert_batch_norms, gather_rows, wrap
from reidkit.training.logging import EpochSummary, RunLogger, RunningMetrics, evaluation_line
from reidkit.training.optim import (
    AUTOCAST_DTYPE,
    TrainState,
    build_ema,
    build_optimizer,
    build_scaler,
    extension_line,
    learning_rate,
    resolve_precision,
    set_learning_rate,
)
from reidkit.training.setup import (
    build_images,
    build_model,
    freeze_backbone,
    freeze_warning,
    hold_out,
    load_initial_weights,
    prefetch,
)
from reidkit.types import Batch, Dataset, ModelOutput

log = logging.getLogger(__name__)

SYNC_EVERY = 50
"""Steps between two synchronizations of host and CUDA device; a CPU is checked at every step."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that `fit` calls in the main process; the command line prints through them.

    Attributes:
        on_start: before a new run writes its first file, when no other process can use its folder.
        on_step: epoch from 1, steps done, steps of an epoch.
        on_losses: mean losses of the epoch so far.
        on_progress: stage, done and total of an evaluation within training.
        on_epoch, on_evaluation: after each epoch, and after each evaluation (epoch from 1).
    """

    on_start: Callable[[], None] = lambda: None
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    on_losses: Callable[[dict[str, float]], None] = lambda losses: None
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    on_epoch: Callable[[EpochSummary], None] = lambda summary: None
    on_evaluation: Callable[[int, EvaluationResult], None] = lambda epoch, result: None


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; its numbers do not depend on these.

    Attributes:
        workers: data loading processes.
        save_seconds: resume.pt is written this often within an epoch, and after every epoch.
        keep_resume: keep resume.pt after the last epoch.
        tensorboard: also write TensorBoard events.
    """

    workers: int = 2
    save_seconds: float = 600.0
    keep_resume: bool = False
    tensorboard: bool = False


class Trainer:
    """One training run: its settings, data, model, folder, device and processes.

    Building a trainer writes nothing; `fit` does.

    Args:
        folder: receives config.toml, model.safetensors (best), last.safetensors, resume.pt,
            metrics.jsonl, metrics.csv, curves.png and train.log.
        masks: part maps of the training images, required where `setup.needs_masks` says so.
        group: the processes that share this run; only the main one writes and calls back.
    Raises:
        ConfigError, DataError: if settings, data, masks and processes do not fit together.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        *,
        folder: Path,
        masks: Masks | None,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
        callbacks: Callbacks | None = None,
        options: RunOptions | None = None,
    ) -> None:
        sampler = config.sampler
        by_id = 1 if sampler.kind == "shuffle" else sampler.samples_per_id
        check_divisible(sampler.batch, by_id, group.size)
        self.config = dataclasses.replace(
            config, precision=resolve_precision(config.precision, device, config.input.size)
        )
        self.dataset, self.folder, self.device, self.group = dataset, folder, device, group
        self.options = options or RunOptions()
        self.callbacks = (callbacks or Callbacks()) if group.is_main else Callbacks()
        kept, self.validation = hold_out(
            dataset, fraction=config.test.val_fraction, seed=config.seed
        )
        if not (dataset.query or self.validation):
            raise ConfigError(
                f"{dataset.name} has no query split to choose a checkpoint by. Hold out training "
                "identities: --val-fraction 0.1"
            )
        self.images = build_images(self.config, kept, masks)
        self.model = self._build_model()
        self.state = TrainState(
            model=self.model,
            optimizer=build_optimizer(self.model, config.optim, fused=device.type == "cuda"),
            scaler=build_scaler(self.config.precision, device),
            ema=build_ema(self.model, config.optim.ema),
        )
        if config.compile:
            nn.Module.compile(self.model)
        self.network = wrap(self.model, device, group)
        self.frozen = False
        self.steps = len(self.batches().epoch(0))
        self.position = Position()
        self.saved_at: float | None = None
        self.interrupts = Interrupts(enabled=group.size == 1)

    def _build_model(self) -> ReidModel:
        torch.manual_seed(self.config.seed)
        model = build_model(self.config, num_ids=self.images.num_ids)
        if self.group.size > 1:
            convert_batch_norms(model, self.device)
            # equal weights, but dropout of its own in each process
            torch.manual_seed(self.config.seed + self.group.rank)
        # channels last is the order that tensor cores and oneDNN's bf16 kernels compute in
        model.to(self.device).to(memory_format=torch.channels_last)
        return model

    def load_weights(self) -> list[str]:
        """Loads the weights that a new run starts from: ImageNet's, or those of `config.init`.

        Returns:
            lines for the log.
        """
        lines = []
        if self.config.init:
            loaded = load_initial_weights(self.model, self.config, num_ids=self.images.num_ids)
            lines = loaded.lines()
        else:
            load_imagenet(self.model, self.config.weights)
        if self.state.ema is not None:
            self.state.ema.module.load_state_dict(self.model.state_dict())
        return lines

    def fit(self, *, resume: bool = False) -> Path:
        """Trains, evaluates every `test.every` epochs, and returns the path of the best checkpoint.

        The best is chosen by rank-1 (or top-1): of held-out training identities with
        `test.val_fraction`, else of the test set; the checkpoint says which.

        Ctrl-C, SIGTERM and SIGHUP save a resume point and raise Interrupted, a KeyboardInterrupt.

        Args:
            resume: continue from the folder's resume.pt, with the same bits. A completed run is
                continued by `schedule.epochs` larger than before; without resume.pt it starts from
                last.safetensors, with a new optimizer.
        Raises:
            ConfigError, CheckpointError: if there is nothing to resume, or settings or data differ.
            NonFiniteLoss, OutOfMemory: with the setting to change.
            LostWorker: a data loading process was killed; the run can be resumed.
        """
        if resume:
            earlier = check_settings(self.folder, self.config, self.dataset, self.images.masks)
        elif self.group.is_main:
            create_folder(self.folder)
        epochs = self.config.schedule.epochs
        logger = RunLogger(
            self.folder, enabled=self.group.is_main, tensorboard=self.options.tensorboard
        )
        with (
            self._lock_folder(),
            logger.capture_warnings(),
            contextlib.ExitStack() as stack,
        ):
            self.position = self._resume(earlier) if resume else self._start(logger)
            logger.message(self._describe())
            stack.enter_context(self._save_when_interrupted())
            batches = stack.enter_context(self.load_batches(self.position))
            for epoch in range(self.position.epoch, epochs):
                running = self.position.running.to(self.device)
                started = time.perf_counter() - running.seconds
                self._train_mode(epoch)
                with explain_failures(self, epoch):
                    for step in range(self.position.step, self.steps):
                        self._set_learning_rate(epoch, step)
                        batch = next(batches)
                        with self.interrupts.step():
                            output, losses = self.losses(batch)
                            if self.device.type == "cpu":  # on CUDA the check would block the host
                                check_finite(losses, step)
                            self.state.update(losses["total"])
                            running.add(step, losses, output, batch.labels)
                            running.seconds = time.perf_counter() - started
                            self.position = replace(self.position, step=step + 1, running=running)
                        self.callbacks.on_step(epoch + 1, step + 1, self.steps)
                        if self.device.type == "cpu" or (step + 1) % SYNC_EVERY == 0:
                            self.callbacks.on_losses(self._sync(running, step + 1))
                        if step + 1 < self.steps and self._save_is_due():
                            self._save()
                    means = self._sync(running, self.steps)
                summary = self._summarize(epoch, means, running)
                self.callbacks.on_epoch(summary)
                logger.message(summary.line(epochs))
                record = dataclasses.asdict(summary)
                best, unimproved = self.position.best, self.position.unimproved
                if is_due(epoch + 1, self.config.test.every, epochs):
                    result = self._evaluate_and_keep(epoch + 1, best)
                    unimproved = 0 if result.score > best else unimproved + 1
                    best = max(best, result.score)
                    key = "validation" if self.validation else "test"
                    record[key] = {"epoch": epoch + 1, **result.metrics()}
                    self.callbacks.on_evaluation(epoch + 1, result)
                    logger.message(evaluation_line(epoch + 1, result))
                stop = 0 < self.config.test.patience <= unimproved
                logger.epoch(record, last=stop or epoch + 1 == epochs)
                self.position = Position(epoch + 1, 0, best, unimproved)
                self._save()
                self.interrupts.check()
                signal = self.group.broadcast(self.interrupts.received)
                if signal:
                    raise Interrupted(signal)
                if stop:
                    log.info("stopped: %d evaluations without a better rank-1", unimproved)
                    break
            if self.validation is not None and self.dataset.query:
                self._evaluate_best_on_test_set()
        if self.group.is_main and not self.options.keep_resume:
            (self.folder / RESUME).unlink(missing_ok=True)
        return self.folder / BEST

    def losses(self, batch: Batch) -> tuple[ModelOutput, dict[str, Tensor]]:
        """The network's output under autocast, and its losses."""
        output = self.forward(batch.images)
        return output, compute_losses(output, batch, self.config.loss, gather=self._gather)

    def forward(self, images: Tensor) -> ModelOutput:
        """The network's output under autocast."""
        dtype = AUTOCAST_DTYPE[self.config.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32):
            output: ModelOutput = self.network(images)
        return output

    def batches(self, start: Position | None = None) -> TrainBatches:
        """This process's part of every batch from a position on."""
        return TrainBatches(
            self.images.labels,
            self.config.sampler,
            seed=self.config.seed,
            epochs=self.config.schedule.epochs,
            start=(start.epoch, start.step) if start else (0, 0),
            shard=(self.group.rank, self.group.size),
        )

    @property
    def frames(self) -> int:
        """Frames of a training clip; 0 for images."""
        return self.config.clip.frames if self.images.clip else 0

    def _start(self, logger: RunLogger) -> Position:
        """Loads initial weights, and writes the settings and a first resume point."""
        if self.group.is_main:
            self.callbacks.on_start()
        warning = freeze_warning(self.config)
        if warning:
            log.warning("%s", warning)
        for line in self.load_weights():
            logger.message(line)
        if self.group.is_main:
            write_settings(self.folder, self.config, self.dataset, self.images.masks)
        self._save()
        return self.position

    def _resume(self, earlier: ScheduleConfig) -> Position:
        schedule, patience = self.config.schedule, self.config.test.patience
        extended = schedule.epochs > earlier.epochs
        if completed(self.folder) and not extended:
            position = Position(schedule.epochs)
        elif completed(self.folder):
            log.warning("continuing from %s with a new optimizer", self.folder / LAST)
            position = load_last_checkpoint(self.folder, self.state)
        else:
            position = load_resume_point(self.folder, self.state, self.group)
            if position.epoch > schedule.epochs or position.step > self.steps:
                raise CheckpointError(
                    f"{self.folder / RESUME} is at epoch {position.epoch + 1}, step "
                    f"{position.step}; the run has {schedule.epochs} epochs of {self.steps} steps"
                )
            if 0 < patience <= position.unimproved and not extended:
                position = Position(schedule.epochs)  # it has ended by its patience
        self.saved_at = time.monotonic()
        if extended:
            log.warning(
                "%s", extension_line(earlier, schedule, self.config.optim.lr, position.epoch)
            )
            if self.group.is_main:
                write_settings(self.folder, self.config, self.dataset, self.images.masks)
        if position.epoch == schedule.epochs:
            log.info(
                "the run is complete. Train for more epochs: "
                "reidkit train --resume -o %s --epochs %d",
                *(shlex.quote(str(self.folder)), schedule.epochs + max(1, schedule.epochs // 2)),
            )
        else:
            log.info("resuming at %s", self._where(position))
        return position

    @contextlib.contextmanager
    def _save_when_interrupted(self) -> Iterator[None]:
        with self.interrupts:
            try:
                yield
            except (KeyboardInterrupt, RuntimeError) as error:
                signal = self.interrupts.received
                lost = isinstance(error, RuntimeError) and is_lost_worker(error)
                if isinstance(error, RuntimeError) and not (signal or lost):
                    raise  # not a data loading process that received the signal, too
                finite = int(self.position.running.first_nonfinite) < 0
                if finite and not self.interrupts.in_step and self.group.size == 1:
                    self._save()
                if lost and not signal:
                    raise LostWorker(lost_worker_message(self.folder)) from error
                raise Interrupted(signal) if signal else error from None

    def _describe(self) -> str:
        return (
            f"{self._where(self.position)}: {self.config.arch.name} on "
            f"{self.dataset.name} ({self.images.num_ids} identities, {len(self.images.items)} "
            f"images), {self.config.precision}, torch {torch.__version__}"
        )

    def _where(self, position: Position) -> str:
        """What is next at a position, for people."""
        if position.step == self.steps:
            return f"the end of epoch {position.epoch + 1}"
        return f"epoch {position.epoch + 1}, step {position.step + 1} of {self.steps}"

    def _lock_folder(self) -> contextlib.AbstractContextManager[None]:
        return exclusive_lock(self.folder) if self.group.is_main else contextlib.nullcontext()

    @contextlib.contextmanager
    def load_batches(self, start: Position | None = None) -> Iterator[Iterator[Batch]]:
        """Batches on the device from a position on, in order; stops its workers at the end."""
        loader = train_loader(
            self.images,
            self.batches(start),
            workers=self.options.workers,
            pin=self.device.type == "cuda",
        )
        with contextlib.closing(loader):
            yield prefetch(loader, self.images, self.device)

    def _train_mode(self, epoch: int) -> None:
        self.network.train()
        frozen = epoch < self.config.schedule.freeze_epochs
        if frozen or self.frozen:
            freeze_backbone(self.model, frozen)
            if frozen != self.frozen:  # DistributedDataParallel looks at it once
                self.network = wrap(self.model, self.device, self.group)
            self.frozen = frozen

    def _learning_rate(self, epoch: int, step: int) -> float:
        return learning_rate(self.config.schedule, self.config.optim.lr, epoch + step / self.steps)

    def _set_learning_rate(self, epoch: int, step: int) -> None:
        set_learning_rate(self.state.optimizer, self._learning_rate(epoch, step))

    def _gather(self, local: Tensor) -> Tensor:
        return gather_rows(local) if self.group.size > 1 else local

    def _sync(self, running: RunningMetrics, steps: int) -> dict[str, float]:
        """Mean losses so far; raises NonFiniteStep if one was not finite."""
        means = running.means(steps)
        step = int(running.first_nonfinite.item())
        if step >= 0:
            raise NonFiniteStep(step, means)
        return means

    def _summarize(
        self, epoch: int, means: dict[str, float], running: RunningMetrics
    ) -> EpochSummary:
        return EpochSummary(
            epoch=epoch + 1,
            lr=self._learning_rate(epoch, self.steps - 1),
            losses=means,
            accuracy=running.correct.item() / running.images,
            images=running.images,
            seconds=running.seconds,
            memory=peak_memory(self.device),
        ).reduce(self.group)

    def _save_is_due(self) -> bool:
        """Whether to write a resume point now; several processes agree on it every SYNC_EVERY
        steps, and there stop together when they were interrupted."""
        if self.group.size > 1 and self.position.step % SYNC_EVERY:
            return False
        due = time.monotonic() - (self.saved_at or 0.0) >= self.options.save_seconds
        due, signal = self.group.broadcast((due, self.interrupts.received))
        if int(self.position.running.first_nonfinite) >= 0:
            return False
        if signal and self.group.size > 1:
            self._save()
            raise Interrupted(signal)
        return due

    def _save(self) -> None:
        save_resume_point(self.folder, self.position, self.state, self.group)
        self.saved_at = time.monotonic()

    def _evaluate(self, model: ReidModel, dataset: Dataset) -> EvaluationResult:
        test = self.config.test
        settings = EvaluationSettings(metric=test.metric, flip=test.flip, batch=test.batch)
        embedder = TorchEmbedder(
            model, preprocess=self.config.input, device=self.device, frames=self.frames
        )

        def on_progress(stage: str, done: int, total: int) -> None:
            self.interrupts.check()
            self.callbacks.on_progress(stage, done, total)

        return evaluate_by_task(
            embedder, dataset, settings, group=self.group, on_progress=on_progress
        )

    def _evaluate_and_keep(self, epoch: int, best: float) -> EvaluationResult:
        """Evaluates the model (its moving average, if there is one) and saves it as the last
        checkpoint, and as the best if it is."""
        model = cast(ReidModel, self.state.ema.module) if self.state.ema else self.model
        result = self._evaluate(model, self.validation or self.dataset)
        if self.group.is_main:
            chosen_by = "test set"
            if self.validation is not None:
                fraction = self.config.test.val_fraction
                chosen_by = f"{fraction:.0%} of the training identities, held out"
            header = self._header({"epoch": epoch, "chosen_by": chosen_by, **result.metrics()})
            checkpoint.save(self.folder / LAST, model, header)
            if result.score > best:
                checkpoint.save(self.folder / BEST, model, header)
        return result

    def _evaluate_best_on_test_set(self) -> None:
        """Evaluates the checkpoint that the held-out identities chose on the test set, once."""
        self.group.gather(None)  # wait until the checkpoint is written
        model, header = checkpoint.load(self.folder / BEST)
        if "validation" in header.metrics:
            return  # a finished run that was resumed
        result = self._evaluate(model, self.dataset)
        chosen = {name: header.metrics[name] for name in ("epoch", "chosen_by")}
        metrics = {**chosen, **result.metrics(), "validation": header.metrics}
        if self.group.is_main:
            header = dataclasses.replace(header, metrics=metrics)
            checkpoint.save(self.folder / BEST, model, header)

    def _header(self, metrics: dict[str, object]) -> checkpoint.Header:
        config, dataset = self.config, self.dataset
        return checkpoint.Header(
            arch=config.arch.name,
            arch_config=dataclasses.asdict(config.arch.options),
            preprocess=config.input,
            num_ids=self.images.num_ids,
            dataset=dataset.name,
            fingerprint=dataset.fingerprint,
            synthetic=dataset.synthetic,
            frames=self.frames,
            stride=config.clip.stride if self.frames else 0,
            recipe=to_table(config),
            metrics=metrics,
            git=checkpoint.git_version(),
        )


def is_due(epoch: int, every: int, epochs: int) -> bool:
    """Whether to evaluate after `epoch` (from 1): every `every` epochs, and after the last."""
    return epoch == epochs or (every > 0 and epoch % every == 0)
