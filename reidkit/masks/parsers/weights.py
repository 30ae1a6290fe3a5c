"""From a published checkpoint to its network. Every tensor of the network needs one in the file,
and every tensor in the file has a place in the network or a reason to be ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reidkit.errors import CheckpointError
from reidkit.files import check_regular
from reidkit.masks.parsers.jppnet import JppNet
from reidkit.masks.parsers.schp import Schp
from reidkit.masks.parsers.tensorflow_checkpoint import TensorFlowCheckpoint
from reidkit.models.weights import read_tensors

SCHP_FILES = {
    20: ("schp-lip", "exp-schp-201908261155-lip.pth"),
    18: ("schp-atr", "exp-schp-201908301523-atr.pth"),
    7: ("schp-pascal", "exp-schp-201908270938-pascal-person-part.pth"),
}
"""Number of classes -> parser and the file that its authors publish."""
JPPNET_FOLDER = "JPPNet-s2"

SCHP_EPSILON = 1e-5
"""SCHP's batch normalisation multiplies by |weight| + epsilon instead of by its weight."""
SCHP_UNUSED = re.compile(
    r"(decoder\.conv4|edge\.conv4|edge\.conv5)\..*"  # the heads that only training reads
    r"|.*\.num_batches_tracked"
)
JPPNET_UNUSED = re.compile(
    r"fc3_pose/.*"  # a head that only training and pose estimation read
    r"|.*/Momentum(_\d+)?"  # the optimizer's
    r"|global_step"
)

_JPPNET_MODULES = [
    (r"conv1\.0", r"conv1"),
    (r"conv1\.1", r"bn_conv1"),
    (r"stage\d\.(\w+)\.(\w+)\.0", r"res\1_\2"),
    (r"stage\d\.(\w+)\.(\w+)\.1", r"bn\1_\2"),
    (r"(fc1_human|res5d)\.(\w+)", r"\1_\2"),
    (r"(\w+)\.parsing_human\.(\d)", r"\1/parsing_human\2"),
    (r"(\w+)\.(\w+)", r"\1/\2"),
]
"""Our modules -> the authors' names."""
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


@dataclass(frozen=True)
class _Tensors:
    """The tensors of a file, in PyTorch's layout, before they are read."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


def load_schp(path: Path, num_classes: int) -> Schp:
    """SCHP with the weights of an authors' .pth file, in evaluation mode.

    Raises:
        CheckpointError: if the file is missing, is no SCHP checkpoint or one of another label
            set; if a tensor is missing, unknown or has another shape.
    """
    parser, file = SCHP_FILES[num_classes]
    if path.is_dir() or path.suffix == ".index":
        raise CheckpointError(
            f"{path}: {parser} takes the authors' {file}. For JPPNet's TensorFlow checkpoint use"
            " --parser jppnet"
        )
    check_regular(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected the authors' {file}")
    tensors = read_tensors(path)
    head = tensors.get("fushion.3.weight")
    if head is None or head.dim() != 4:
        raise CheckpointError(
            f"{path} is not an SCHP checkpoint: it has no fushion.3.weight of four dimensions."
            f" Pass the authors' {file}"
        )
    if len(head) != num_classes:
        other = SCHP_FILES.get(len(head))
        hint = f"Use --parser {other[0]}" if other else f"Pass the authors' {file}"
        raise CheckpointError(
            f"{path} has {len(head)} classes (fushion.3.weight), {parser} has {num_classes}. {hint}"
        )
    with torch.device("meta"):
        network = Schp(num_classes)
    names = {key: key for key in network.state_dict()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    source = _Tensors(path, shapes, lambda name: tensors[name].float())
    _load(network, names, source, unused=SCHP_UNUSED)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = module.weight.data.abs() + SCHP_EPSILON
    return network


def load_jppnet(path: Path) -> JppNet:
    """JPPNet with the weights of the authors' TensorFlow checkpoint, in evaluation mode.

    Args:
        path: the folder JPPNet-s2, the .index file in it, or the prefix of its files.

    Raises:
        CheckpointError: if there is no such checkpoint, or it is damaged or truncated; if a
            variable is missing, unknown or has another shape.
    """
    if path.suffix in (".pth", ".pt", ".safetensors"):
        raise CheckpointError(
            f"{path}: jppnet takes the authors' TensorFlow checkpoint, the folder {JPPNET_FOLDER}."
            " For SCHP's weights use --parser schp-lip, schp-atr or schp-pascal"
        )
    checkpoint = TensorFlowCheckpoint(path)
    with torch.device("meta"):
        network = JppNet()
    names = {key: jppnet_name(key) for key in network.state_dict()}
    shapes = {name: _torch_order(v.shape) for name, v in checkpoint.variables.items()}

    def read(name: str) -> Tensor:
        tensor = torch.from_numpy(checkpoint.read(name))
        return tensor.permute(_torch_order(range(tensor.dim()))).contiguous()

    _load(network, names, _Tensors(checkpoint.index, shapes, read), unused=JPPNET_UNUSED)
    return network


def jppnet_name(key: str) -> str:
    """The variable in the authors' checkpoint of a key of our state dict; keys that theirs lack
    (`num_batches_tracked`) are unchanged at their end."""
    module, _, tensor = key.rpartition(".")
    for ours, theirs in _JPPNET_MODULES:
        if match := re.fullmatch(ours, module):
            module = match.expand(theirs)
            break
    if module.startswith("bn"):
        tensor = _NORM.get(tensor, tensor)
    elif "/" in module:
        tensor = tensor[0]
    else:
        tensor = {"weight": "weights", "bias": "biases"}[tensor]
    return f"{module}/{tensor}"


def _load(
    network: nn.Module, names: Mapping[str, str], source: _Tensors, *, unused: re.Pattern[str]
) -> None:
    """Puts the tensors of `source` into a network on the meta device, and sets evaluation mode.

    Args:
        names: our key -> the file's name.
        unused: names in the file that the network does not need.
    """
    own = {
        key: tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    kind = type(network).__name__
    missing = [names[key] for key in own if names[key] not in source.shapes]
    known = {names[key] for key in own}
    extra = [name for name in source.shapes if name not in known and not unused.fullmatch(name)]
    wrong = [
        f"{names[key]} {list(source.shapes[names[key]])}, expected {list(shape)}"
        for key, shape in own.items()
        if names[key] in source.shapes and source.shapes[names[key]] != shape
    ]
    for found, problem in (
        (missing, "lacks"),
        (extra, "has unknown tensors"),
        (wrong, "has tensors of other shapes:"),
    ):
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise CheckpointError(
                f"{source.path} is not a checkpoint of {kind}: it {problem}"
                f" {', '.join(found[:3])}{more}"
            )
    state = {
        key: source.read(names[key]) if key in own else torch.zeros((), dtype=torch.long)
        for key in network.state_dict()
    }
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)


def _torch_order(sides: Sequence[int]) -> tuple[int, ...]:
    """Height, width, inputs, outputs -> PyTorch's outputs, inputs, height, width; other tensors
    keep their order."""
    sides = tuple(sides)
    return (sides[3], sides[2], sides[0], sides[1]) if len(sides) == 4 else sides
