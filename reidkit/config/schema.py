"""Settings of a training run as frozen dataclasses; `layers` fills them.

Only `training` sees a whole `RunConfig`: functions below it receive the values they use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from reidkit.choices import CropKind, Metric, Precision, SamplerKind
from reidkit.errors import ConfigError
from reidkit.preprocess import Preprocess


@dataclass(frozen=True)
class ArchConfig:
    """`[arch]`: the architecture's name; the table's other keys are the architecture's options.

    Attributes:
        name: architecture, see `reidkit models`.
        options: an instance of the spec's config dataclass.
    """

    name: str = "iaunet"
    options: Any = None


@dataclass(frozen=True)
class AugmentConfig:
    """`[augment]`: data augmentation in this order: crop, flip, erase.

    Attributes:
        flip: probability of a horizontal flip.
        crop: none, translate (resize to size * crop_scale, then crop at random), or pad (add
            crop_padding pixels on every side, then crop at random).
        crop_probability: probability of the crop.
        crop_scale: enlargement before the crop of "translate".
        crop_padding: black pixels added on every side before the crop of "pad".
        erase: probability of random erasing.
        erase_area: range of the erased share of the image, uniform.
        erase_aspect: range of height / width of the erased rectangle, uniform.
        erase_value: value of erased pixels, after normalisation.
        erase_noise: fill with N(0, 1) per pixel instead of erase_value.
    """

    flip: float = 0.5
    crop: CropKind = "none"
    crop_probability: float = 0.5
    crop_scale: float = 1.125
    crop_padding: int = 0
    erase: float = 0.5
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    erase_value: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
    erase_noise: bool = False

    def __post_init__(self) -> None:
        for name in ("flip", "crop_probability", "erase"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name} must lie in [0, 1], got {value}")
        low, high = self.erase_area
        require(
            0 < low <= high < 1,
            f"augment.erase_area must be two increasing numbers in (0, 1), got {[low, high]}",
        )
        require(self.crop_scale >= 1, f"augment.crop_scale must be >= 1, got {self.crop_scale}")
        require(
            self.crop_padding >= 0, f"augment.crop_padding must be >= 0, got {self.crop_padding}"
        )
        require(
            self.crop != "pad" or self.crop_scale == 1,
            f'augment.crop = "pad" needs augment.crop_scale = 1.0, got {self.crop_scale}',
        )


@dataclass(frozen=True)
class ClipConfig:
    """`[clip]`: training clips of tracklets; ignored for data sets of images.

    Attributes:
        frames: number of frames of a clip.
        stride: distance between consecutive frames of a clip, where the tracklet is long enough.
    """

    frames: int = 4
    stride: int = 8

    def __post_init__(self) -> None:
        for name in ("frames", "stride"):
            value = getattr(self, name)
            require(value > 0, f"clip.{name} must be positive, got {value}")


@dataclass(frozen=True)
class SamplerConfig:
    """`[sampler]`: how batches are composed.

    Attributes:
        kind: groups (each identity's images are shuffled and divided into groups of K, then all
            groups are shuffled; IAUnet), pk (every identity once per epoch with K images; RGA), or
            shuffle (every image once; PFSA).
        batch: global batch size, shared by all processes.
        samples_per_id: K, images per identity in a batch.
    """

    kind: SamplerKind = "groups"
    batch: int = 64
    samples_per_id: int = 4

    def __post_init__(self) -> None:
        require(self.batch > 0, f"sampler.batch must be positive, got {self.batch}")
        require(
            self.samples_per_id > 0,
            f"sampler.samples_per_id must be positive, got {self.samples_per_id}",
        )
        require(
            self.kind == "shuffle" or self.batch % self.samples_per_id == 0,
            f"sampler.batch must be a multiple of sampler.samples_per_id ({self.samples_per_id}), "
            f"got {self.batch}",
        )


@dataclass(frozen=True)
class LossConfig:
    """`[loss]`: weights and parameters of the losses (`losses.LOSSES`); a weight of 0 leaves a loss
    out.

    Attributes:
        identity: weight of the cross entropy of the main classifiers, their mean.
        smoothing: label smoothing of all cross entropies.
        triplet: weight of the batch-hard triplet loss.
        margin: margin of the triplet loss.
        soft_margin: use softplus in place of the margin in the triplet loss.
        distance: distance of the triplet loss.
        part_attention: weight of the binary cross entropy of part maps and part masks.
        parts_identity: weight of the cross entropy of the stripe classifiers, summed over them
            (PFSA).
        deep: weight of the cross entropy of deep supervision, summed over classifiers (PFSA).
        overlap: weight of the overlap of the class activation maps of several branches (CAMA).
    """

    identity: float = 1.0
    smoothing: float = 0.1
    triplet: float = 1.0
    margin: float = 0.3
    soft_margin: bool = False
    distance: Metric = "cosine"
    part_attention: float = 0.5
    parts_identity: float = 0.0
    deep: float = 0.0
    overlap: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.smoothing < 1, f"loss.smoothing must lie in [0, 1), got {self.smoothing}")
        require(self.margin >= 0, f"loss.margin must be >= 0, got {self.margin}")
        names = ("identity", "triplet", "part_attention", "parts_identity", "deep", "overlap")
        weights = {name: getattr(self, name) for name in names}
        for name, weight in weights.items():
            require(weight >= 0, f"loss.{name} must be >= 0, got {weight}")
        require(
            any(weights.values()),
            f"all loss weights are 0. Set one of loss.{', loss.'.join(names)}",
        )


@dataclass(frozen=True)
class OptimConfig:
    """`[optim]`: the optimiser.

    Attributes:
        name: optimiser.
        lr: learning rate.
        weight_decay: weight decay.
        momentum: momentum of SGD.
        nesterov: Nesterov momentum of SGD.
        backbone_factor: the backbone's learning rate is lr * backbone_factor.
        ema: decay of an exponential moving average of the weights, which is then evaluated and
            saved instead of the weights; 0 for none.
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: float = 3.5e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = True
    backbone_factor: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.ema < 1, f"optim.ema must lie in [0, 1), got {self.ema}")
        require(self.lr > 0, f"optim.lr must be positive, got {self.lr}")
        require(self.weight_decay >= 0, f"optim.weight_decay must be >= 0, got {self.weight_decay}")


