"""What a package can really do: imported and used in a process of its own.

An import may fail, crash the process (a wheel for other CPU instructions) or hang (a driver that
does not answer). Each is a finding, none may take the report with it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT = 120
"""Seconds that a probe may take; a first import of PyTorch from a network disk takes long."""

_ONE_RELU = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04'
    b"\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model y = Relu(x) of one float (IR 8, opset 13), as bytes: the onnx package is not
needed to run models."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found, or why there is no result."""

    found: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run_probe(name: str, argument: str = "") -> ProbeResult:
    """Calls `probe_<name>(argument)` in a new process and returns what it found."""
    code = "from reidkit.doctor.probes import main; main()"
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"  # stdout belongs to the libraries
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", code, name, argument, str(result)],
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ProbeResult(error=f"no answer within {TIMEOUT} seconds")
        if result.is_file():
            document = json.loads(result.read_text())
            document["found"]["log"] = done.stderr
            return ProbeResult(**document)
    if done.returncode < 0:
        return ProbeResult(error=f"the process was killed by signal {-done.returncode}")
    return ProbeResult(error=f"the process ended with status {done.returncode}")


def main() -> None:
    """Runs the probe named on the command line and writes its result to a file."""
    name, argument, target = sys.argv[1:]
    document: dict[str, Any] = {"found": {}, "error": ""}
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            document["found"] = globals()[f"probe_{name}"](argument)
        document["found"]["warnings"] = [str(warning.message) for warning in caught]
    except Exception as error:  # whatever a broken package raises is the finding
        document["error"] = error_line(error)
    Path(target).write_text(json.dumps(document))


def error_line(error: BaseException) -> str:
    """An exception on one line: its type, and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def probe_torch(_: str) -> dict[str, Any]:
    """PyTorch: a convolution on the CPU, and on the GPU where there is one."""
    import torch

    image = torch.ones(1, 3, 8, 8)
    kernel = torch.ones(1, 3, 3, 3)
    torch.nn.functional.conv2d(image, kernel)
    devices = []
    cuda = torch.cuda.is_available()
    for index in range(torch.cuda.device_count() if cuda else 0):
        target = f"cuda:{index}"
        torch.nn.functional.conv2d(image.to(target), kernel.to(target)).cpu()
        devices.append(torch.cuda.get_device_name(index))
    return {
        "version": torch.__version__,
        "cuda_build": torch.version.cuda or "",
        "cuda": cuda,
        "devices": devices,
        "threads": torch.get_num_threads(),
    }


def probe_torchvision(_: str) -> dict[str, Any]:
    """torchvision: its compiled operators load, so it belongs to this PyTorch."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.ones(1, 4), torch.ones(1), 0.5)
    return {"version": torchvision.__version__}


def probe_onnxruntime(_: str) -> dict[str, Any]:
    """ONNX Runtime: its version and the providers that it lists."""
    import onnxruntime

    return {
        "version": onnxruntime.__version__,
        "providers": list(onnxruntime.get_available_providers()),
    }


def probe_provider(name: str) -> dict[str, Any]:
    """One provider of ONNX Runtime: whether a session of one node really runs on it."""
    import numpy as np
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(_ONE_RELU, providers=[name])
    (output,) = session.run(None, {"x": np.array([2.0], np.float32)})
    return {"works": name in session.get_providers() and output.tolist() == [2.0]}


def load_error(log: str) -> str:
    """The reason in ONNX Runtime's log for a provider that did not load, "" if it gives none."""
    found = re.search(r"Failed to load library \S+ with error: ([^\n]+)", log)
    return found[1].strip() if found else ""


def probe_hdf5(_: str) -> dict[str, Any]:
    """h5py: an array written with deflate and read again, in memory."""
    import h5py
    import numpy as np

    values = np.arange(100, dtype=np.uint8)
    with h5py.File("probe", "w", driver="core", backing_store=False) as file:
        file.create_dataset("values", data=values, compression="gzip")
        same = bool((file["values"][:] == values).all())
    if not same:
        raise ValueError("an array read back differs from the one written")
    return {"version": h5py.__version__, "hdf5": h5py.version.hdf5_version}


def probe_imports(modules: str) -> dict[str, Any]:
    """Imports modules, named with spaces between; {"errors": {module: error}}."""
    errors = {}
    for module in modules.split():
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a broken package raises is the finding
            errors[module] = error_line(error)
    return {"errors": errors}
