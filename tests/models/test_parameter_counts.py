"""Parameters (exactly) and multiply-adds of every published configuration."""

import pytest

from reidkit.models.cost import (
    TABLES,
    build_on_meta,
    count_parameters,
    measure,
    multiply_adds,
)
from reidkit.registry import get_arch


def built(arch, *, num_ids=0, **options):
    spec = get_arch(arch)
    return build_on_meta(spec, spec.config(**options), num_ids=num_ids)


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        ("baseline", {}, 23_508_032),
        ("nl", {}, 26_136_384),
        ("iaunet", {"block": "stiau"}, 26_144_862),
        ("se", {}, 23_673_504),
        ("iaunet", {"block": "ciau"}, 24_823_360),
        ("iaunet", {}, 27_460_190),
        ("iaunet", {"placement": "before"}, 27_460_190),
        ("iaunet", {"order": "parallel"}, 27_460_190),
        ("nl", {"stages": (2,)}, 24_034_624),
        ("iaunet", {"block": "stiau", "stages": (2,)}, 24_037_455),
        ("se", {"stages": (2,)}, 23_541_344),
        ("iaunet", {"block": "ciau", "stages": (2,)}, 23_771_712),
        ("iaunet", {"stages": (2,)}, 24_301_135),
        ("ianet", {}, 23_514_176),
        ("rga-s", {}, 23_508_032 + 3_223_800),
        ("rga-c", {}, 23_508_032 + 3_090_296),
        ("rga-sc", {}, 23_508_032 + 6_314_096),
        ("rga-cs", {}, 23_508_032 + 6_314_096),
        ("rga-s//c", {}, 23_508_032 + 6_314_096),
        ("rga-s", {"stages": (1,)}, 23_508_032 + 1_082_178),
        ("rga-s", {"stages": (2,)}, 23_508_032 + 164_898),
        ("rga-s", {"stages": (3,)}, 23_508_032 + 398_154),
        ("rga-s", {"stages": (4,)}, 23_508_032 + 1_578_570),
        ("rga-c", {"stages": (1,)}, 23_508_032 + 1_590_994),
        ("rga-c", {"stages": (2,)}, 23_508_032 + 164_898),
        ("rga-c", {"stages": (3,)}, 23_508_032 + 270_754),
        ("rga-c", {"stages": (4,)}, 23_508_032 + 1_063_650),
        ("pfsa", {}, 23_508_032),
        # 4 blocks in stage 2 and 6 in stage 3, each 4 C: IANet's stage23-c
        ("ianet", {"placement": "every"}, 23_508_032 + 4 * 2048 + 6 * 4096),
    ],
)
def test_parameters_of_backbone_and_blocks(arch, options, expected):
    assert count_parameters(built(arch, **options).trunk) == expected


@pytest.mark.parametrize(
    ("arch", "num_ids", "options", "expected"),
    [
        ("iaunet", 0, {}, 27_464_286),
        ("iaunet", 751, {}, 29_003_085),
        ("ianet", 0, {}, 23_518_272),
        ("ianet", 751, {}, 25_057_071),
        ("baseline", 751, {"head": "bnneck"}, 25_050_176),
        ("baseline", 767, {"head": "bnneck"}, 25_082_944),
        ("rga-s", 751, {}, 28_273_976),
        ("rga-s", 767, {}, 28_306_744),
        ("rga-c", 751, {}, 28_140_472),
        ("rga-c", 767, {}, 28_173_240),
        ("rga-sc", 751, {}, 31_364_272),
        ("rga-sc", 767, {}, 31_397_040),
        ("cbam-c", 751, {}, 26_447_136),
        ("fc-c", 751, {}, 26_443_776),
        ("fc-s", 751, {}, 26_869_760),
        ("pfsa", 751, {}, 26_731_926),
        ("pfsa", 751, {"deep_reduction": "conv", "deep_pooling": "mean"}, 26_421_654),
        ("iaunet-cifar", 100, {"stages": ()}, 23_508_032 - 64 * 3 * (49 - 9) + 2 * 2048 + 204_900),
    ],
)
def test_parameters_with_heads(arch, num_ids, options, expected):
    assert count_parameters(built(arch, num_ids=num_ids, **options)) == expected


@pytest.mark.parametrize("row", TABLES["iaunet-vi"], ids=lambda row: row.label)
def test_costs_are_those_of_iaunets_table_vi(row):
    found = measure(row)
    assert abs(found.measured_params / 1e6 - row.params) < 0.08
    assert abs(found.measured_macs / 1e9 - row.gmacs) <= (0.01 if row.frames == 1 else 0.03)


@pytest.mark.parametrize("row", TABLES["rga-3"], ids=lambda row: row.label)
def test_parameters_are_those_of_rgas_table_3(row):
    found = measure(row)
    if row.params is None:
        assert row.note
    elif row.note:  # the note says why the row differs
        assert abs(found.measured_params / 1e6 - row.params) > 0.05
    else:
        assert round(found.measured_params / 1e6, 1) == row.params


@pytest.mark.parametrize("row", TABLES["ianet-cost"], ids=lambda row: row.label)
def test_multiply_adds_are_those_of_ianet(row):
    assert abs(measure(row).measured_macs / 1e9 - row.gmacs) <= 0.01


@pytest.mark.parametrize(
    ("arch", "frames", "options", "gmacs"),
    [
        ("iaunet", 1, {}, 4.8690),
        ("iaunet", 4, {}, 25.9168),
        ("iaunet", 4, {"stages": (2,)}, 21.0589),
        ("ianet", 1, {}, 4.8921),
        ("ianet", 1, {"block": "sia"}, 4.3553),
        ("ianet", 1, {"block": "cia", "stages": (3,)}, 4.3217),
        ("rga-s", 1, {}, 6.762),
        ("rga-c", 1, {}, 7.116),
        ("rga-sc", 1, {}, 9.825),
    ],
)
def test_multiply_adds(arch, frames, options, gmacs):
    model = built(arch, **options)
    size = get_arch(arch).input_size
    assert abs(multiply_adds(model, size, frames=frames) / 1e9 - gmacs) < 6e-4
