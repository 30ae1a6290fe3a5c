"""Grad-CAM: where the last feature maps raise a score (Selvaraju et al., ICCV 2017; RGA, Fig. 5).

The score is
- the largest logit, if the network has a classifier (several classifiers: the largest sum): that is
  Grad-CAM's own choice, and RGA does not name its score;
- the norm of the embedding otherwise;
- the cosine of two embeddings, if there is a second image: what each of the two adds to their
  similarity is what explains metric learning (Zhu et al., arXiv 1909.12977).
"""

# T frames, C channels, h w feature map, D embedding

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.models.archs.cama import CAMA
from reidkit.models.base import ReidModel
from reidkit.models.network import Trunk, TrunkOutput
from reidkit.visualize.attention.figure import Figure
from reidkit.visualize.attention.inputs import FigureInputs, Subject, rounded
from reidkit.visualize.attention.recording import Call, modules_of, record
from reidkit.visualize.attention.sheet import Row, Sheet, heat_map

CONSTANT = 1e-4
"""Relative change of a score below which it does not depend on the image."""


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM of one subject.

    Attributes:
        score: its value.
        score_of: "logit of class 7", "norm" or "cosine".
        maps: one [T, h, w] per branch of the network (one but for CAMA), >= 0.
    """

    score: float
    score_of: str
    maps: tuple[Tensor, ...]


def has_grad_cam(network: ReidModel) -> bool:
    """Whether it has a trunk, as every registered architecture has."""
    return bool(modules_of(network, Trunk))


def plot_grad_cam(inputs: FigureInputs) -> list[Figure]:
    """A row per frame: the image, and Grad-CAM of each branch; with a second image that image and
    its own. The colours span 0 to the highest value of the clip."""
    rows: list[Row] = []
    numbers = []
    branches = 1
    for subject in inputs.subjects:
        clip = inputs.clip(subject)
        if inputs.compare is None:
            shown, cams = [subject], [grad_cam(inputs.network, clip)]
        else:
            shown = [subject, inputs.compare]
            cams = list(grad_cam_pair(inputs.network, clip, inputs.clip(inputs.compare)))
        branches = len(cams[0].maps)
        for t in range(max(len(s.frames) for s in shown)):
            cells = [
                c for s, cam in zip(shown, cams, strict=True) for c in _cells(inputs, s, cam, t)
            ]
            captions = ["", _score_text(cams[0]), *[""] * (len(cells) - 2)]
            rows.append(Row(subject.frame_name(t), tuple(cells), tuple(captions)))
        numbers.append(
            {
                "images": [[str(frame) for frame in s.frames] for s in shown],
                "score": cams[0].score,
                "score_of": cams[0].score_of,
                "maps": [[rounded(m) for m in cam.maps] for cam in cams],
            }
        )
    names = ["Grad-CAM"] if branches == 1 else [f"branch {k + 1}" for k in range(branches)]
    headings = ["image", *names] + ([] if inputs.compare is None else ["second image", *names])
    sheet = Sheet("Grad-CAM", tuple(headings), tuple(rows), scale=("0", "highest value"))
    return [Figure("", sheet, numbers)]


def grad_cam(network: ReidModel, clip: Tensor) -> GradCam:
    """Grad-CAM of the largest logit, or of the embedding's norm without a classifier.

    Args:
        clip: [1, T, 3, H, W].
    Raises:
        ConfigError: the score is the norm, and the network normalises its embedding.
    """
    clip = clip.clone().requires_grad_()  # the parameters may be frozen
    with record(_last_modules(network)) as calls:
        logits = network(clip).logits
        if logits:
            total = torch.stack(logits).sum(0)[0]
            identity = int(total.argmax())
            score, score_of = total[identity], f"logit of class {identity}"
        else:
            score, score_of = network.embed(clip).norm(), "norm"
        features = _features(calls)
    gradients = torch.autograd.grad(score, features)
    if not logits and _is_constant(score, features, gradients):
        raise ConfigError(
            "Grad-CAM: this network has no classifier, and the norm of its embedding is the same "
            "for every image. Add a second image: --compare FILE"
        )
    return GradCam(float(score.detach()), score_of, _cams(features, gradients))


def grad_cam_pair(network: ReidModel, first: Tensor, second: Tensor) -> tuple[GradCam, GradCam]:
    """Grad-CAM of the cosine of two embeddings, for each of the two.

    Args:
        first, second: [1, T, 3, H, W]; the numbers of frames may differ.
    Raises:
        ConfigError: both have the same embedding, where the cosine has no gradient.
    """
    embeddings, features = [], []
    for clip in (first, second):
        with record(_last_modules(network)) as calls:
            embeddings.append(network.embed(clip.clone().requires_grad_()))
            features.append(_features(calls))
    cosine = F.cosine_similarity(embeddings[0], embeddings[1])[0]
    gradients = torch.autograd.grad(cosine, [*features[0], *features[1]])
    if _is_constant(cosine, [*features[0], *features[1]], gradients):
        raise ConfigError(
            "Grad-CAM: both images have the same embedding. Pass another image to --compare"
        )
    count = len(features[0])
    score = float(cosine.detach())
    return (
        GradCam(score, "cosine", _cams(features[0], gradients[:count])),
        GradCam(score, "cosine", _cams(features[1], gradients[count:])),
    )


def _last_modules(network: ReidModel) -> dict[str, nn.Module]:
    """The modules whose outputs are pooled: the trunk, and the other branches of CAMA."""
    modules: dict[str, nn.Module] = {**modules_of(network, Trunk)}
    if isinstance(network, CAMA):
        modules |= {f"branch {k}": branch for k, branch in enumerate(network.branches, 2)}
    return modules


def _features(calls: Mapping[str, Call]) -> list[Tensor]:
    """The last maps of each branch, [1, T, C, h, w] of the trunk and [T, C, h, w] of others."""
    outputs = (call.output for call in calls.values())
    return [out.maps[-1] if isinstance(out, TrunkOutput) else out for out in outputs]


def _cams(features: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """ReLU of the channels' sum, each weighted by its mean gradient over positions."""
    cams = []
    for A, gradient in zip(features, gradients, strict=True):
        weights = gradient.mean((-2, -1), keepdim=True)
        cam = (weights * A).sum(-3).relu().detach()
        cams.append(cam.reshape(-1, *cam.shape[-2:]))  # [T, h, w]
    return tuple(cams)


def _is_constant(score: Tensor, features: Sequence[Tensor], gradients: Sequence[Tensor]) -> bool:
    change = sum(
        float((A * g).abs().sum().detach()) for A, g in zip(features, gradients, strict=True)
    )
    return change < CONSTANT * abs(float(score.detach()))


def _cells(
    inputs: FigureInputs, subject: Subject, cam: GradCam, t: int
) -> list[Image.Image | None]:
    """The picture of a frame and its maps; empty where the clip has fewer frames."""
    if t >= len(subject.frames):
        return [None] * (1 + len(cam.maps))
    picture = inputs.pictures(subject)[t]
    maps = [heat_map(picture, found[t], low=0, high=float(found.max())) for found in cam.maps]
    return [picture, *maps]


def _score_text(cam: GradCam) -> str:
    return f"{cam.score_of} {cam.score:.3g}"
