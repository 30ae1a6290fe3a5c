"""reidkit: person re-identification from a folder of images to a deployed model.

    embedder = reidkit.load(Path("model.safetensors"))
    print(reidkit.evaluate(embedder, reidkit.open_dataset("market1501")).summary())

The names below are imported on first use, so that `import reidkit` does not import torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reidkit.checkpoint import create_model as create_model
    from reidkit.data.manifest import open_dataset as open_dataset
    from reidkit.evaluation import evaluate as evaluate
    from reidkit.registry import list_archs as list_archs
    from reidkit.runtime.embedder import load_embedder as load
    from reidkit.runtime.extraction import embed_images as embed_images

__version__ = "0.1.0"

# ONNX Runtime's builds from 1.29 on otherwise report every session to their makers, and store a
# device number in the user's cache, already when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_PUBLIC = {
    "create_model": ("reidkit.checkpoint", "create_model"),
    "embed_images": ("reidkit.runtime.extraction", "embed_images"),
    "evaluate": ("reidkit.evaluation", "evaluate"),
    "list_archs": ("reidkit.registry", "list_archs"),
    "load": ("reidkit.runtime.embedder", "load_embedder"),
    "open_dataset": ("reidkit.data.manifest", "open_dataset"),
}

__all__ = [
    "create_model",
    "embed_images",
    "evaluate",
    "list_archs",
    "load",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'reidkit' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
