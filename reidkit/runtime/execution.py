"""How a network is run: provider, threads, precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from reidkit.choices import EmbeddingPrecision, Provider, RuntimeMode
from reidkit.device import usable_cores
from reidkit.errors import ConfigError


@dataclass(frozen=True)
class Execution:
    """How a network is run, apart from its device. The defaults change no embedding.

    Attributes:
        provider: ONNX Runtime's execution provider; None: CUDA's or the CPU's, as the device says.
        threads: number of threads of ONNX Runtime on the CPU; None: one per core.
        mode: "throughput" embeds several batches at once with one thread each, "latency" one batch
            with all threads (ONNX Runtime on the CPU).
        precision: of a PyTorch network; "bf16" is checked against float32 on the first batch.
        compile: compile a PyTorch network with torch.compile.
    """

    provider: Provider | None = None
    threads: int | None = None
    mode: RuntimeMode = "throughput"
    precision: EmbeddingPrecision = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and not (isinstance(self.threads, int) and self.threads > 0):
            raise ConfigError(f"threads must be at least 1, got {self.threads!r}")
        for name, allowed in (
            ("provider", (None, *get_args(Provider))),
            ("mode", get_args(RuntimeMode)),
            ("precision", get_args(EmbeddingPrecision)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                names = ", ".join(str(choice) for choice in allowed if choice)
                raise ConfigError(f"{name} must be one of {names}, got {value!r}")

    @property
    def cores(self) -> int:
        """Number of threads: `threads`, or the cores that this process may use."""
        return usable_cores() if self.threads is None else self.threads
