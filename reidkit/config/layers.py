"""Where settings come from: layers of TOML tables, later ones first.

Order, later wins: defaults < preset < file < environment < flags and `--set`. An unknown key, a
wrong type or an impossible value fails with the layer it came from and the nearest known key.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from reidkit.config.schema import (
    ArchConfig,
    AugmentConfig,
    ClipConfig,
    LossConfig,
    OptimConfig,
    RunConfig,
    SamplerConfig,
    ScheduleConfig,
    TestConfig,
)
from reidkit.config.tables import from_table, merge, nested, parse_values, read_toml, scalar
from reidkit.errors import ConfigError, suggest
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Layer:
    """One source of settings: a nested table, and where it came from for error messages."""

    where: str
    table: Mapping[str, Any]


def load_run_config(layers: Iterable[Layer]) -> RunConfig:
    """Merges layers over the defaults, earliest first.

    Raises:
        ConfigError: for an unknown key, a wrong type or an impossible value; names the layer.
    """
    layers = [_with_arch_table(layer) for layer in layers]
    spec = get_arch(arch_name(layers, default=ArchConfig.name))
    merged: dict[str, Any] = {"input": {"size": list(spec.input_size)}}
    options: dict[str, Any] = {}
    for layer in layers:
        _check(layer, spec.config)
        merged = merge(merged, {k: v for k, v in layer.table.items() if k != "arch"})
        options |= {k: v for k, v in layer.table.get("arch", {}).items() if k != "name"}
    where = ", ".join(layer.where for layer in layers) or "defaults"
    arch = ArchConfig(spec.name, from_table(spec.config, options, where=f"{where}: arch"))
    return dataclasses.replace(from_table(RunConfig, merged, where=where), arch=arch)


@overload
def arch_name(layers: Iterable[Layer], *, default: str) -> str: ...
@overload
def arch_name(layers: Iterable[Layer], *, default: None) -> str | None: ...
def arch_name(layers: Iterable[Layer], *, default: str | None) -> str | None:
    """The architecture that layers ask for: the last one named, or the default."""
    tables = [_with_arch_table(layer).table.get("arch", {}) for layer in layers]
    names: list[str] = [table["name"] for table in tables if "name" in table]
    return names[-1] if names else default


def _with_arch_table(layer: Layer) -> Layer:
    """`arch = "iaunet"` is short for `[arch] name = "iaunet"`."""
    arch = layer.table.get("arch", {})
    if isinstance(arch, str):
        return Layer(layer.where, {**layer.table, "arch": {"name": arch}})
    if not isinstance(arch, Mapping) or not isinstance(arch.get("name", ""), str):
        raise ConfigError(f"{layer.where}: arch.name must be a string")
    return layer


def _check(layer: Layer, arch_options: type) -> None:
    """Refuses unknown keys and wrong types while the layer they came from is still known."""
    known = known_keys(arch_options)
    tables = {key.partition(".")[0] for key in known if "." in key}
    for name, value in layer.table.items():
        if name in tables and not isinstance(value, Mapping):
            raise ConfigError(f"{layer.where}: {name} is a table: write {name}.<key>")
        keys = [f"{name}.{key}" for key in value] if isinstance(value, Mapping) else [name]
        for key in keys:
            if key not in known:
                raise ConfigError(f"{layer.where}: unknown key {key}. {suggest(key, known)}")
        if name == "arch":
            options = {k: v for k, v in value.items() if k != "name"}
            parse_values(arch_options, options, where=f"{layer.where}: arch")
        elif isinstance(value, Mapping):
            parse_values(_TABLES[name], value, where=f"{layer.where}: {name}")
        else:
            parse_values(RunConfig, {name: value}, where=layer.where)


def known_keys(arch_options: type) -> list[str]:
    """Every setting as `table.key`, those of an architecture's own options among them."""
    keys = [f"arch.{f.name}" for f in dataclasses.fields(arch_options)] + ["arch.name"]
    for f in dataclasses.fields(RunConfig):
        if f.name in _TABLES:
            keys += [f"{f.name}.{inner.name}" for inner in dataclasses.fields(_TABLES[f.name])]
        elif f.name != "arch":
            keys.append(f.name)
    return keys


