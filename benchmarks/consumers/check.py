"""Loads every model of a folder in one runtime and compares with the embeddings stored beside it.

Run by hand, in an environment that has only numpy and the runtime, on the folder that write.py
wrote. One line per network: the lowest cosine for one image, for three and for two, or the error.

    python benchmarks/consumers/check.py MODELS --consumer onnxruntime
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 3, 2)
Run = Callable[[Any], Any]


def onnxruntime(path: Path) -> Run:
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["embeddings"], {"images": images})[0]


def openvino(path: Path) -> Run:
    import openvino as ov

    # the CPU's bfloat16, its default where there is one, changes results
    model = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: model([images])["embeddings"]


def opencv(path: Path) -> Run:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))

    def run(images: Any) -> Any:
        network.setInput(images, "images")
        return network.forward("embeddings")

    return run


def dynamic_quantiser(path: Path) -> Run:
    from onnxruntime.quantization import quantize_dynamic

    target = path.with_suffix(".dynamic")
    quantize_dynamic(str(path), str(target))
    return _then_remove(target)


def preprocessing(path: Path) -> Run:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = path.with_suffix(".preprocessed")
    quant_pre_process(str(path), str(target))
    return _then_remove(target)


def static_quantiser(path: Path) -> Run:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            images = np.load(path.with_suffix(".npz"))["images"]
            self.rest = iter([{"images": images}])

        def get_next(self) -> Any:
            return next(self.rest, None)

    target = path.with_suffix(".static")
    quantize_static(str(path), str(target), Images())
    return _then_remove(target)


def _then_remove(path: Path) -> Run:
    run = onnxruntime(path)
    path.unlink()
    return run


CONSUMERS = {
    name: globals()[name]
    for name in (
        *("onnxruntime", "openvino", "opencv"),
        *("dynamic_quantiser", "static_quantiser", "preprocessing"),
    )
}


def check(path: Path, consumer: str) -> str:
    """The lowest cosine at each batch size."""
    stored = np.load(path.with_suffix(".npz"))
    run = CONSUMERS[consumer](path)
    found = []
    for batch in BATCHES:
        embeddings = np.asarray(run(stored["images"][:batch]), np.float64)
        expected = stored["embeddings"][:batch].astype(np.float64)
        if embeddings.shape != expected.shape:
            return f"found {embeddings.shape}, expected {expected.shape}"
        norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1)
        found.append(((embeddings * expected).sum(1) / norms).min())
    return "  ".join(f"{cosine:.6f}" for cosine in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--consumer", choices=CONSUMERS, required=True)
    arguments = parser.parse_args()
    if arguments.models.is_file():
        print(check(arguments.models, arguments.consumer))
        return
    for path in sorted(arguments.models.glob("*.onnx")):
        # one process per network: some runtimes crash
        command = [sys.executable, __file__, str(path), "--consumer", arguments.consumer]
        done = subprocess.run(command, capture_output=True, text=True)
        output = done.stdout if done.returncode == 0 else done.stderr
        lines = [line for line in output.splitlines() if len(line) > 2]  # OpenCV ends with ">"
        text = re.sub(r"\s+", " ", lines[-1]) if lines else f"exit status {done.returncode}"
        print(f"{path.stem:20} {text[-160:]}", flush=True)


if __name__ == "__main__":
    main()
