"""The machine, as its operating system describes it: CPU, memory, disk, NVIDIA driver."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

_INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "AMX BF16": {"amx_bf16"},
    "AMX INT8": {"amx_int8"},
    "NEON": {"asimd", "neon"},
}
"""Names of instruction sets that change the speed of networks, and their flags in /proc/cpuinfo."""


def cpu_model() -> str:
    """The CPU's name, from /proc/cpuinfo where there is one."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def cpu_instructions(cpuinfo: str | None = None) -> list[str]:
    """The sets of `_INSTRUCTIONS` that the CPU has; empty where the system does not tell.

    Args:
        cpuinfo: text in the format of /proc/cpuinfo, by default that file's.
    """
    text = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    return [name for name, any_of in _INSTRUCTIONS.items() if any_of & flags]


def memory() -> tuple[int, int] | None:
    """(available, total) bytes, within the container's limit; None where it cannot be read."""
    table = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
    if not {"MemAvailable", "MemTotal"} <= set(table):
        return None
    available, total = (1024 * int(table[name]) for name in ("MemAvailable", "MemTotal"))
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    used = _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        total = min(total, int(limit))
        available = min(available, int(limit) - int(used))
    return available, total


def free_space(path: Path) -> int:
    """Free bytes on the disk of `path` or of its nearest existing parent."""
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def disk_size(path: Path) -> int:
    """Bytes that the disk of an existing path can hold."""
    return shutil.disk_usage(path).total


def nvidia_driver() -> str:
    """Version of the NVIDIA driver and its GPUs, by nvidia-smi or the kernel; "" without one."""
    query = ["--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"]
    program = shutil.which("nvidia-smi")
    if program:
        try:
            done = subprocess.run(
                [program, *query], capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done and done.returncode == 0 and done.stdout.strip():
            return "; ".join(line.strip() for line in done.stdout.strip().splitlines())
    kernel = re.search(r"Kernel Module\D*([\d.]+)", _read("/proc/driver/nvidia/version"))
    return kernel[1] if kernel else ""


def _read(path: str) -> str:
    """A small text file of the system, "" where there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
