"""Reads a Triton repository as Triton does: its configuration into Triton's own message, and, with
nvidia-pytriton, by a server.

Run by hand, in an environment that has tritonclient[grpc] and, for --server, nvidia-pytriton. That
package's server has no ONNX backend: it reads the configuration and then refuses the model because
"onnxruntime" is missing; any other answer is an error in the configuration.

    reidkit export MODEL --onnx --for triton -o REPOSITORY/reid/1/model.onnx
    python benchmarks/consumers/check_triton.py REPOSITORY [--server]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
from pathlib import Path

MISSING_BACKEND = "unable to find backend library for backend 'onnxruntime'"


def parse(path: Path) -> None:
    """Prints what Triton reads; an unknown field or a wrong type raises ParseError."""
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    config = text_format.Parse(path.read_text(), ModelConfig())
    tensors = [f"{entry.name} {list(entry.dims)}" for entry in (*config.input, *config.output)]
    delay = config.dynamic_batching.max_queue_delay_microseconds
    print(f"{path}: {', '.join(tensors)}; batches of up to {config.max_batch_size}, {delay} us")


def serve(repository: Path) -> None:
    """Prints the server's verdict on each model."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise SystemExit("pytriton is not installed. Run: pip install nvidia-pytriton")
    package = Path(spec.origin).parent
    server = package / "tritonserver"
    libraries = (server / "external_libs", package.parent / "nvidia_pytriton.libs")
    command = [
        *(str(server / "bin/tritonserver"), f"--model-repository={repository}"),
        *(f"--backend-directory={server / 'backends'}", "--allow-metrics=0", "--allow-grpc=0"),
        "--http-address=127.0.0.1",
    ]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    output = (done.stdout + done.stderr).splitlines()
    lines = [line for line in output if "UNAVAILABLE" in line]
    print(*(lines or output[-5:]), sep="\n")
    if not lines or any(MISSING_BACKEND not in line for line in lines):
        raise SystemExit("the configuration was refused, see above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("--server", action="store_true", help="start nvidia-pytriton's server")
    arguments = parser.parse_args()
    paths = sorted(arguments.repository.glob("*/config.pbtxt"))
    if not paths:
        raise SystemExit(f"{arguments.repository} has no NAME/config.pbtxt")
    for path in paths:
        parse(path)
    if arguments.server:
        serve(arguments.repository)


if __name__ == "__main__":
    main()
