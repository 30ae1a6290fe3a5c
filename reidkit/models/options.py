"""Options that several architectures share, and checks of their values (ConfigError)."""

from __future__ import annotations

from typing import Literal

from reidkit.errors import ConfigError

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "googlenet"]
LastStride = Literal[1, 2]
HeadName = Literal["bn", "bnneck", "plain"]
Placement = Literal["after", "before"]
AnyPlacement = Literal["after", "before", "every"]


def check_stages(stages: tuple[int, ...]) -> None:
    """Stages are 1 to 4, each at most once; an empty tuple means no block at all."""
    if len(set(stages)) != len(stages) or not set(stages) <= {1, 2, 3, 4}:
        raise ConfigError(
            f"arch.stages: found {list(stages)}, expected different stages of 1, 2, 3, 4"
        )


def check_positive(config: object, *fields: str) -> None:
    """These fields must be above zero (each entry, if it is a tuple)."""
    for field in fields:
        found = getattr(config, field)
        entries = found if isinstance(found, tuple) else (found,)
        if not entries or any(entry <= 0 for entry in entries):
            raise ConfigError(f"arch.{field}: found {found!r}, expected numbers above 0")


def check_dropout(dropout: float) -> None:
    """A dropout probability lies in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ConfigError(f"arch.dropout: found {dropout}, expected 0 to below 1")
