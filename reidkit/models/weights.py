"""ImageNet weights for a backbone: torchvision's, from a file, or none."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shlex
import struct
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from reidkit.errors import CheckpointError, ConfigError, RuntimeMissing
from reidkit.files import check_regular, os_error_text
from reidkit.models.backbone import Backbone
from reidkit.models.base import ReidModel

log = logging.getLogger(__name__)

OFFLINE = "REIDKIT_OFFLINE"
"""Environment variable: 1 refuses to download weights."""

_DAMAGED = (
    *(RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error),
    OSError,  # EINVAL of a file that is cut off: it seeks before the beginning
)
"""What torch.load raises for damaged files."""


def load_imagenet(model: ReidModel, source: str) -> None:
    """Load ImageNet weights into the model's backbone.

    Args:
        source: "auto" (torchvision's IMAGENET1K_V1, downloaded once), "none", or a file with
            torchvision's parameter names (.pth or .safetensors).
    Raises:
        ConfigError: if there are no ImageNet weights for this backbone.
        RuntimeMissing: if the download fails, or `REIDKIT_OFFLINE` is 1 and the file is not in
            torch's cache; the message names it and where to put it.
        CheckpointError: if the file is missing, unreadable or does not fit.
    """
    if source == "none":
        return
    if source == "auto":
        name = model.backbone.torchvision_name
        if name is None:
            raise ConfigError(
                f"torchvision has no ImageNet weights for this {model.backbone.name}: its stem is "
                "for small images. Train from scratch with --weights none, or pass --weights FILE"
            )
        state, where = _download(name), f"torchvision's {name}"
    else:
        state, where = read_tensors(Path(source)), source
    load_backbone(model.backbone, state, where=where)
    model.after_pretrained()


def load_backbone(backbone: Backbone, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors with torchvision's names into the backbone; none of its own may be missing.

    Raises:
        CheckpointError: naming the first tensors that are missing or have another shape.
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
        small = backbone.torchvision_name is None
        raise CheckpointError(
            f"{where} does not fit {backbone.name}: {', '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}"
            f"{'. Its stem is for small images: train from scratch with --weights none' * small}"
        )
    backbone.load_state_dict({name: state.get(name, own[name]) for name in own})
    log.info("ImageNet weights of %s from %s", backbone.name, where)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, without a `module.` prefix or a `state_dict` wrapper.

    Raises:
        CheckpointError: if it is missing, or contains anything but tensors and plain values.
    """
    check_regular(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected a weights file (.pth, .safetensors)")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            loaded: object = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"{path}: not a safetensors file, or a damaged one. Copy the file again"
            ) from error
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
    for name, tensor in tensors.items():
        kind = _unusual_kind(tensor)
        if kind:
            raise CheckpointError(
                f"{path}: {name} is {kind}, expected dense tensors of float or integer numbers. "
                "Save the state dict of the network before it was converted"
            )
    return tensors


def _unusual_kind(tensor: Tensor) -> str:
    """What kind of tensor it is that no network here can hold; "" for ordinary ones."""
    if tensor.is_meta:
        return "a meta tensor without values"
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout is not torch.strided:
        return "sparse"
    return "complex" if tensor.is_complex() else ""


def _load_pickle(path: Path) -> object:
    """torch.load with weights_only=True; a numpy float32 scalar is the only extra type allowed."""
    import pickle

    import numpy as np

    number = np.float32(0)
    scalar: Any = number.__reduce__()[0]  # the function that unpickles a numpy number
    allowed: list[Any] = [
        np.dtype,
        type(number.dtype),
        (scalar, "numpy.core.multiarray.scalar"),  # its name before numpy 2
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about old formats and sparse tensors
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to set weights_only=False
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        example = f", such as {found[1]}" if found else ""
        raise CheckpointError(
            f"{path}: contains more than tensors and plain values{example}; only weights are "
            "loaded, because other objects could run code. Save the state dict alone"
        ) from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise CheckpointError(f"cannot read {path}: {os_error_text(error)}") from error
        what = "is damaged or of another kind" if path.stat().st_size else "is empty"
        raise CheckpointError(
            f"{path}: not a torch weights file; it {what}. Copy the file again"
        ) from error


def _download(name: str) -> Mapping[str, Tensor]:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not target.exists() and os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise RuntimeMissing(
            f"offline, and {target} is missing. Where there is a network, run: "
            f"curl --create-dirs -o {shlex.quote(str(target))} {weights.url}. Or pass --weights "
            "FILE, or --weights none to train from scratch"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints
            state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
                weights.url, progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
    except (URLError, OSError, RuntimeError) as error:
        raise RuntimeMissing(
            f"cannot download {weights.url} ({_cause(error)}). Download it to {target}, "
            "or pass --weights FILE, or --weights none to train from scratch"
        ) from error
    return state


def _cause(error: Exception) -> str:
    """Why a download failed, in a few words."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, OSError):
        return os_error_text(reason)
    return str(reason).splitlines()[0] if str(reason) else type(reason).__name__
