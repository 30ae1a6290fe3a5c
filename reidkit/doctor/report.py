"""The report on this machine: the findings of every section."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import reidkit
from reidkit.device import usable_cores
from reidkit.doctor import machine
from reidkit.doctor.data import data_findings, data_root
from reidkit.doctor.finding import Finding
from reidkit.doctor.packages import installed_version, package_findings
from reidkit.doctor.runtimes import onnxruntime_findings, torch_findings

GIB = 2**30
MIN_FREE_DISK = 5 * GIB
"""A training run with its checkpoints and masks needs a few gigabytes."""
MIN_FREE_MEMORY = 2 * GIB
MIN_SHARED_MEMORY = GIB
"""Docker's default, 64 MB, is too small for processes that load data."""


@dataclass(frozen=True)
class Report:
    """All findings, in the order of their sections."""

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that need something done."""
        return tuple(finding for finding in self.findings if finding.status == "problem")

    @property
    def can_run(self) -> bool:
        """Whether a network can run at all: in PyTorch, or in ONNX Runtime on the CPU."""
        working = {f.name for f in self.findings if f.status == "ok"}
        return bool({"torch", "CPUExecutionProvider"} & working)


def examine(root: Path | None = None) -> Report:
    """Looks at everything; nothing that is missing or broken raises.

    Args:
        root: folder of the data sets; by default $REIDKIT_DATA, else `data`.
    """
    driver = machine.nvidia_driver()
    with ThreadPoolExecutor() as pool:
        sections = [
            pool.submit(system_findings, root, driver),
            pool.submit(torch_findings, driver),
            pool.submit(onnxruntime_findings, driver),
            pool.submit(package_findings),
            pool.submit(data_findings, root),
        ]
        return Report(tuple(finding for section in sections for finding in section.result()))


def system_findings(root: Path | None, driver: str) -> list[Finding]:
    """Python, CPU, memory, disks, environment and the NVIDIA driver."""
    where = "" if sys.prefix != sys.base_prefix else ", not in a virtual environment"
    findings = [
        _ok("reidkit", f"{reidkit.__version__}, {Path(reidkit.__file__).parent}"),
        _ok("Python", f"{platform.python_version()}, {sys.executable}{where}"),
        _ok("platform", platform.platform()),
        _cpu_finding(),
        *_space_findings({"working directory": Path.cwd(), "data root": data_root(root)}),
    ]
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    if limits:
        findings.append(_ok("environment", ", ".join(limits)))
    if driver:
        return [*findings, _ok("NVIDIA driver", driver)]
    absent = "none found; everything runs on the CPU"
    fix = "With a GPU: install its driver"
    return [*findings, Finding("System", "NVIDIA driver", "absent", absent, fix)]


def _cpu_finding() -> Finding:
    sets = machine.cpu_instructions()
    cores = usable_cores()
    found = (
        f"{machine.cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}; "
        f"{', '.join(sets) or 'instruction sets unknown'}"
    )
    if platform.machine() in ("x86_64", "AMD64") and sets and "AVX2" not in sets:
        fix = "Without AVX2 networks run several times slower: use a machine with AVX2"
        return Finding("System", "CPU", "problem", found, fix)
    return _ok("CPU", found)


def _space_findings(folders: Mapping[str, Path]) -> list[Finding]:
    """Memory, shared memory, and the disks of folders by name."""
    findings = []
    memory = machine.memory()
    if memory is not None:
        available, total = memory
        found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
        fix = "Close other programs, or use a smaller --batch"
        findings.append(_at_least("memory", available, MIN_FREE_MEMORY, found, fix))
    shared = Path("/dev/shm")
    if shared.is_dir() and installed_version("torch"):  # only its data loading uses it
        size = machine.disk_size(shared)
        found = f"{size / GIB:.1f} GiB in {shared}"
        fix = "In a container: docker run --shm-size 4g. Else: --workers 0"
        findings.append(_at_least("shared memory", size, MIN_SHARED_MEMORY, found, fix))
    for name, folder in folders.items():
        free = machine.free_space(folder)
        found = f"{free / GIB:.1f} GiB free at {folder}"
        fix = "Delete old runs, or write to another disk with -o"
        findings.append(_at_least(f"disk of the {name}", free, MIN_FREE_DISK, found, fix))
    return findings


_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""Environment variables that change how many threads or GPUs are used."""


def _ok(name: str, found: str) -> Finding:
    return Finding("System", name, "ok", found)


def _at_least(name: str, size: int, minimum: int, found: str, fix: str) -> Finding:
    return _ok(name, found) if size >= minimum else Finding("System", name, "problem", found, fix)
