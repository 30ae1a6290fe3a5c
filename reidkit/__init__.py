"""reidkit: person re-identification from a folder of images to a deployed model.

    model = reidkit.load("model.onnx")
    rows = model.embed(["who.jpg", "other.jpg"])      # float32 [2, D]
    print(reidkit.evaluate(model, "market1501").summary())

The names below are imported on first use: `import reidkit` imports neither torch nor NumPy.
docs/python.md shows their use.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reidkit.checkpoint import create_model as create_model
    from reidkit.data.manifest import open_dataset as open_dataset
    from reidkit.errors import ReidkitError as ReidkitError
    from reidkit.evaluation import evaluate as evaluate
    from reidkit.features import read_features as read_features
    from reidkit.registry import list_archs as list_archs
    from reidkit.runtime.crops import load as load
    from reidkit.vector_search import rerank as rerank
    from reidkit.vector_search import search as search

__version__ = "0.1.0"

# ONNX Runtime has telemetry, which stores a device number in the user's cache when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "ReidkitError": "reidkit.errors",
    "create_model": "reidkit.checkpoint",
    "evaluate": "reidkit.evaluation",
    "list_archs": "reidkit.registry",
    "load": "reidkit.runtime.crops",
    "open_dataset": "reidkit.data.manifest",
    "read_features": "reidkit.features",
    "rerank": "reidkit.vector_search",
    "search": "reidkit.vector_search",
}

__all__ = [
    "ReidkitError",
    "create_model",
    "evaluate",
    "list_archs",
    "load",
    "open_dataset",
    "read_features",
    "rerank",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'reidkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
