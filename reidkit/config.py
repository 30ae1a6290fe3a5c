"""Settings of a run: frozen dataclasses, filled strictly from layers of TOML tables.

Order, later wins: defaults < preset < file < environment < flags and `--set`. An unknown key, a
wrong type or an impossible value fails with the layer it came from and the nearest known key.
`RunConfig` stops at `training.run`: functions below receive the values they use.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

from reidkit.errors import ConfigError, suggest
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch
from reidkit.tables import from_table, merge, nested, parse_values, read_toml, scalar

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class ArchConfig:
    """`[arch]`: the architecture's name; every other key of the table is an option of its own."""

    name: str = "iaunet"
    options: Any = None  # an instance of the spec's config dataclass


@dataclass(frozen=True)
class AugmentConfig:
    """`[augment]`: what training does to an image, in this order: crop, flip, erase."""

    flip: float = 0.5
    crop: Literal["none", "translate", "pad"] = "none"
    crop_probability: float = 0.5
    crop_scale: float = 1.125  # translate: resize to size * crop_scale, then crop at random
    crop_padding: int = 0  # pad: so many black pixels on every side, then crop at random
    erase: float = 0.5
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)  # height / width, uniform
    erase_value: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)  # after normalisation
    erase_noise: bool = False  # N(0, 1) per pixel in place of erase_value

    def __post_init__(self) -> None:
        for name in ("flip", "crop_probability", "erase"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} must lie in [0, 1], got {value}")
        low, high = self.erase_area
        require(0 < low <= high < 1, f"erase_area must rise within (0, 1), got {low, high}")
        require(self.crop_scale >= 1, f"crop_scale must be >= 1, got {self.crop_scale}")
        require(self.crop_padding >= 0, f"crop_padding must be >= 0, got {self.crop_padding}")
        require(
            self.crop != "pad" or self.crop_scale == 1,
            f"crop = pad moves the image at its own size: set crop_scale to 1.0, got "
            f"{self.crop_scale}",
        )


@dataclass(frozen=True)
class ClipConfig:
    """`[clip]`: what training takes from a tracklet; images are not concerned.

    frames: of a clip. stride: frames from one to the next where the tracklet is long enough.
    """

    frames: int = 4
    stride: int = 8

    def __post_init__(self) -> None:
        require(self.frames > 0 and self.stride > 0, "frames and stride must be positive")


@dataclass(frozen=True)
class SamplerConfig:
    """`[sampler]`: how a batch is made.

    groups: each id's images shuffled and cut into groups of K, all groups shuffled (IAUnet).
    pk: every id once per epoch with K images (RGA). shuffle: plain (PFSA). `batch` is the global
    batch, however many processes share it.
    """

    kind: Literal["groups", "pk", "shuffle"] = "groups"
    batch: int = 64
    samples_per_id: int = 4

    def __post_init__(self) -> None:
        require(self.batch > 0, f"batch must be positive, got {self.batch}")
        require(
            self.kind == "shuffle" or self.batch % self.samples_per_id == 0,
            f"batch {self.batch} is not a multiple of samples_per_id {self.samples_per_id}",
        )


@dataclass(frozen=True)
class LossConfig:
    """`[loss]`: a weighted sum; a weight of 0 leaves the term out.

    identity: mean cross entropy of the main logits. parts_identity, deep: cross entropies of the
    stripe classifiers and of deep supervision, each summed over its classifiers (PFSA).
    triplet: batch hard. part_attention: binary cross entropy of part maps with the masks.
    overlap: how much the class activations of several branches cover each other (CAMA).
    """

    identity: float = 1.0
    smoothing: float = 0.1
    triplet: float = 1.0
    margin: float = 0.3
    soft_margin: bool = False
    distance: Literal["cosine", "euclidean"] = "cosine"
    part_attention: float = 0.5
    parts_identity: float = 0.0
    deep: float = 0.0
    overlap: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.smoothing < 1, f"smoothing must lie in [0, 1): {self.smoothing}")
        require(self.margin >= 0, f"margin must be >= 0, got {self.margin}")
        names = ("identity", "triplet", "part_attention", "parts_identity", "deep", "overlap")
        weights = [getattr(self, name) for name in names]
        require(min(weights) >= 0 and max(weights) > 0, "weights must be >= 0, one above 0")


@dataclass(frozen=True)
class OptimConfig:
    """`[optim]`: the optimiser. Backbone parameters learn at lr * backbone_factor.

    ema: decay of an exponential moving average of the weights, which is then what is judged and
    saved; 0 for none.
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: float = 3.5e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = True
    backbone_factor: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.ema < 1, f"ema must lie in [0, 1), got {self.ema}")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(self.weight_decay >= 0, f"weight_decay must be >= 0: {self.weight_decay}")


@dataclass(frozen=True)
class ScheduleConfig:
    """`[schedule]`: the learning rate of each epoch.

    step: times gamma at each milestone. cosine: half a cosine over the epochs, per step. Both
    after a linear warm-up from warmup_lr over warmup_epochs.
    """

    epochs: int = 60
    kind: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (20, 40)
    gamma: float = 0.1
    warmup_epochs: int = 0
    warmup_lr: float = 0.0

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"epochs must be positive, got {self.epochs}")
        rising = list(self.milestones) == sorted(set(self.milestones))
        require(rising, f"milestones must rise, got {list(self.milestones)}")


@dataclass(frozen=True)
class TestConfig:
    """`[test]`: how an embedding is judged, and on whom.

    val_fraction: share of the training identities that are kept out of training to choose the best
    checkpoint by; 0 chooses by the test set, as the papers did.
    """

    __test__ = False  # not a test case, whatever pytest thinks of its name

    metric: Literal["cosine", "euclidean"] = "cosine"
    flip: bool = False  # add the mirrored image's embedding
    every: int = 10  # epochs between evaluations; 0: only after the last
    batch: int = 64
    val_fraction: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, f"val_fraction must lie in [0, 1): {self.val_fraction}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run, as config.toml in the run's folder records it."""

    arch: ArchConfig = field(default_factory=ArchConfig)
    input: Preprocess = field(default_factory=Preprocess)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    test: TestConfig = field(default_factory=TestConfig)
    weights: str = "auto"  # ImageNet weights of the backbone: auto (download), none, or a file
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False  # torch.compile of the network


def require(condition: bool, message: str) -> None:
    """Raises ConfigError(message) unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


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
