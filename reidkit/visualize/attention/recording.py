"""Inputs and outputs of modules inside a network, read during its forward pass.

The only forward hooks of reidkit are here. They read and change nothing, and are removed at the
end, so that a network computes the same bits with and without them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


class Call(NamedTuple):
    """The first input and the output of a module's last call."""

    input: Any
    output: Any


@contextlib.contextmanager
def record(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Call]]:
    """Yields a dictionary that the calls of `modules` are entered in, by their names."""
    calls: dict[str, Call] = {}

    def keep(name: str, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] = Call(inputs[0], output)

    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: keep(name, inputs, output)
        )
        for name, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def modules_of(network: nn.Module, kind: type[Module]) -> dict[str, Module]:
    """The modules of a class by their place, such as "stage2" or "stage3_0", in order."""
    return {
        _place(name): module for name, module in network.named_modules() if isinstance(module, kind)
    }


def _place(name: str) -> str:
    stages = [part for part in name.split(".") if part.startswith("stage")]
    return stages[0] if stages else name.replace(".", "-")
