"""Closed choices agree with the registries and fields that they list."""

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest

from reidkit import choices
from reidkit.config import SamplerConfig
from reidkit.data import clips
from reidkit.data.sampler import epoch_batches
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch, list_archs
from reidkit.synthetic import LAYOUTS


def test_architectures_have_the_options_that_are_checked_without_torch() -> None:
    registered = {
        name: {field.name for field in dataclasses.fields(get_arch(name).config)}
        for name in list_archs()
    }
    assert {name: set(keys) for name, keys in choices.ARCH_OPTIONS.items()} == registered


def test_synthetic_layouts_are_the_registered_ones() -> None:
    assert sorted(get_args(choices.SyntheticLayout)) == sorted(LAYOUTS)


@pytest.mark.parametrize("kind", get_args(choices.SamplerKind))
def test_every_sampler_kind_makes_batches(kind: Any) -> None:
    assert epoch_batches([0] * 4 + [1] * 4, SamplerConfig(kind, 8), seed=0, epoch=0)


@pytest.mark.parametrize("rule", get_args(choices.ClipRule))
def test_every_clip_rule_gives_clips(rule: Any) -> None:
    assert clips.test_clips(9, T=4, rule=rule)


@pytest.mark.parametrize("name", get_args(choices.Interpolation))
def test_every_interpolation_resizes(name: Any) -> None:
    from PIL import Image

    image = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    assert Preprocess(size=(8, 4), interpolation=name).pixels(image).shape == (8, 4, 3)
