"""The commands that write files, each with small inputs."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .processes import run
from .small_models import NarrowResNet

RUN = ("--arch", "baseline", "--set", "arch.backbone=resnet18", "--size", "64x32", "--batch", "8")
CPU = ("--device", "cpu")


@dataclass(frozen=True)
class Command:
    """A command that writes files.

    Attributes:
        name: as on the command line of this package.
        arguments: of `reidkit`; "{inputs}" is the folder of inputs.
        start: what is in the working directory beforehand: paths there and, after them, in the
            folder of inputs.
        resume: arguments that complete what was interrupted, where the same ones refuse.
        history: names of files whose content before the end is that of an earlier time.
    """

    name: str
    arguments: tuple[str, ...]
    start: dict[str, str] = field(default_factory=dict)
    resume: tuple[str, ...] = ()
    history: tuple[str, ...] = ()

    @property
    def needs_model(self) -> bool:
        """Whether it reads the trained run or the index."""
        return any(word.startswith("{inputs}/run") for word in self.arguments) or any(
            source in ("run", "people.index") for source in self.start.values()
        )

    def arguments_in(self, inputs: Path, *, resume: bool = False) -> list[str]:
        """The arguments with the folder of inputs."""
        chosen = self.resume if resume else self.arguments
        return [argument.replace("{inputs}", str(inputs)) for argument in chosen]

    def prepare(self, inputs: Path, folder: Path) -> None:
        """Makes the working directory, with an empty folder `out`."""
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():  # the folder itself may be a mount point
            shutil.rmtree(path)
        (folder / "out").mkdir()
        for target, source in self.start.items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            copy: Callable[..., object] = (
                shutil.copytree if (inputs / source).is_dir() else shutil.copy2
            )
            copy(inputs / source, path)


def _train(name: str, *more: str) -> Command:
    arguments = ("train", "--dataset", "{inputs}/market", *RUN, "--epochs", "2", *CPU)
    arguments += ("--weights", "none", "--precision", "fp32", "-o", "out/run", *more)
    return Command(
        name,
        arguments,
        resume=("train", "--resume", "-o", "out/run"),
        history=(
            *("model.safetensors", "last.safetensors", "resume.pt", "train.log", "curves.png"),
            *("metrics.jsonl", "metrics.csv"),
        ),
    )


def _extract(suffix: str) -> Command:
    arguments = ("extract", "{inputs}/run", "--dataset", "{inputs}/market", *CPU)
    return Command(f"extract-{suffix}", (*arguments, "-o", f"out/features.{suffix}"))


def _visualize(kind: str, *options: str) -> Command:
    arguments = ("visualize", kind, "{inputs}/run", "--dataset", "{inputs}/market", *CPU, *options)
    return Command(f"visualize-{kind}", arguments, resume=(*arguments, "--overwrite"))


_INDEX_BUILD = ("build", "out/people.index", "{inputs}/market/query", "--model")
_INDEX_MODEL = "{inputs}/run/model.safetensors"
_INDEX = {"out/people.index": "people.index"}

COMMANDS = (
    Command(
        "datasets-synth",
        ("datasets", "synth", "out/data", "--train-pids", "2", "--test-pids", "2"),
    ),
    Command(
        "datasets-synth-workers",
        ("datasets", "synth", "out/data", "--train-pids", "16", "--test-pids", "4"),
    ),
    Command(
        "datasets-unpack",
        (
            *("datasets", "unpack", "market1501", "--archive", "{inputs}/market.zip"),
            *("--data-root", "out"),
        ),
    ),
    Command(
        "datasets-unpack-records",
        ("datasets", "unpack", "cifar100", "--data-root", "out"),
        start={"out/cifar-100-binary": "cifar-100-binary"},
    ),
    Command(
        "datasets-init",
        ("datasets", "init", "out/photos", "--cameras", r"_c(\d)"),
        start={"out/photos": "photos"},
    ),
    Command(
        "datasets-init-overwrite",
        ("datasets", "init", "out/photos", "--cameras", r"_c(\d)", "--overwrite"),
        start={
            "out/photos": "photos",
            "out/photos/data.csv": "old/data.csv",
            "out/photos/manifest.toml": "old/manifest.toml",
        },
    ),
    Command(
        "datasets-subset", ("datasets", "subset", "{inputs}/market", "--ids", "2", "-o", "out/part")
    ),
    Command(
        "prepare-masks",
        (
            *("prepare-masks", "--dataset", "{inputs}/market", "-o", "out/masks.h5"),
            *("--sheet", "out/sheet.png"),
        ),
    ),
    _train("train", "--workers", "0"),
    _train("train-workers", "--workers", "2"),
    Command(
        "eval",
        (
            *("eval", "out/run", "--dataset", "{inputs}/market", "--json", *CPU),
            *("--failures", "out/failures.csv"),
        ),
        start={"out/run": "run"},
    ),
    Command(
        "eval-out",
        ("eval", "{inputs}/run", "--dataset", "{inputs}/market", "-o", "out/results", *CPU),
    ),
    _extract("h5"),
    _extract("npz"),
    _extract("csv"),
    Command("export", ("export", "{inputs}/run", "--onnx", "-o", "out/model.onnx")),
    Command(
        "import",
        (
            *("import", "{inputs}/weights.pth", "--from", "torchvision", "--arch", "baseline"),
            *("--set", "arch.backbone=resnet18", "-o", "out/imported.safetensors"),
        ),
    ),
    Command(
        "index-build",
        ("index", *_INDEX_BUILD, _INDEX_MODEL, *CPU, "--batch", "4"),
        resume=("index", "add", *_INDEX_BUILD[1:], _INDEX_MODEL, *CPU, "--batch", "4"),
    ),
    Command(
        "index-add",
        ("index", "add", "out/people.index", "{inputs}/market/bounding_box_test", *CPU),
        start=_INDEX,
    ),
    Command(
        "index-remove", ("index", "remove", "out/people.index", "{inputs}/removed"), start=_INDEX
    ),
    Command(
        "index-expire",
        ("index", "expire", "out/people.index", "--before", "2001-01-01"),
        start=_INDEX,
    ),
    Command(
        "report",
        ("report", "out/run", "--dataset", "{inputs}/market", *CPU),
        start={"out/run": "run"},
    ),
    Command("report-card", ("report", "out/run", "--card"), start={"out/run": "run"}),
    _visualize(
        *("ranks", "--worst", "2", "--top", "4"),
        *("--png", "out/ranks.png", "--html", "out/ranks.html"),
    ),
    _visualize("attention", "--count", "2", "-o", "out/attention"),
    _visualize("embedding", "--png", "out/map.png", "--html", "out/map.html"),
)
"""Commands that print only (compare, settings, models, masks show) are not among them."""


def make_inputs(inputs: Path, commands: Sequence[Command]) -> None:
    """Generates what these commands read, by reidkit's own commands.

    Raises:
        RuntimeError: one of them failed.
    """

    def reidkit(*arguments: str) -> None:
        ended = run(arguments, inputs, inputs.parent / "log")
        if ended.status:
            raise RuntimeError(f"reidkit {' '.join(arguments)}: {ended.stderr}")

    inputs.mkdir(parents=True)
    reidkit("datasets", "synth", "market", "--train-pids", "3", "--test-pids", "2")
    _make_photos(inputs)
    _make_cifar(inputs / "cifar-100-binary")
    with zipfile.ZipFile(inputs / "market.zip", "w") as archive:
        for path in sorted((inputs / "market").rglob("*.jpg"))[:40]:
            archive.write(path, Path("Market-1501-v15.09.15", path.relative_to(inputs / "market")))
    torch.manual_seed(0)
    torch.save(NarrowResNet().state_dict(), inputs / "weights.pth")
    if any(command.needs_model for command in commands):
        reidkit(
            *("train", "--dataset", "market", *RUN, "--epochs", "1", "--weights", "none", *CPU),
            *("--precision", "fp32", "-o", "run", "--workers", "0"),
        )
        reidkit("eval", "run", "--dataset", "market", *CPU)
        _make_index(inputs, reidkit)


def _make_photos(inputs: Path) -> None:
    for path in sorted((inputs / "market" / "bounding_box_train").glob("*.jpg"))[:24]:
        target = inputs / "photos" / path.name[:4] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    (inputs / "old").mkdir()
    (inputs / "old" / "data.csv").write_text("split,path,pid\n")
    (inputs / "old" / "manifest.toml").write_text('name = "old"\n')


def _make_cifar(folder: Path) -> None:
    """Records of 10 training and 5 test images of 4 classes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 5)):
        records = rng.integers(0, 256, (count, 3074), np.uint8)
        records[:, :2] = np.arange(count)[:, None] % 4
        (folder / f"{split}.bin").write_bytes(records.tobytes())
    (folder / "fine_label_names.txt").write_text("apple\nbear\ncup\ndog\n")


def _make_index(inputs: Path, reidkit: Callable[..., None]) -> None:
    """An index of 13 images, some of the year 2000, some also in the folder `removed`."""
    images = sorted((inputs / "market" / "bounding_box_train").glob("*.jpg"))[:8]
    metadata = ["path,time", *(f"{path},2000-01-0{k + 1}" for k, path in enumerate(images[:3]))]
    (inputs / "metadata.csv").write_text("\n".join(metadata) + "\n")
    (inputs / "removed").mkdir()
    for path in images[3:6]:
        shutil.copy2(path, inputs / "removed" / path.name)
    reidkit(
        *("index", "build", "people.index", *map(str, images), str(inputs / "removed")),
        *("--model", "run/model.safetensors", *CPU, "--metadata", "metadata.csv"),
    )
