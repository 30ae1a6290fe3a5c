"""Attention and class activation maps of each stage of PFSA (PFSA, Fig. 1, 5 and 6)."""

# T frames, C channels, h w feature map, S stripes, R reduced channels

from __future__ import annotations

from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn

from reidkit.models.archs.pfsa import PFSA, DeepBranch, attend, attention_weights
from reidkit.models.base import ReidModel
from reidkit.models.blocks.base import at_least_float32
from reidkit.models.network import TrunkOutput
from reidkit.models.stripes import StripeHead, cut_stripes
from reidkit.visualize.attention.figure import Figure, View, view_frames
from reidkit.visualize.attention.inputs import FigureInputs, rounded
from reidkit.visualize.attention.recording import Call
from reidkit.visualize.attention.sheet import Sheet, grid, own_range, range_text


def has_class_maps(network: ReidModel) -> bool:
    """Whether it is a PFSA network with its classifiers."""
    return isinstance(network, PFSA) and network.head.whole is not None


def plot_class_maps(inputs: FigureInputs) -> list[Figure]:
    """A row per frame, a column per stage: the attention p above, the class activation map below.
    The class is that of the largest logit. The colours of a map span its own range."""
    network = inputs.network
    assert isinstance(network, PFSA)

    def view(calls: dict[str, Call], t: int, picture: Image.Image) -> View:
        trunk: TrunkOutput = calls["trunk"].output
        identity = int(calls["network"].output.logits[0].argmax())
        attention = stage_attention(network, trunk)
        maps = stage_class_maps(network, trunk, identity)
        columns = [
            grid(
                [
                    [picture if found is None else own_range(picture, found[t])]
                    for found in (attention.get(stage), maps[stage])
                ]
            )
            for stage in maps
        ]
        numbers = {
            "class": identity,
            "attention": {f"stage{k}": rounded(found[t]) for k, found in attention.items()},
            "class_maps": {f"stage{k}": rounded(found[t]) for k, found in maps.items()},
        }
        labels = grid([[picture], [picture]], rows=("attention", f"CAM, class {identity}"))
        captions = ("", *(range_text(found[t]) for found in maps.values()))
        return View((labels, *columns), numbers, captions)

    modules: dict[str, nn.Module] = {"network": network, "trunk": network.trunk}
    rows, numbers = view_frames(inputs, modules, view)
    sheet = Sheet(
        "Attention and class activation maps",
        ("image", *numbers[0]["class_maps"]),
        rows,
        scale=("lowest value of the map", "highest"),
        note=(
            "Below: what the positions add to the logit, lowest to highest.",
            "A stage without attention shows the plain image in the upper line.",
        ),
    )
    return [Figure("", sheet, numbers)]


def stage_attention(network: PFSA, trunk: TrunkOutput) -> dict[int, Tensor]:
    """The attention p of each stage that has it (eq. 1), [T, h, w], of a batch of one clip."""
    config = network.config
    stages = [stage for stage, _ in enumerate(network.deep, 1)] if config.deep_attention else []
    stages += [4] if config.backbone_attention else []
    return {
        stage: attention_weights(
            at_least_float32(trunk.maps[stage - 1][0]), rescaling=config.rescaling
        )[:, 0]
        for stage in stages
    }


def stage_class_maps(network: PFSA, trunk: TrunkOutput, identity: int) -> dict[int, Tensor]:
    """What each position of each stage adds to the logit of an identity (eq. 3, 7): [T, h, w].

    A map and the biases sum to the stage's logit.
    """
    maps = {
        stage: deep_class_map(cast(DeepBranch, branch), trunk.maps[stage - 1][0], identity)
        for stage, branch in enumerate(network.deep, 1)
    }
    last = trunk.maps[3]
    if network.config.backbone_attention:
        last = attend(last, network.config.rescaling)
    return {**maps, 4: stripe_class_map(network.head, last[0], identity)}


def deep_class_map(branch: DeepBranch, stage_map: Tensor, identity: int) -> Tensor:
    """[T, C, h, w] -> [T, h, w] for a classifier of an earlier stage."""
    T, _, h, w = stage_map.shape
    if branch.config.deep_attention:
        stage_map = attend(stage_map[None], branch.config.rescaling)[0]
    weight = branch.classifier.weight[identity]
    if isinstance(branch.conv, nn.Linear):
        weight = weight @ branch.conv.weight
    pooled_over = T if branch.config.deep_pooling == "sum" else T * h * w
    return torch.einsum("c,tchw->thw", weight, stage_map) / pooled_over


def stripe_class_map(head: StripeHead, last_map: Tensor, identity: int) -> Tensor:
    """[T, C, h, w] -> [T, h, w] for the classifier of the mean stripe.

    The head is linear but for a ReLU on each reduced stripe, which passes a channel of a stripe or
    not: given these, the weight of a channel depends on the stripe (w_ijk of eq. 2).
    """
    assert head.whole is not None
    T, _, h, w = last_map.shape
    stripes = cut_stripes(last_map[None])  # [1, C, S]
    S = stripes.shape[2]
    passes = head.reduce(stripes)[0] > 0  # [R, S]
    scale = head.norm.weight / (cast(Tensor, head.norm.running_var) + head.norm.eps).sqrt()
    reduced = (head.whole.weight[identity] * scale).unsqueeze(1) * passes / S  # [R, S]
    weights = head.conv.weight[:, :, 0].mT @ reduced  # [C, R] @ [R, S] -> [C, S]
    by_row = weights.repeat_interleave(h // S, dim=1)  # [C, h]
    return torch.einsum("ch,tchw->thw", by_row, last_map) / (T * w * (h // S))
