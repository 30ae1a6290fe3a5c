"""One line of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "absent", "problem"]
"""absent: optional and not there. problem: something that is there, or needed, does not work."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: "System", "PyTorch", "ONNX Runtime", "Packages" or "Data".
        name: of the thing: "memory", "CUDAExecutionProvider".
        status: whether it works.
        found: what was found: a version, a number, an error.
        fix: what to type or to change; never empty for a problem.
    """

    section: str
    name: str
    status: Status
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        assert self.status != "problem" or self.fix, f"{self.name}: a problem needs a fix"