@dataclass(frozen=True)
class ScheduleConfig:
    """`[schedule]`: the learning rate of each epoch.

    Attributes:
        epochs: number of epochs.
        kind: step (multiplied by gamma at each milestone), or cosine (half a cosine over the
            epochs, updated per step).
        milestones: epochs at which "step" lowers the learning rate.
        gamma: factor of the learning rate at each milestone.
        warmup_epochs: epochs of linear warm-up before the schedule; 0: none.
        warmup_lr: learning rate at the start of the warm-up.
        freeze_epochs: first epochs in which the backbone is not trained.
    """

    epochs: int = 60
    kind: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (20, 40)
    gamma: float = 0.1
    warmup_epochs: int = 0
    warmup_lr: float = 0.0
    freeze_epochs: int = 0

    def __post_init__(self) -> None:
        require(
            self.freeze_epochs >= 0,
            f"schedule.freeze_epochs must be >= 0, got {self.freeze_epochs}",
        )
        require(self.epochs > 0, f"schedule.epochs must be positive, got {self.epochs}")
        increasing = list(self.milestones) == sorted(set(self.milestones))
        require(increasing, f"schedule.milestones must be increasing, got {list(self.milestones)}")


@dataclass(frozen=True)
class EvalConfig:
    """`[test]`: evaluation during and after training.

    Attributes:
        metric: distance metric of the ranking.
        flip: add the embedding of the mirrored image.
        every: epochs between evaluations; 0: only after the last.
        batch: batch size.
        val_fraction: share of the training identities held out to choose the best checkpoint; 0
            chooses on the test set, as the papers do.
        patience: evaluations on held-out identities without a better score after which training
            stops; 0: never.
    """

    metric: Metric = "cosine"
    flip: bool = False
    every: int = 10
    batch: int = 64
    val_fraction: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        require(self.patience >= 0, f"test.patience must be >= 0, got {self.patience}")
        require(
            not self.patience or self.val_fraction > 0,
            "test.patience needs held-out identities, so that the test set does not end the run: "
            "set test.val_fraction (--val-fraction 0.1)",
        )
        require(
            0 <= self.val_fraction < 1,
            f"test.val_fraction must lie in [0, 1), got {self.val_fraction}",
        )


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a training run, as config.toml in the run's folder records it.

    Attributes:
        weights: ImageNet weights of the backbone: auto (download), none, or a file.
        init: checkpoint to start from, in place of ImageNet weights; empty: none.
        init_partial: start from those tensors of `init` that fit.
        seed: seed of weights, batches and augmentation.
        precision: number format of training; auto is bf16 where the device has it, else fp32.
        compile: run the network through torch.compile.
    """

    arch: ArchConfig = field(default_factory=ArchConfig)
    input: Preprocess = field(default_factory=Preprocess)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    test: EvalConfig = field(default_factory=EvalConfig)
    weights: str = "auto"
    init: str = ""
    init_partial: bool = False
    seed: int = 0
    precision: Precision = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed must be >= 0, got {self.seed}")


def require(condition: bool, message: str) -> None:
    """Raises ConfigError(message) unless `condition` holds."""
    if not condition:
        raise ConfigError(message)
