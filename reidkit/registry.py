"""The registry of architectures: one dict, one decorator, one lookup.

A file in `reidkit/models/archs/` registers its networks:

    @register_arch("ianet", config=IANetConfig, source="Hou et al., CVPR 2019")
    def build(config: IANetConfig, *, num_ids: int, input_size: tuple[int, int]) -> ReidModel: ...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from reidkit.choices import ARCH_OPTIONS
from reidkit.errors import ConfigError, suggest


class Build(Protocol):
    """Builds a network.

    Args:
        config: instance of the architecture's options dataclass.
        num_ids: number of training identities; 0 builds no classifier.
        input_size: (height, width) in pixels.
    Raises:
        ConfigError: if the network cannot be built for that input size or those options.
    """

    def __call__(self, config: Any, *, num_ids: int, input_size: tuple[int, int]) -> Any: ...


Parts = tuple[str, ...] | Callable[[Any], tuple[str, ...]]
"""Names of body parts, or a function from an architecture's options to them."""


@dataclass(frozen=True)
class ArchSpec:
    """A registered architecture.

    Attributes:
        name: as typed after `--arch`.
        build: builds the network.
        config: frozen dataclass of its options, each with a default.
        source: paper, and section where it helps.
        input_size: (height, width) in pixels of the published setting.
        supervised_parts: see `parts`.
    """

    name: str
    build: Build
    config: type
    source: str
    input_size: tuple[int, int] = (256, 128)
    supervised_parts: Parts = ()

    def parts(self, options: Any) -> tuple[str, ...]:
        """Body parts that the network's attention is supervised with, without building it.

        Args:
            options: instance of `config`.
        Returns:
            the `parts` of the network built with these options; empty if training needs no masks.
        """
        if callable(self.supervised_parts):
            return self.supervised_parts(options)
        return self.supervised_parts


_ARCHS: dict[str, ArchSpec] = {}


def register_arch(
    name: str,
    *,
    config: type,
    source: str,
    input_size: tuple[int, int] = (256, 128),
    parts: Parts = (),
) -> Callable[[Build], Build]:
    """Decorator that registers a build function under `name`."""

    def register(build: Build) -> Build:
        assert name not in _ARCHS, f"architecture {name} is registered twice"
        assert name in ARCH_OPTIONS, f"add {name} and its options to choices.ARCH_OPTIONS"
        _ARCHS[name] = ArchSpec(name, build, config, source, input_size, parts)
        return build

    return register


def get_arch(name: str) -> ArchSpec:
    """The architecture registered under `name`.

    Raises:
        ConfigError: as `check_arch_name`.
    """
    check_arch_name(name)
    _discover()
    return _ARCHS[name]


def check_arch_name(name: str) -> None:
    """Passes if there is an architecture of that name; torch is not imported.

    Raises:
        ConfigError: if there is none; the message contains the most similar name.
    """
    if name not in ARCH_OPTIONS:
        raise ConfigError(
            f"unknown architecture {name!r}. {suggest(name, ARCH_OPTIONS)} "
            "List them: reidkit models"
        )


def check_arch_options(name: str, options: Iterable[str], *, where: str) -> None:
    """Passes if the architecture `name` has all `options`; torch is not imported.

    Args:
        where: the source of the options, which messages begin with.
    Raises:
        ConfigError: the architecture or one of the options is unknown; names the nearest.
    """
    check_arch_name(name)
    known = [f"arch.{key}" for key in ("name", *ARCH_OPTIONS[name])]
    for key in options:
        if f"arch.{key}" not in known:
            raise ConfigError(
                f"{where}: {name} has no option arch.{key}. {suggest(f'arch.{key}', known)}"
            )


def list_archs() -> list[str]:
    """Names of all architectures, sorted."""
    _discover()
    return sorted(_ARCHS)


def _discover() -> None:
    # By name, not by an import statement: the registry is a layer below the models.
    importlib.import_module("reidkit.models.archs")
