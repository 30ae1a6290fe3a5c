"""Small weights files in the formats of other projects: every tensor is one number, expanded.

Names and shapes are those of the projects' networks with ten classes.
"""

import functools

import numpy as np
import torch
import torchvision

STATS = ("weight", "bias", "running_mean", "running_var")


def batch_norm(name, channels):
    return {f"{name}.{stat}": (channels,) for stat in STATS} | {f"{name}.num_batches_tracked": ()}


def conv(name, out, into, *, dims=2, bias=True):
    shapes = {f"{name}.weight": (out, into, *(1,) * dims)}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def linear(name, out, into, *, bias=True):
    return conv(name, out, into, dims=0, bias=bias)


@functools.cache
def _resnet50():
    with torch.device("meta"):
        state = torchvision.models.resnet50(weights=None).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def resnet50(prefix=""):
    return {prefix + name: s for name, s in _resnet50().items() if not name.startswith("fc.")}


def iaunet():
    shapes = resnet50() | batch_norm("bn", 2048) | linear("classifier", 10, 2048)
    for stage, C in ((2, 512), (3, 1024)):
        shapes |= iau_block(f"IAU{stage}.", C, attention="sa", exchange="SIAU", dims=2)
    return shapes


def iaunet_video():
    shapes = resnet50() | batch_norm("bn", 2048) | linear("classifier", 10, 2048)
    return shapes | iau_block("IAU2.", 512, attention="SA", exchange="STIAU", dims=3)


def iau_block(prefix, C, *, attention, exchange, dims):
    shapes = {}
    shapes |= conv(f"{attention}.conv.conv", 4, C, dims=dims)
    shapes |= batch_norm(f"{attention}.conv.bn", 4)
    shapes |= conv("g", C // 2, C)
    shapes |= conv(f"{exchange}.module_w.relation.0", 1, C)
    shapes |= batch_norm(f"{exchange}.module_w.relation.1", 1)
    shapes |= conv(f"{exchange}.module_l.fsm.0", C // 2, C)
    shapes |= batch_norm(f"{exchange}.module_l.fsm.1", C // 2)
    for name in ("W1", "W2"):
        shapes |= conv(f"{name}.0", C, C, dims=dims) | batch_norm(f"{name}.1", C)
    return {prefix + name: shape for name, shape in shapes.items()}


def ianet():
    shapes = resnet50() | batch_norm("bn", 2048) | linear("classifier", 10, 2048)
    for name, C in (("layer2.4", 512), ("layer3.6", 1024)):
        shapes |= batch_norm(f"{name}.W1", C) | batch_norm(f"{name}.W2", C)
    return shapes


def rga(kinds):
    shapes = resnet50("backbone.")
    for stage, C, N in ((1, 256, 2048), (2, 512, 512), (3, 1024, 128), (4, 2048, 128)):
        for kind, D, nodes in (("spatial", C, N), ("channel", N, C)):
            if kind not in kinds:
                continue
            name = f"backbone.rga_att{stage}."
            for what in ("theta", "phi", "gx"):
                shapes |= conv(f"{name}{what}_{kind}.0", D // 8, D, bias=False)
                shapes |= batch_norm(f"{name}{what}_{kind}.1", D // 8)
            width = 1 + nodes // 8
            shapes |= conv(f"{name}gg_{kind}.0", nodes // 8, 2 * nodes, bias=False)
            shapes |= batch_norm(f"{name}gg_{kind}.1", nodes // 8)
            shapes |= conv(f"{name}W_{kind}.0", width // 8, width, bias=False)
            shapes |= batch_norm(f"{name}W_{kind}.1", width // 8)
            shapes |= conv(f"{name}W_{kind}.3", 1, width // 8, bias=False)
            shapes |= batch_norm(f"{name}W_{kind}.4", 1)
    return shapes | batch_norm("feat_bn", 2048) | linear("cls", 10, 2048, bias=False)


def pfsa():
    shapes = resnet50("base.") | linear("base.fc", 1000, 2048)
    shapes |= conv("local_conv", 256, 2048, bias=False) | batch_norm("feat_bn2d", 256)
    for stage, C in ((1, 256), (2, 512), (3, 1024)):
        shapes |= conv(f"local_conv_layer{stage}", 256, C, bias=False)
        shapes |= linear(f"instance_layer{stage}", 10, 256)
    for part in range(7):
        shapes |= linear(f"instance{part}", 10, 256)
    return shapes | {"fusion_conv.weight": (1, 4, 1)}


def torchreid_fc512():
    shapes = resnet50() | linear("fc.0", 512, 2048) | batch_norm("fc.1", 512)
    return shapes | linear("classifier", 10, 512)


def torchvision_resnet50():
    return dict(_resnet50())


def filled(shapes, *, counters=True):
    """A state dict in which tensor k is (k + 1) / 1000 everywhere and takes one number on disk."""
    state = {}
    for index, (name, shape) in enumerate(shapes.items()):
        if name.endswith("num_batches_tracked"):
            if counters:
                state[name] = torch.tensor(7)
            continue
        state[name] = torch.tensor((index + 1) / 1000).expand(shape)
    return state


def write(path, state, *, module=False, wrapper=None, zipped=True):
    if module:
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    content = state if wrapper is None else {"state_dict": state, **wrapper}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def rank1():
    """The type of numpy's mean: not a Python number."""
    return np.float32(0.95)
