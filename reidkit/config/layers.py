"""Where settings come from: layers of TOML tables, later ones win.

Order: defaults < preset < file < environment < flags and `--set`. An unknown key, a wrong type or
an impossible value fails with the layer it came from and the nearest known key.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from reidkit.config.schema import ArchConfig, RunConfig
from reidkit.config.tables import (
    field_types,
    from_table,
    merge,
    nested,
    partial,
    read_toml,
    scalar,
)
from reidkit.errors import ConfigError, suggest
from reidkit.registry import ArchSpec, check_arch_options, get_arch

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Layer:
    """One source of settings: a nested table, and its name for error messages."""

    where: str
    table: Mapping[str, Any]


def load_run_config(layers: Iterable[Layer]) -> RunConfig:
    """Merges layers over the defaults, earliest first.

    Raises:
        ConfigError: for an unknown key, a wrong type or an impossible value; names the layer.
    """
    layers = [_with_arch_table(layer) for layer in layers]
    spec = get_arch(arch_name(layers, default=ArchConfig.name))
    for layer in layers:
        # Checked one by one, so that a message names the layer that the value came from.
        from_table(
            _layer_schema(spec.config),
            layer.table,
            where=layer.where,
            known=known_keys(spec.config),
        )
    return _validated(lambda some: _merged_config(spec, some), layers)


def check_layers(layers: Iterable[Layer]) -> None:
    """Checks all settings but the values in `[arch]`, whose types are only known once torch is
    imported.

    Raises:
        ConfigError: for an unknown architecture or key, a wrong type or an impossible value; names
            the layer.
    """
    layers = [_with_arch_table(layer) for layer in layers]
    known = [key for key in known_keys(ArchConfig) if not key.startswith("arch.")]
    arch = arch_name(layers, default=ArchConfig.name)
    tables = []
    for layer in layers:
        check_arch_options(arch, layer.table.get("arch", {}), where=layer.where)
        table = {name: value for name, value in layer.table.items() if name != "arch"}
        from_table(_layer_schema(None), table, where=layer.where, known=known)
        tables.append(Layer(layer.where, table))
    _validated(_merged_without_arch, tables)


def _validated(build: Callable[[list[Layer]], RunConfig], layers: list[Layer]) -> RunConfig:
    """build(layers); a value that makes the settings invalid is reported with its layer."""
    for count in range(len(layers), -1, -1):
        try:
            config = build(layers[:count])
        except ConfigError:
            continue
        # the next layer, if there is one, is what makes the settings invalid
        return config if count == len(layers) else build(layers[: count + 1])
    raise AssertionError("the defaults are valid")


def _merged(layers: list[Layer]) -> tuple[dict[str, Any], str]:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.table)
    return merged, layers[-1].where if layers else "defaults"


def _merged_without_arch(layers: list[Layer]) -> RunConfig:
    merged, where = _merged(layers)
    return from_table(RunConfig, merged, where=where)


def _merged_config(spec: ArchSpec, layers: list[Layer]) -> RunConfig:
    defaults = Layer("defaults", {"input": {"size": list(spec.input_size)}})
    merged, where = _merged([defaults, *layers])
    options = {key: v for key, v in merged.pop("arch", {}).items() if key != "name"}
    arch = ArchConfig(spec.name, from_table(spec.config, options, where=where))
    return dataclasses.replace(from_table(RunConfig, merged, where=where), arch=arch)


@functools.cache
def _layer_schema(arch_options: type | None) -> type:
    """What a layer may contain; None: without [arch]."""
    types = field_types(RunConfig)
    del types["arch"]
    if arch_options is not None:
        types["arch"] = partial("ArchTable", {"name": str, **field_types(arch_options)})
    return partial("LayerTable", types)


def known_keys(arch_options: type) -> list[str]:
    """Every setting as `table.key`, including the options of one architecture."""
    keys = [f"arch.{name}" for name in ("name", *field_types(arch_options))]
    for name, hint in field_types(RunConfig).items():
        if dataclasses.is_dataclass(hint) and name != "arch":
            keys += [f"{name}.{key}" for key in field_types(hint)]
        elif name != "arch":
            keys.append(name)
    return keys


@overload
def arch_name(layers: Iterable[Layer], *, default: str) -> str: ...
@overload
def arch_name(layers: Iterable[Layer], *, default: None) -> str | None: ...
def arch_name(layers: Iterable[Layer], *, default: str | None) -> str | None:
    """The architecture that the layers name: the last one, or the default."""
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


@dataclass(frozen=True)
class Recipe:
    """`[recipe]` of a preset: what it reproduces, and where it is the default.

    Attributes:
        title, source: for lists of presets and for the reader.
        archs: architectures whose default it is.
        datasets: restricts that to these data sets; empty: all without a preset of their own.
        extends: name of the preset that this one modifies.
    """

    title: str
    source: str = ""
    archs: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    extends: str = ""


def list_presets() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_preset(name: str) -> tuple[Recipe, dict[str, Any]]:
    """A preset's `[recipe]` table, and its settings merged over those of the preset it extends.

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
    """A preset as a layer of settings. Its `[arch]` table is dropped if `arch` is another
    architecture, since options belong to one architecture."""
    table = read_preset(name)[1]
    if arch is not None and table.get("arch", {}).get("name") != arch:
        table.pop("arch", None)
    return Layer(f"{name}.toml", table)


