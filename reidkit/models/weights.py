"""ImageNet weights for a backbone: from torchvision's server, from a file, or none."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from reidkit.errors import CheckpointError, ConfigError, RuntimeMissing
from reidkit.models.backbone import Backbone
from reidkit.models.base import ReidModel

log = logging.getLogger(__name__)

UNUSED = ("fc.", "aux1.", "aux2.")
"""Classifiers of ImageNet's thousand classes: in the files, not in our backbones."""


def load_imagenet(model: ReidModel, source: str) -> None:
    """Fill the model's backbone with ImageNet weights.

    Args:
        model: a network with a `backbone`.
        source: "auto" (torchvision's IMAGENET1K_V1, downloaded once), "none", or a file with
            torchvision's names (.pth or .safetensors).
    Raises:
        RuntimeMissing: if the download fails; says which file to put where.
        CheckpointError: if the file is missing, unreadable or does not fit.
    """
    if source == "none":
        return
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ConfigError("this architecture has no backbone that ImageNet weights exist for")
    if source == "auto":
        state, where = _download(backbone.name), f"torchvision's {backbone.name}"
    else:
        state, where = read_tensors(Path(source)), source
    load_backbone(backbone, state, where=where)
    model.after_imagenet()


def load_backbone(backbone: Backbone, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors named as torchvision names them; all of the backbone's must be there.

    Raises:
        CheckpointError: naming the first tensors that are missing or of another shape.
    """
    own = backbone.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        if name in state
        else f"{name} missing"
        for name in own
        if not name.endswith("num_batches_tracked")
        and (name not in state or state[name].shape != own[name].shape)
    ]
    if wrong:
        raise CheckpointError(
            f"{where} is no {backbone.name}: {', '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}"
        )
    backbone.load_state_dict({name: state.get(name, own[name]) for name in own})
    log.info("ImageNet weights of %s from %s", backbone.name, where)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, without a `module.` prefix or a `state_dict` wrapper.

    Raises:
        CheckpointError: if it is missing, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give a weights file, auto or none")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            loaded: object = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    else:
        loaded = _load_pickle(path)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in (loaded.items() if isinstance(loaded, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f"{path}: found no tensors, expected a state dict")
    return tensors


def _load_pickle(path: Path) -> object:
    """torch.load that runs no code; a numpy float32 scalar is the one extra type allowed."""
    import pickle

    import numpy as np

    number = np.float32(0)
    scalar: Any = number.__reduce__()[0]  # the function that unpickles a numpy number
    allowed: list[Any] = [
        np.dtype,
        type(number.dtype),
        (scalar, "numpy.core.multiarray.scalar"),  # its name up to numpy 1
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message ends in advice to switch the safety off
        found = str(error).partition("Unsupported ")[2] or str(error)
        reason = found.splitlines()[0].split(". ")[0]
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values ({reason}); only weights are read. "
            "Save its state dict alone"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or ["empty file"])[0]
        raise CheckpointError(f"{path}: not a torch weights file ({reason})") from error


def _download(name: str) -> Mapping[str, Tensor]:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints
            state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
                weights.url, progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
    except (URLError, OSError, RuntimeError) as error:
        raise RuntimeMissing(
            f"cannot download {weights.url} ({error}). Put that file at {target}, "
            "or pass --weights FILE, or --weights none to train from scratch"
        ) from error
    return state
