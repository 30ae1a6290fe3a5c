"""Parameter names of other projects, and the names of the same parameters in our networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from reidkit.choices import ExternalFormat, Interpolation

TRUNK = "trunk.backbone."
"""Prefix of our backbone's parameters, which have torchvision's names."""


@dataclass(frozen=True)
class KeyMapping:
    """The parameter names of a project, mapped to ours.

    Attributes:
        archs: architectures that its weights fit.
        rules: (pattern, replacement); the first pattern that matches a whole name gives our name,
            and an empty replacement marks a tensor that our network does not use.
        classifier: name of a weight in the file with one row per identity.
        options: infers options of the architecture from the tensors.
        interpolation: how the project resizes its images.
    """

    archs: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    classifier: str
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    interpolation: Interpolation = "bilinear"

    def rename(self, name: str) -> str | None:
        """Our name of a tensor; "" if it is not used here, None if no rule matches."""
        for pattern, replacement in self.rules:
            match = re.fullmatch(pattern, name)
            if match:
                return match.expand(replacement)
        return None


def _resnet_name(tensors: Mapping[str, Tensor], prefix: str = "") -> str:
    """The ResNet's depth, from the number of units in stage 3 and their type in stage 1."""
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
    """torchreid's resnet50 has a last stride of 2, its resnet50_fc512 of 1."""
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

FORMATS: Mapping[ExternalFormat, KeyMapping] = {
    "iaunet-reference": KeyMapping(
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
    "ianet-reference": KeyMapping(
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
    "rga-reference": KeyMapping(
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
    "pfsa-reference": KeyMapping(
        archs=("pfsa",),
        rules=(
            (r"base\.fc\..+|fusion_conv\..+", r""),  # not used by the released network
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
            "deep_reduction": "conv",
            "deep_pooling": "mean",
        },
    ),
    "torchreid": KeyMapping(
        archs=("baseline",),
        rules=(
            (_RESNET, rf"{TRUNK}\1"),
            (r"fc\.([01])\.(.+)", r"head.reduce.\1.\2"),
            (r"classifier\.(.+)", r"head.classifier.\1"),
        ),
        classifier="classifier.weight",
        options=_torchreid_options,
    ),
    "torchvision": KeyMapping(
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
