"""The settings of a run in its report: what differs from the recipe, and how to repeat the run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reidkit.config import (
    Layer,
    default_preset,
    flatten_table,
    from_table,
    load_run_config,
    scalar,
    to_table,
    toml_value,
    with_recipe,
)
from reidkit.errors import ConfigError
from reidkit.registry import get_arch


@dataclass(frozen=True)
class SettingValue:
    """A setting as TOML text.

    Attributes:
        recipe: the recipe's value; "" if it has none.
        differs: whether the run's value is another one.
    """

    key: str
    value: str
    recipe: str
    differs: bool


@dataclass(frozen=True)
class RunSettings:
    """All settings of a run beside those of the recipe for its architecture and data set.

    Attributes:
        recipe: its name; "" where there is none, and the defaults take its place.
        values: those that differ first.
    """

    recipe: str
    values: tuple[SettingValue, ...]

    @property
    def different(self) -> list[SettingValue]:
        """Those that differ from the recipe."""
        return [value for value in self.values if value.differs]


def compare_with_recipe(table: Mapping[str, Any], *, arch: str, dataset: str) -> RunSettings:
    """The settings of a run, completed by defaults.

    Args:
        table: nested, as in config.toml or in a checkpoint's header; without `[dataset]`.

    Raises:
        ConfigError: this reidkit does not have the architecture.
    """
    base = load_run_config(
        with_recipe([Layer("run", {"arch": {"name": arch}})], preset=None, dataset=dataset)
    )
    recipe = flatten_table(to_table(base))
    try:
        own = flatten_table(to_table(load_run_config([Layer("run", table)])))
    except ConfigError:  # written by another version, whose settings are shown as they are
        own = flatten_table(table)
    values = [
        SettingValue(
            key=key,
            value=toml_value(value),
            recipe=toml_value(recipe[key]) if key in recipe else "",
            differs=key not in recipe or recipe[key] != value,
        )
        for key, value in own.items()
    ]
    values.sort(key=lambda value: not value.differs)
    return RunSettings(default_preset(arch, dataset) or "", tuple(values))


def commands(
    settings: RunSettings, table: Mapping[str, Any], *, arch: str, dataset: str, data: str
) -> list[str]:
    """Commands that repeat a run.

    Args:
        table: as in `compare_with_recipe`.
        dataset: the data set's name, which selects the recipe.
        data: what `--dataset` takes: the name, or the folder of a data set.
    """
    train = ["reidkit", "train", "--arch", arch, "--dataset", data]
    for value in settings.different:
        train += ["--set", f"{value.key}={_bare(value.value)}"]
    evaluate = ["reidkit", "eval", "--dataset", data]
    lines = [shlex.join(train), shlex.join(evaluate), "reidkit report"]
    if _needs_masks(table, arch):
        lines.insert(0, shlex.join(["reidkit", "prepare-masks", "--dataset", data]))
    return lines


def _needs_masks(table: Mapping[str, Any], arch: str) -> bool:
    spec = get_arch(arch)
    options = {key: v for key, v in table.get("arch", {}).items() if key != "name"}
    parts = spec.parts(from_table(spec.config, options, where=f"{arch} options"))
    return bool(parts) and table.get("loss", {}).get("part_attention", 1) > 0


def _bare(value: str) -> str:
    """A TOML string without quotation marks where `--set` reads it the same."""
    text = scalar(value)
    return text if isinstance(text, str) and text and scalar(text) == text else value
