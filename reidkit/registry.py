"""The one list of architectures: one dict, one decorator, one lookup.

A file in `reidkit/models/archs/` registers itself:

    @register_arch("iaunet", config=IAUNetConfig, source="Hou et al., TNNLS 2020", parts=PARTS)
    def build(config: IAUNetConfig, *, num_ids: int, input_size: tuple[int, int]) -> ReidModel: ...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from reidkit.errors import ConfigError, suggest


class Build(Protocol):
    """Makes the network: `config` is an instance of the spec's own dataclass.

    `num_ids` is the number of training identities (0: no classifier), `input_size` is
    (height, width) in pixels. Raises ConfigError for a size or an option it cannot take.
    """

    def __call__(self, config: Any, *, num_ids: int, input_size: tuple[int, int]) -> Any: ...


@dataclass(frozen=True)
class ArchSpec:
    """What is known of an architecture before it is built.

    Attributes:
        name: as typed after `--arch`.
        build: makes the network.
        config: frozen dataclass of its options, each with a default.
        source: paper, and section where it helps.
        input_size: (height, width) in pixels of the published setting.
        parts: body parts its attention is supervised with; empty if it needs no masks.
    """

    name: str
    build: Build
    config: type
    source: str
    input_size: tuple[int, int] = (256, 128)
    parts: tuple[str, ...] = ()


_ARCHS: dict[str, ArchSpec] = {}


def register_arch(
    name: str,
    *,
    config: type,
    source: str,
    input_size: tuple[int, int] = (256, 128),
    parts: tuple[str, ...] = (),
) -> Callable[[Build], Build]:
    """Decorator: enters a build function under `name`."""

    def enter(build: Build) -> Build:
        assert name not in _ARCHS, f"architecture {name} is registered twice"
        _ARCHS[name] = ArchSpec(name, build, config, source, input_size, parts)
        return build

    return enter


def get_arch(name: str) -> ArchSpec:
    """The spec called `name`.

    Raises:
        ConfigError: if there is none; the message names the nearest.
    """
    _discover()
    if name not in _ARCHS:
        raise ConfigError(
            f"unknown architecture {name!r}. {suggest(name, _ARCHS)} List them: reidkit models"
        )
    return _ARCHS[name]


def list_archs() -> list[str]:
    """Names of all architectures, sorted."""
    _discover()
    return sorted(_ARCHS)


def _discover() -> None:
    # By name, not by an import statement: the registry stands below the models that fill it.
    importlib.import_module("reidkit.models.archs")
