"""How other projects name their tensors, and what our architectures call the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Format = Literal[
    "iaunet-reference",
    "ianet-reference",
    "rga-reference",
    "pfsa-reference",
    "torchreid",
    "torchvision",
]

TRUNK = "trunk.backbone."
"""Where our networks keep what torchvision names."""


@dataclass(frozen=True)
class Layout:
    """How a project names its tensors.

    Attributes:
        archs: our architectures that can hold them.
        rules: (pattern, replacement) tried in order on a foreign name; the first that matches
            whole gives ours, "" leaves the tensor out on purpose.
        classifier: foreign name of a weight with one row per identity.
        options: of our architecture, read off the tensors.
        interpolation: how the project resizes its images.
    """

    archs: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    classifier: str
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"


def _resnet_name(tensors: Mapping[str, Tensor], prefix: str = "") -> str:
    """Which ResNet: by the number of units in stage 3, and by their kind in stage 1."""
    units = {
        int(found[1])
        for name in tensors
        if (found := re.match(rf"{re.escape(prefix)}layer3\.(\d+)\.conv1\.", name))
    }
    bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    depth = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101}
    return f"resnet{depth.get((len(units), bottleneck), 50)}"


def _stages(tensors: Mapping[str, Tensor], pattern: str) -> list[int]:
    found = (re.match(pattern, name) for name in tensors)
    return sorted({int(match[1]) for match in found if match})


def _torchreid_options(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """torchreid's resnet50 keeps the last stride of 2, its resnet50_fc512 takes 1."""
    reduced = tensors["fc.0.weight"].shape[0] if "fc.0.weight" in tensors else 0
    return {
        "backbone": _resnet_name(tensors),
        "last_stride": 1 if reduced else 2,
        "head": "plain",
        "reduced": reduced,
    }


_RESNET = r"((?:conv1|bn1|layer[1-4]\.\d+)\..+)"
_STATS = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_HEAD = (r"bn\.(.+)", r"head.bn.\1"), (r"classifier\.(.+)", r"head.classifier.\1")
_IAU = r"IAU([1-4])\."
_EXCHANGE = r"ST?IAU\."

