"""Invalid options and input sizes are errors that name the valid ones."""

import pytest
import torch

from reidkit.config.tables import from_table
from reidkit.errors import ConfigError
from reidkit.registry import get_arch


def build(arch, size=None, **options):
    spec = get_arch(arch)
    config = from_table(spec.config, options, where="arch")
    with torch.device("meta"):
        return spec.build(config, num_ids=0, input_size=size or spec.input_size)


@pytest.mark.parametrize(
    ("arch", "options", "words"),
    [
        ("baseline", {"backbone": "resnet32"}, "backbone.*resnet18.*resnet34.*resnet50"),
        ("baseline", {"last_stride": 3}, "last_stride.*1.*2"),
        ("baseline", {"reduced": -1}, "reduced: found -1, expected 0 or more"),
        ("iaunet", {"stages": (2, 5)}, r"found \[2, 5\], expected different stages of 1, 2, 3, 4"),
        ("iaunet", {"stages": (2, 2)}, "different stages"),
        ("iaunet", {"order": "siau-ciau"}, "order.*ciau-stiau.*stiau-ciau.*parallel"),
        ("iaunet", {"embedding": "both"}, "embedding.*post-bn.*pre-bn"),
        ("ianet", {"contexts": (1, 7)}, "expected different sizes of 1 to 5"),
        ("ianet", {"contexts": ()}, "expected numbers above 0"),
        ("ianet", {"sigma_x": (1.0,)}, "found 1 numbers, expected 4"),
        ("ianet", {"variant": "released", "contexts": (1, 2)}, "only context 1"),
        ("rga-sc", {"own_feature": False, "relations": False}, "at least one true"),
        ("rga-sc", {"dropout": 1.0}, "expected 0 to below 1"),
        ("se", {"reduction": 1024, "backbone": "resnet18"}, "expected at most 128"),
        ("cama-iau", {"stages": (4,)}, "expected stages of 1, 2, 3"),
        ("pfsa", {"rescaling": "l2"}, "rescaling.*softmax.*l1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_options_are_refused(arch, options, words):
    with pytest.raises(ConfigError, match=words):
        build(arch, **options)


def test_rga_needs_at_least_56_positions_per_stage():
    with pytest.raises(ConfigError, match=r"128x64, a 8x4 map in stage 3.*at least 56 positions"):
        build("rga-sc", (128, 64))


@pytest.mark.parametrize("arch", ["pfsa", "pcb", "pcb-iau"])
def test_six_stripes_need_an_input_height_that_is_a_multiple_of_96(arch):
    with pytest.raises(ConfigError, match=r"256x128, a map 16 cells high.*multiple of 96"):
        build(arch, (256, 128))
    with pytest.raises(ConfigError, match="found a map 16 cells high"):
        build(arch).eval().embed(torch.zeros(1, 3, 256, 128, device="meta"))


def test_rga_refuses_images_of_another_size_than_it_was_built_for():
    with pytest.raises(ConfigError, match="found a map of 32x32, expected 64x32"):
        build("rga-s").eval().embed(torch.zeros(1, 3, 128, 128, device="meta"))


def test_images_of_three_dimensions_are_refused():
    with pytest.raises(ConfigError, match=r"found images of shape 3x64x32, expected \[B,3,H,W\]"):
        build("baseline").embed(torch.zeros(3, 64, 32, device="meta"))
