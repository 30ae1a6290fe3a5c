"""Settings of a training run, as frozen dataclasses; `layers` fills them.

`RunConfig` stops at `training.trainer`: functions below receive the values they use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from reidkit.errors import ConfigError
from reidkit.preprocess import Preprocess


@dataclass(frozen=True)
class ArchConfig:
    """`[arch]`: the architecture's name; every other key of the table is an option of its own."""

    name: str = "iaunet"
    options: Any = None  # an instance of the spec's config dataclass


@dataclass(frozen=True)
class AugmentConfig:
    """`[augment]`: what training does to an image, in this order: crop, flip, erase."""

    flip: float = 0.5
    crop: Literal["none", "translate", "pad"] = "none"
    crop_probability: float = 0.5
    crop_scale: float = 1.125  # translate: resize to size * crop_scale, then crop at random
    crop_padding: int = 0  # pad: so many black pixels on every side, then crop at random
    erase: float = 0.5
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)  # height / width, uniform
    erase_value: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)  # after normalisation
    erase_noise: bool = False  # N(0, 1) per pixel in place of erase_value

    def __post_init__(self) -> None:
        for name in ("flip", "crop_probability", "erase"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} must lie in [0, 1], got {value}")
        low, high = self.erase_area
        require(0 < low <= high < 1, f"erase_area must rise within (0, 1), got {low, high}")
        require(self.crop_scale >= 1, f"crop_scale must be >= 1, got {self.crop_scale}")
        require(self.crop_padding >= 0, f"crop_padding must be >= 0, got {self.crop_padding}")
        require(
            self.crop != "pad" or self.crop_scale == 1,
            f"crop = pad moves the image at its own size: set crop_scale to 1.0, got "
            f"{self.crop_scale}",
        )


@dataclass(frozen=True)
class ClipConfig:
    """`[clip]`: what training takes from a tracklet; images are not concerned.

    frames: of a clip. stride: frames from one to the next where the tracklet is long enough.
    """

    frames: int = 4
    stride: int = 8

    def __post_init__(self) -> None:
        require(self.frames > 0 and self.stride > 0, "frames and stride must be positive")


@dataclass(frozen=True)
class SamplerConfig:
    """`[sampler]`: how a batch is made.

    groups: each id's images shuffled and cut into groups of K, all groups shuffled (IAUnet).
    pk: every id once per epoch with K images (RGA). shuffle: plain (PFSA). `batch` is the global
    batch, however many processes share it.
    """

    kind: Literal["groups", "pk", "shuffle"] = "groups"
    batch: int = 64
    samples_per_id: int = 4

    def __post_init__(self) -> None:
        require(self.batch > 0, f"batch must be positive, got {self.batch}")
        require(
            self.kind == "shuffle" or self.batch % self.samples_per_id == 0,
            f"batch {self.batch} is not a multiple of samples_per_id {self.samples_per_id}",
        )


@dataclass(frozen=True)
class LossConfig:
    """`[loss]`: a weighted sum; a weight of 0 leaves the term out.

    identity: mean cross entropy of the main logits. parts_identity, deep: cross entropies of the
    stripe classifiers and of deep supervision, each summed over its classifiers (PFSA).
    triplet: batch hard. part_attention: binary cross entropy of part maps with the masks.
    overlap: how much the class activations of several branches cover each other (CAMA).
    """

    identity: float = 1.0
    smoothing: float = 0.1
    triplet: float = 1.0
    margin: float = 0.3
    soft_margin: bool = False
    distance: Literal["cosine", "euclidean"] = "cosine"
    part_attention: float = 0.5
    parts_identity: float = 0.0
    deep: float = 0.0
    overlap: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.smoothing < 1, f"smoothing must lie in [0, 1): {self.smoothing}")
        require(self.margin >= 0, f"margin must be >= 0, got {self.margin}")
        names = ("identity", "triplet", "part_attention", "parts_identity", "deep", "overlap")
        weights = [getattr(self, name) for name in names]
        require(min(weights) >= 0 and max(weights) > 0, "weights must be >= 0, one above 0")


@dataclass(frozen=True)
class OptimConfig:
    """`[optim]`: the optimiser. Backbone parameters learn at lr * backbone_factor.

    ema: decay of an exponential moving average of the weights, which is then what is judged and
    saved; 0 for none.
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: float = 3.5e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = True
    backbone_factor: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.ema < 1, f"ema must lie in [0, 1), got {self.ema}")
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(self.weight_decay >= 0, f"weight_decay must be >= 0: {self.weight_decay}")


@dataclass(frozen=True)
class ScheduleConfig:
    """`[schedule]`: the learning rate of each epoch.

    step: times gamma at each milestone. cosine: half a cosine over the epochs, per step. Both
    after a linear warm-up from warmup_lr over warmup_epochs.
    """

    epochs: int = 60
    kind: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (20, 40)
    gamma: float = 0.1
    warmup_epochs: int = 0
    warmup_lr: float = 0.0

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"epochs must be positive, got {self.epochs}")
        rising = list(self.milestones) == sorted(set(self.milestones))
        require(rising, f"milestones must rise, got {list(self.milestones)}")


@dataclass(frozen=True)
class TestConfig:
    """`[test]`: how an embedding is judged, and on whom.

    val_fraction: share of the training identities that are kept out of training to choose the best
    checkpoint by; 0 chooses by the test set, as the papers did.
    """

    __test__ = False  # not a test case, whatever pytest thinks of its name

    metric: Literal["cosine", "euclidean"] = "cosine"
    flip: bool = False  # add the mirrored image's embedding
    every: int = 10  # epochs between evaluations; 0: only after the last
    batch: int = 64
    val_fraction: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, f"val_fraction must lie in [0, 1): {self.val_fraction}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run, as config.toml in the run's folder records it."""

    arch: ArchConfig = field(default_factory=ArchConfig)
    input: Preprocess = field(default_factory=Preprocess)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    test: TestConfig = field(default_factory=TestConfig)
    weights: str = "auto"  # ImageNet weights of the backbone: auto (download), none, or a file
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False  # torch.compile of the network


def require(condition: bool, message: str) -> None:
    """Raises ConfigError(message) unless `condition` holds."""
    if not condition:
        raise ConfigError(message)
