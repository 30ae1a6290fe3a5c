"""Backbones: sizes of their feature maps, parameter names, and blocks in both families."""

import pytest
import torch
import torchvision

from reidkit.models.backbone import build_backbone
from reidkit.models.weights import load_imagenet
from reidkit.registry import get_arch

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "googlenet")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("size", [(256, 128), (100, 52), (67, 33)])
def test_the_size_of_every_feature_map_is_known_in_advance(name, last_stride, size):
    with torch.device("meta"):
        backbone = build_backbone(name, last_stride=last_stride).eval()
        x = backbone.stem(torch.zeros(1, 3, *size))
        for stage in (1, 2, 3, 4):
            for unit, channels in zip(
                backbone.units(stage), backbone.unit_channels(stage), strict=True
            ):
                x = unit(x)
                assert x.shape[1] == channels
            assert tuple(x.shape[2:]) == backbone.map_size(stage, size)


def test_feature_maps_have_the_papers_sizes_and_channels():
    with torch.device("meta"):
        backbone = build_backbone("resnet50")
    sizes = [backbone.map_size(stage, (256, 128)) for stage in (1, 2, 3, 4)]
    assert sizes == [(64, 32), (32, 16), (16, 8), (16, 8)]
    assert [backbone.channels(stage) for stage in (1, 2, 3, 4)] == [256, 512, 1024, 2048]


@pytest.mark.parametrize("name", NAMES)
def test_parameter_names_are_torchvisions(name):
    with torch.device("meta"):
        ours = build_backbone(name).state_dict()
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        theirs = getattr(torchvision.models, name)(weights=None, **options).state_dict()
    expected = {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.items()} == expected


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_with_a_last_stride_of_2_outputs_equal_torchvisions(name, tmp_path):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    if name == "googlenet":
        options["transform_input"] = True
    theirs = getattr(torchvision.models, name)(weights=None, **options).train()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # realistic statistics, or activations would vanish
        theirs(torch.randn(4, 3, 96, 64))
    theirs.eval()
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)
    spec = get_arch("baseline")
    config = spec.config(backbone=name, last_stride=2, head="plain")
    model = spec.build(config, num_ids=0, input_size=(96, 64)).eval()
    load_imagenet(model, str(path))
    x = torch.randn(2, 3, 96, 64)
    theirs.fc = torch.nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(model.embed(x), theirs(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("arch", ["iaunet", "ianet", "rga-sc", "nl", "fc-s//c", "pcb-iau", "cama"])
@pytest.mark.parametrize("placement", ["after", "before"])
def test_blocks_work_in_googlenet(arch, placement):
    spec = get_arch(arch)
    options = {"backbone": "googlenet"}
    if "placement" in spec.config.__dataclass_fields__:
        options["placement"] = placement
    with torch.device("meta"):
        model = spec.build(spec.config(**options), num_ids=3, input_size=spec.input_size).eval()
        output = model(torch.zeros(2, 3, *spec.input_size))
    assert output.logits[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("placement", "keys"),
    [
        ("after", ["stage2", "stage3"]),
        ("before", ["stage2_2", "stage3_4"]),
        ("every", [f"stage2_{i}" for i in range(3)] + ["stage2"]),
    ],
)
def test_placement_sets_the_positions_of_blocks(placement, keys):
    spec = get_arch("ianet")
    with torch.device("meta"):
        model = spec.build(spec.config(placement=placement), num_ids=0, input_size=(256, 128))
    found = list(model.trunk.blocks)
    assert found[: len(keys)] == keys
    assert len(found) == (10 if placement == "every" else 2)
