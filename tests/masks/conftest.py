from pathlib import Path

import numpy as np
import pytest
from toy_masks import draw_labels, make_dataset

from reidkit.masks.lip import default_grouping, load_label_set
from reidkit.types import Dataset


@pytest.fixture
def toy(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "toy")


@pytest.fixture
def draw():
    """Part indices 0..4 of a figure: draw(rng, (height, width))."""
    grouping = default_grouping(load_label_set("lip"))

    def part_map(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
        return grouping.part_map(draw_labels(rng, height=size[0], width=size[1]))

    return part_map