_TABLES: dict[str, Any] = {
    "input": Preprocess,
    "augment": AugmentConfig,
    "clip": ClipConfig,
    "sampler": SamplerConfig,
    "loss": LossConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "test": TestConfig,
}


@dataclass(frozen=True)
class Recipe:
    """`[recipe]` of a preset: what it is, and for whom it is the default.

    Attributes:
        title, source: for lists and for the reader.
        archs: architectures that it is the recipe of.
        datasets: only on these; empty: on all for which no other recipe is.
        extends: another preset that this one changes.
    """

    title: str
    source: str = ""
    archs: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    extends: str = ""


def read_preset(name: str) -> tuple[Recipe, dict[str, Any]]:
    """A recipe from `reidkit/presets` by name, and its settings with those it extends.

    Raises:
        ConfigError: if there is none; names the nearest.
    """
    known = list_presets()
    if name not in known:
        raise ConfigError(f"unknown preset {name!r}. {suggest(name, known)}")
    table = read_toml(PRESETS / f"{name}.toml")
    recipe = from_table(Recipe, table.pop("recipe", {}), where=f"{name}.toml: recipe")
    if recipe.extends:
        table = merge(read_preset(recipe.extends)[1], table)
    return recipe, table


def preset_layer(name: str, *, arch: str | None = None) -> Layer:
    """A recipe as a layer of settings. For another architecture than its own (`arch`), it says
    nothing about `[arch]`: options belong to one architecture."""
    table = read_preset(name)[1]
    if arch is not None and table.get("arch", {}).get("name") != arch:
        table.pop("arch", None)
    return Layer(f"{name}.toml", table)


def list_presets() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def default_preset(arch: str, dataset: str) -> str | None:
    """The published recipe of an architecture on a data set, or else the architecture's own.

    A drawn stand-in (`synth-market1501`) counts as what it stands for.
    """
    dataset = dataset.partition("@")[0].removeprefix("synth-")
    general = None
    for name in list_presets():
        recipe, _ = read_preset(name)
        if arch in recipe.archs:
            if dataset in recipe.datasets:
                return name
            if not recipe.datasets:
                general = name
    return general


def with_recipe(layers: Iterable[Layer], *, preset: str | None, dataset: str) -> list[Layer]:
    """The layers on top of a recipe: the one named, "none", or the default of what they ask for."""
    layers = list(layers)
    asked = arch_name(layers, default=None)
    if preset is None:
        preset = default_preset(asked or ArchConfig.name, dataset) or "none"
    return layers if preset == "none" else [preset_layer(preset, arch=asked), *layers]


def file_layer(path: Path) -> Layer:
    """A TOML file of settings."""
    return Layer(path.name, read_toml(path))


def environment_layer(environ: Mapping[str, str] = os.environ) -> Layer:
    """`REIDKIT_OPTIM__LR=3e-4` is optim.lr; only names with a double underscore are settings."""
    pairs = {
        name.removeprefix("REIDKIT_").lower().replace("__", "."): scalar(value)
        for name, value in environ.items()
        if name.startswith("REIDKIT_") and "__" in name
    }
    return Layer("environment", nested(pairs))


def set_layer(assignments: Iterable[str]) -> Layer:
    """`--set optim.lr=3e-4 --set arch.backbone=resnet18`: values are TOML, or bare strings."""
    pairs = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {assignment}: write table.key=value, as in optim.lr=3e-4")
        pairs[key.strip()] = scalar(value.strip())
    return Layer("--set", nested(pairs))


def to_table(config: RunConfig) -> dict[str, Any]:
    """The nested table that `load_run_config` reads back to an equal RunConfig."""
    table = dataclasses.asdict(config)
    table["arch"] = {"name": config.arch.name, **dataclasses.asdict(config.arch.options)}
    return table


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Every key whose value differs between two nested tables: "optim.lr: 0.1, now 0.2"."""
    old, new = (_flatten(table) for table in (before, after))
    return [
        f"{key}: {old.get(key, 'not set')}, now {new.get(key, 'not set')}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