def default_preset(arch: str, dataset: str) -> str | None:
    """The published recipe of an architecture on a data set, or else the architecture's own.

    A synthetic data set (`synth-market1501`) gets the preset of the one it imitates.
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
    """The layers on top of a preset: the one named, "none", or (None) the default of their
    architecture on the data set."""
    layers = list(layers)
    arch = arch_name(layers, default=None)
    if preset is None:
        preset = default_preset(arch or ArchConfig.name, dataset) or "none"
    return layers if preset == "none" else [preset_layer(preset, arch=arch), *layers]


def file_layer(path: Path) -> Layer:
    """A TOML file of settings, such as a run's config.toml, whose [dataset] is left out."""
    table = read_toml(path)
    table.pop("dataset", None)
    return Layer(path.name, table)


def environment_layer(environ: Mapping[str, str] = os.environ) -> Layer:
    """`REIDKIT_OPTIM__LR=3e-4` sets optim.lr; only names with a double underscore are settings."""
    pairs = {
        name.removeprefix("REIDKIT_").lower().replace("__", "."): scalar(value)
        for name, value in environ.items()
        if name.startswith("REIDKIT_") and "__" in name
    }
    return Layer("environment", nested(pairs))


def set_layer(assignments: Iterable[str]) -> Layer:
    """`--set optim.lr=3e-4 --set arch.backbone=resnet18`: values are TOML, or bare strings.

    Raises:
        ConfigError: for an assignment without "=", and for two of the same key.
    """
    pairs: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"--set {assignment}: expected table.key=value, as in --set optim.lr=3e-4"
            )
        if key.strip() in pairs:
            raise ConfigError(f"--set {key.strip()} is given more than once. Leave one of them out")
        pairs[key.strip()] = scalar(value.strip())
    return Layer("--set", nested(pairs))


def to_table(config: RunConfig) -> dict[str, Any]:
    """The nested table that `load_run_config` reads back to an equal RunConfig."""
    table = dataclasses.asdict(config)
    table["arch"] = {"name": config.arch.name, **dataclasses.asdict(config.arch.options)}
    return table


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Every key whose value differs between two nested tables: "optim.lr: 0.1, now 0.2"."""
    old, new = (flatten_table(table) for table in (before, after))
    return [
        f"{key}: {old.get(key, 'not set')}, now {new.get(key, 'not set')}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def flatten_table(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} -> {"optim.lr": 1}; tuples become lists."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten_table(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
