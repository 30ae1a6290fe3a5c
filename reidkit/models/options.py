"""Checks that the options of several architectures share. They raise ConfigError."""

from __future__ import annotations

from typing import Any, Literal, get_args

from reidkit.errors import ConfigError

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "googlenet"]
Embedding = Literal["post-bn", "pre-bn"]
HeadName = Literal["bn", "bnneck", "plain"]
Placement = Literal["after", "before"]
AnyPlacement = Literal["after", "before", "every"]


def check_choices(config: object, **choices: Any) -> None:
    """Every field named here must hold one of its Literal's values."""
    for field, kind in choices.items():
        found, allowed = getattr(config, field), get_args(kind)
        if found not in allowed:
            names = ", ".join(str(name) for name in allowed)
            raise ConfigError(f"arch.{field}: found {found!r}, expected one of {names}")


def check_stages(stages: tuple[int, ...], *, field: str = "stages", empty: bool = True) -> None:
    """Stages are 1 to 4, each at most once; an empty tuple means no block at all."""
    if len(set(stages)) != len(stages) or not set(stages) <= {1, 2, 3, 4}:
        raise ConfigError(
            f"arch.{field}: found {list(stages)}, expected different stages of 1, 2, 3, 4"
        )
    if not stages and not empty:
        raise ConfigError(f"arch.{field}: found none, expected at least one of 1, 2, 3, 4")


def check_positive(config: object, *fields: str) -> None:
    """Every field named here must be above zero (each entry, if it is a tuple)."""
    for field in fields:
        found = getattr(config, field)
        entries = found if isinstance(found, tuple) else (found,)
        if not entries or any(entry <= 0 for entry in entries):
            raise ConfigError(f"arch.{field}: found {found!r}, expected numbers above 0")


def check_dropout(config: object, field: str = "dropout") -> None:
    """A dropout probability lies in [0, 1)."""
    found = getattr(config, field)
    if not 0 <= found < 1:
        raise ConfigError(f"arch.{field}: found {found}, expected 0 to below 1")
