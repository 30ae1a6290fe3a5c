"""A first run of an ONNX file in a process of its own, whose time and memory are limited.

An ONNX file is a program. It may loop for ever, allocate without bound or crash ONNX Runtime, while
it is loaded as well as while it runs, and nothing that it states about itself, reidkit's metadata
included, says that it does not. Therefore every file that is not trusted first embeds two images in
a process that can be ended. docs/reliability.md compares this with other designs, and says what it
cannot find.
"""

# B batch, H W pixels of the network's input

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reidkit import errors
from reidkit.errors import CheckpointError, ReidkitError, RuntimeMissing
from reidkit.files import sha256
from reidkit.runtime.execution import Execution
from reidkit.runtime.onnx_runtime import OnnxEmbedder
from reidkit.runtime.onnx_session import open_session, session_errors

SECONDS = 60.0
"""Wall-clock time that a trial may take."""
MEMORY = 4 << 30
"""Bytes that its process may allocate, beside `WEIGHT_COPIES` times the size of the file."""
WEIGHT_COPIES = 4
THREADS = 4
DARK = 20
"""Grey level of the second image, whose statistics are not those of the first one, noise."""
MIN_COSINE = 0.99
"""Of an image's embedding alone with the one beside the dark image. Networks gave 0.99997 or more,
those of dynamic quantisation included, and at most 0.93 with batch norm in training mode."""

Kind = Literal["embedder", "parser"]

_OUT_OF_MEMORY = re.compile(r"bad_alloc|bad allocation|failed to allocate|length_error", re.I)
_ADVICE = "If you trust the file, run it without this trial: --trust (trust=True in Python)"


def try_model(
    path: Path, kind: Kind, *, inputs: Mapping[str, Any] | None = None, on_cpu: bool = True
) -> None:
    """Loads an ONNX file and runs it on two images, on the CPU, in a process of its own. A file
    that has passed is not tried again by this process.

    Args:
        kind: an embedding model, as `OnnxEmbedder` reads it, or a human parser.
        inputs: of an embedding model, as in `load_embedder`; of a parser: `size` where the file
            does not fix it.
        on_cpu: whether it is meant to run on the CPU; only for the message.

    Raises:
        CheckpointError: if it takes more than `SECONDS` or more memory than `MEMORY`, if ONNX
            Runtime crashes, if it is not such a model, or if the embedding of an image depends on
            the others of its batch.
        ConfigError: if `inputs` contradict the file.
        RuntimeMissing: if Python cannot be started in a process of its own.
    """
    try:
        _try_once(
            str(path.absolute()), sha256(path), kind, json.dumps(dict(inputs or {}), default=str)
        )
    except CheckpointError as error:
        if on_cpu or "--trust" in str(error):
            raise
        raise CheckpointError(
            f"{error}. Files are tried on the CPU; if only your device runs it, add --trust"
        ) from error


@functools.cache
def _try_once(path: str, digest: str, kind: Kind, inputs: str) -> None:
    """`digest` is of the file: one that has changed is tried again."""
    memory = MEMORY + WEIGHT_COPIES * Path(path).stat().st_size
    request = {"path": path, "kind": kind, "inputs": json.loads(inputs)}
    limits = {"seconds": SECONDS, "memory": memory}
    # The modules that are imported here are found there, and none in the current folder.
    found_in = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
            input=json.dumps(request | limits),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHONPATH": found_in},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{path}: two images took more than {SECONDS:g} s; refused. {_ADVICE}"
        ) from error
    except OSError as error:
        raise RuntimeMissing(
            f"{path}: cannot start {sys.executable or 'Python'} to try it. {_ADVICE}"
        ) from error
    try:
        reply = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        reply = {"error": "crash"}
    if reply["error"] == "memory":
        raise CheckpointError(
            f"{path}: two images took more than {memory / 2**30:.1f} GiB of memory; refused. "
            f"{_ADVICE}"
        )
    if reply["error"] == "crash":
        raise CheckpointError(
            f"{path}: ONNX Runtime crashed on two images ({_ending(done.returncode)}); refused. "
            f"{_ADVICE}"
        )
    if reply["error"]:
        known: type[ReidkitError] = getattr(errors, reply["error"])
        raise known(reply["message"])


def _ending(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def main() -> None:
    """The process of a trial: reads its request, and prints one JSON object in a last line."""
    request = json.load(sys.stdin)
    _limit(request["seconds"], request["memory"])
    reply = {"error": ""}
    try:
        run = _run_embedder if request["kind"] == "embedder" else _run_parser
        run(Path(request["path"]), request["inputs"])
    except MemoryError:
        reply = {"error": "memory"}
    except ReidkitError as error:
        reply = {"error": type(error).__name__, "message": str(error)}
        if _OUT_OF_MEMORY.search(str(error)):
            reply = {"error": "memory"}
    print("\n" + json.dumps(reply))  # noqa: T201 - the reply to the parent process


def _limit(seconds: float, memory: int) -> None:
    """Limits memory and processor time of this process, where the system can. The parent process
    watches the clock; the limit on processor time is for a parent that was killed."""
    if sys.platform == "win32":
        return
    import resource

    limits = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_CPU: int(seconds * THREADS) + 1,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (lowest, lowest))


def _run_embedder(path: Path, inputs: Mapping[str, Any]) -> None:
    execution = Execution(threads=_threads(), mode="latency")
    embedder = OnnxEmbedder(path, device="cpu", inputs=inputs, execution=execution)
    frames = [embedder.frames] if embedder.frames else []
    shape = (2, *frames, *embedder.preprocess.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images[1] = DARK
    (alone,), (beside, _) = embedder.embed(images[:1]), embedder.embed(images)
    norms = float(np.linalg.norm(alone) * np.linalg.norm(beside))
    cosine = float(alone @ beside) / norms if norms else 1.0
    if cosine < MIN_COSINE:
        raise CheckpointError(
            f"{path}: the embedding of an image depends on the other images of its batch (cosine "
            f"{cosine:.2f} with the one of the image alone). Export the network in evaluation "
            "mode: model.eval()"
        )


def _run_parser(path: Path, inputs: Mapping[str, Any]) -> None:
    """What is not a parser's input is left to the parser's own check."""
    session = open_session(path, "cpu", threads=_threads())
    taken = session.get_inputs()
    if len(taken) != 1 or len(taken[0].shape) != 4 or taken[0].type != "tensor(float)":
        return
    batch, *sides = taken[0].shape
    H, W = inputs["size"]
    expected = [2, H, W, 3] if sides[0] != 3 and sides[2] == 3 else [2, 3, H, W]
    shape = [
        side if isinstance(side, int) else free
        for side, free in zip([batch, *sides], expected, strict=True)
    ]
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with session_errors(path, f"failed on an input of shape {shape}"):
        session.run(None, {taken[0].name: images})


def _threads() -> int:
    return min(THREADS, Execution().cores)
