"""Parameters of every published configuration, to the last one."""

import pytest

from reidkit.registry import get_arch


def count(arch, *, num_ids=0, head=False, **options):
    """Trainable parameters and BN scales; without the head as the papers count them."""
    spec = get_arch(arch)
    model = spec.build(spec.config(**options), num_ids=num_ids, input_size=spec.input_size)
    counted = model if head else model.trunk
    return sum(parameter.numel() for parameter in counted.parameters())


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        ("baseline", {}, 23_508_032),
        ("iaunet", {"block": "stiau"}, 26_144_862),
        ("iaunet", {"block": "ciau"}, 24_823_360),
        ("iaunet", {}, 27_460_190),
        ("iaunet", {"placement": "before"}, 27_460_190),
        ("iaunet", {"block": "stiau", "stages": (2,)}, 24_037_455),
        ("iaunet", {"block": "ciau", "stages": (2,)}, 23_771_712),
        ("iaunet", {"stages": (2,)}, 24_301_135),
    ],
)
def test_iaunet_table_six(arch, options, expected):
    assert count(arch, **options) == expected


def test_iaunet_with_its_head_is_the_reference_class():
    assert count("iaunet", head=True) == 27_464_286
    assert count("iaunet", head=True, num_ids=751) == 29_003_085
