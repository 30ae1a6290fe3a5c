"""What the command line says about a training run: its settings, and what `--resume` needs beside
them."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit.errors import ConfigError
from reidkit.files import check_regular

if TYPE_CHECKING:
    from reidkit.config import Layer, RunConfig
    from reidkit.types import Dataset

log = logging.getLogger(__name__)

LAUNCH = "launch.toml"
"""What the command line says beside the settings, for `--resume`: data, masks and hardware."""


@dataclass(frozen=True)
class ConfigOverrides:
    """What the command line sets on top of a recipe."""

    flags: Mapping[str, object]
    preset: str | None
    file: Path | None
    assignments: tuple[str, ...]

    def with_flag(self, name: str, value: object) -> ConfigOverrides:
        """These overrides with one more flag."""
        return dataclasses.replace(self, flags={**self.flags, name: value})

    def layers(self) -> list[Layer]:
        """File, environment, --set and flags, in that order."""
        from reidkit.config import Layer, environment_layer, file_layer, nested, set_layer

        given = {name: value for name, value in self.flags.items() if value is not None}
        file = [file_layer(self.file)] if self.file else []
        flags = Layer("flags", nested(given))
        return [*file, environment_layer(), set_layer(self.assignments), flags]


@dataclass(frozen=True)
class LaunchOptions:
    """Where data and masks are, and on what to train: stored in `launch.toml` for `--resume`.

    Attributes:
        device: "auto" also if the command line does not say.
        workers: None if the command line does not say: 2.
    """

    dataset: str | None = None
    data_root: Path | None = None
    masks: Path | None = None
    device: str = "auto"
    workers: int | None = None

    def resumed(self, folder: Path) -> LaunchOptions:
        """These options, completed by those that the run in `folder` was started with."""
        from reidkit.config import from_table, read_toml

        if not (folder / LAUNCH).is_file():
            return self
        stored = from_table(LaunchOptions, read_toml(folder / LAUNCH), where=str(folder / LAUNCH))
        given = {name: value for name, value in vars(self).items() if value not in (None, "auto")}
        return dataclasses.replace(stored, **given)

    def write(self, folder: Path, data: Dataset) -> None:
        """Stores the options with absolute paths, so that they hold in any working directory."""
        from reidkit.config import to_toml
        from reidkit.files import atomic
        from reidkit.masks.store import default_path

        dataset = self.dataset or ""
        masks = self.masks or default_path(data.name)
        root = self.data_root or Path(os.environ.get("REIDKIT_DATA", "data"))
        stored = dataclasses.replace(
            self,
            dataset=str(Path(dataset).resolve()) if Path(dataset).exists() else dataset,
            data_root=root.resolve(),
            masks=masks.resolve() if masks.exists() else None,
        )
        with atomic(folder / LAUNCH) as partial:
            partial.write_text(to_toml(vars(stored)))


def check_early(options: LaunchOptions, overrides: ConfigOverrides, resumed: Path | None) -> None:
    """Stops at a missing file, an unknown data set or an unknown setting before torch is imported,
    which takes seconds.

    Args:
        resumed: the folder of the run that is resumed, if one is.
    """
    from reidkit.config import check_layers, require
    from reidkit.data.manifest import locate

    manifest, _ = locate(str(options.dataset), options.data_root)
    known_device = re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device)
    require(known_device is not None, f"--device {options.device}: write auto, cpu, cuda or cuda:N")
    weights = str(overrides.flags.get("weights") or "auto")
    weights_file = None if weights in ("auto", "none") else Path(weights)
    for option, path in (
        ("--masks", options.masks),
        ("--config", overrides.file),
        ("--weights", weights_file),
    ):
        if path is not None:
            check_regular(path, ConfigError)
            require(path.is_file(), f"{option} {path}: no such file")
    if resumed is not None:
        check_layers(resumed_layers(resumed, overrides))
    else:
        check_layers(recipe_layers(manifest.name, overrides))


def cap_workers(options: LaunchOptions) -> LaunchOptions:
    """The options with at most one data loading process per CPU, and a warning if there were more:
    they compete for the CPUs, and each takes memory."""
    from reidkit.device import usable_cores

    most = max(2, usable_cores())
    if options.workers is None or options.workers <= most:
        return options
    log.warning("--workers %d is more than this machine has CPUs; using %d", options.workers, most)
    return dataclasses.replace(options, workers=most)


def recipe_layers(dataset: str, overrides: ConfigOverrides) -> list[Layer]:
    """Recipe, file, environment, `--set` and flags."""
    from reidkit.config import with_recipe

    return with_recipe(overrides.layers(), preset=overrides.preset, dataset=dataset)


def load_settings(dataset: str, overrides: ConfigOverrides) -> RunConfig:
    """Settings from recipe, file, environment, `--set` and flags."""
    from reidkit.config import load_run_config

    return load_run_config(recipe_layers(dataset, overrides))


def log_settings(dataset: str, overrides: ConfigOverrides, settings: RunConfig) -> None:
    """Logs where the settings come from, and a batch size that is not the recipe's."""
    from reidkit.config import load_run_config

    layers = recipe_layers(dataset, overrides)
    log.info("settings: %s", ", ".join(layer.where for layer in layers if layer.table))
    if layers[0].where.endswith(".toml"):
        _warn_about_batch_size(load_run_config(layers[:1]), settings)


def scientific(value: float) -> str:
    """0.00035 -> "3.5e-4"."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _warn_about_batch_size(recipe: RunConfig, settings: RunConfig) -> None:
    """A recipe's learning rate belongs to its batch size."""
    before, now = recipe.sampler.batch, settings.sampler.batch
    if before == now or settings.optim.lr != recipe.optim.lr:
        return
    log.warning(
        "batch is %d, the recipe's is %d; learning rate stays %s (linear scaling: --lr %s)",
        *(now, before, scientific(recipe.optim.lr), scientific(recipe.optim.lr * now / before)),
    )


def load_resumed_settings(folder: Path, overrides: ConfigOverrides) -> RunConfig:
    """The settings of an earlier run with the overrides on top; `Trainer.fit` checks that they are
    still the run's own."""
    from reidkit.config import load_run_config

    return load_run_config(resumed_layers(folder, overrides))


def resumed_layers(folder: Path, overrides: ConfigOverrides) -> list[Layer]:
    """The settings of an earlier run, and what the command line sets on top of them.

    Raises:
        ConfigError: the run is of another architecture than the command line names.
    """
    from reidkit.config import arch_name, file_layer, preset_layer, require

    stored = dataclasses.replace(file_layer(folder / "config.toml"), where=f"{folder}/config.toml")
    above = overrides.layers()
    if overrides.preset not in (None, "none"):
        above.insert(0, preset_layer(str(overrides.preset)))
    trained, named = (arch_name(layers, default=None) for layers in ([stored], above))
    require(
        named in (None, trained),
        f"{folder} is a run of {trained}, not of {named}. Leave out {named}, or start a new run "
        "without --resume",
    )
    return [stored, *above]


def restart_command(folder: Path, launch: LaunchOptions) -> str:
    """The command that starts the run in a folder again with the settings stored in it."""
    options: dict[str, object] = {
        "--dataset": launch.dataset,
        "--data-root": launch.data_root,
        "--masks": launch.masks,
        "--device": None if launch.device == "auto" else launch.device,
        "--workers": launch.workers,
        "--preset": "none",
        "--config": folder / "config.toml",
        "-o": folder,
    }
    given = [f"{name} {shlex.quote(str(v))}" for name, v in options.items() if v is not None]
    return f"reidkit train {' '.join(given)}"
