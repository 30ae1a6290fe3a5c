"""The images that int8 is calibrated on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.data.manifest import open_dataset
from reidkit.errors import ConfigError
from reidkit.export.calibration import training_crops
from reidkit.preprocess import Preprocess

SMALL = Preprocess(size=(32, 16))


def test_clips_are_the_first_ones_of_training_tracklets(
    synthetic_dataset: Callable[[str], Path],
) -> None:
    data = open_dataset(str(synthetic_dataset("mars")))
    clips = training_crops(data, SMALL, frames=4)
    assert len(clips) == len(data.train) and {clip.shape for clip in clips} == {(4, 32, 16, 3)}
    frames = training_crops(data, SMALL, frames=0)
    assert (frames[0] == clips[0][0]).all()


def test_single_images_are_no_clips(market: Path) -> None:
    data = open_dataset(str(market))
    assert len(training_crops(data, SMALL, frames=0)) == len(data.train)
    with pytest.raises(ConfigError, match="the network takes clips and it has single images"):
        training_crops(data, SMALL, frames=4)