LAYOUTS: Mapping[str, Layout] = {
    "iaunet-reference": Layout(
        archs=("iaunet",),
        rules=(
            (rf"{_IAU}(?:sa|SA)\.conv\.conv\.(.+)", r"trunk.blocks.stage\1.part.division.conv.\2"),
            (rf"{_IAU}(?:sa|SA)\.conv\.bn\.(.+)", r"trunk.blocks.stage\1.part.division.norm.\2"),
            (rf"{_IAU}g\.(.+)", r"trunk.blocks.stage\1.part.reduce.\2"),
            (
                rf"{_IAU}{_EXCHANGE}module_w\.relation\.0\.(.+)",
                r"trunk.blocks.stage\1.part.relation.\2",
            ),
            (
                rf"{_IAU}{_EXCHANGE}module_w\.relation\.1\.(.+)",
                r"trunk.blocks.stage\1.part.relation_norm.\2",
            ),
            (
                rf"{_IAU}{_EXCHANGE}module_l\.fsm\.0\.(.+)",
                r"trunk.blocks.stage\1.part.part_update.\2",
            ),
            (
                rf"{_IAU}{_EXCHANGE}module_l\.fsm\.1\.(.+)",
                r"trunk.blocks.stage\1.part.part_norm.\2",
            ),
            (rf"{_IAU}W1\.0\.(.+)", r"trunk.blocks.stage\1.channel.update.\2"),
            (rf"{_IAU}W1\.1\.(.+)", r"trunk.blocks.stage\1.channel.norm.\2"),
            (rf"{_IAU}W2\.0\.(.+)", r"trunk.blocks.stage\1.part.frame_update.\2"),
            (rf"{_IAU}W2\.1\.(.+)", r"trunk.blocks.stage\1.part.frame_norm.\2"),
            (_RESNET, rf"{TRUNK}\1"),
            *_HEAD,
        ),
        classifier="classifier.weight",
        options=lambda tensors: {
            "backbone": _resnet_name(tensors),
            "stages": _stages(tensors, _IAU),
        },
        interpolation="bicubic",
    ),
    "ianet-reference": Layout(
        archs=("ianet",),
        rules=(
            (rf"layer([1-4])\.\d+\.W1\.{_STATS}", r"trunk.blocks.stage\1.spatial.norm.\2"),
            (rf"layer([1-4])\.\d+\.W2\.{_STATS}", r"trunk.blocks.stage\1.channel.norm.\2"),
            (_RESNET, rf"{TRUNK}\1"),
            *_HEAD,
        ),
        classifier="classifier.weight",
        options=lambda tensors: {
            "backbone": _resnet_name(tensors),
            "stages": _stages(tensors, r"layer([1-4])\.\d+\.W[12]\."),
            "variant": "released",
        },
        interpolation="bicubic",
    ),
    "rga-reference": Layout(
        archs=("rga-s", "rga-c", "rga-sc"),
        rules=(
            *(
                (
                    rf"backbone\.rga_att([1-4])\.{theirs}_(spatial|channel)\.(.+)",
                    rf"trunk.blocks.stage\1.\2.{ours}.\3",
                )
                for theirs, ours in (
                    ("theta", "theta"),
                    ("phi", "phi"),
                    ("gx", "own"),
                    ("gg", "related"),
                    ("W", "attend"),
                )
            ),
            (rf"backbone\.{_RESNET}", rf"{TRUNK}\1"),
            (r"feat_bn\.(.+)", r"head.bn.\1"),
            (r"cls\.weight", r"head.classifier.weight"),
        ),
        classifier="cls.weight",
        options=lambda tensors: {
            "backbone": _resnet_name(tensors, "backbone."),
            "stages": _stages(tensors, r"backbone\.rga_att([1-4])\."),
        },
    ),
    "pfsa-reference": Layout(
        archs=("pfsa",),
        rules=(
            (r"base\.fc\..+|fusion_conv\..+", r""),  # never used by the released network
            (rf"base\.{_RESNET}", rf"{TRUNK}\1"),
            (r"local_conv\.weight", r"head.conv.weight"),
            (r"feat_bn2d\.(.+)", r"head.norm.\1"),
            (r"instance([0-5])\.(.+)", r"head.parts.\1.\2"),
            (r"instance6\.(.+)", r"head.whole.\1"),
            *(
                (rf"local_conv_layer{stage}\.weight", rf"deep.{stage - 1}.conv.weight")
                for stage in (1, 2, 3)
            ),
            *(
                (rf"instance_layer{stage}\.(.+)", rf"deep.{stage - 1}.classifier.\1")
                for stage in (1, 2, 3)
            ),
        ),
        classifier="instance6.weight",
        options=lambda tensors: {
            "backbone": _resnet_name(tensors, "base."),
            "rescaling": "l1",
        },
    ),
    "torchreid": Layout(
        archs=("baseline",),
        rules=(
            (_RESNET, rf"{TRUNK}\1"),
            (r"fc\.([01])\.(.+)", r"head.reduce.\1.\2"),
            (r"classifier\.(.+)", r"head.classifier.\1"),
        ),
        classifier="classifier.weight",
        options=_torchreid_options,
    ),
    "torchvision": Layout(
        archs=("baseline",),
        rules=(
            (r"(?:fc|aux1|aux2)\..+", r""),  # ImageNet's thousand classes
            (_RESNET, rf"{TRUNK}\1"),
            (r"((?:conv[1-3]|inception\d[a-e])\..+)", rf"{TRUNK}\1"),
        ),
        classifier="",
        options=lambda tensors: {
            "backbone": "googlenet"
            if any(name.startswith("inception") for name in tensors)
            else _resnet_name(tensors),
            "head": "plain",
        },
    ),
}
