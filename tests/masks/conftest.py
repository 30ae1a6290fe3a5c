from pathlib import Path

import pytest
from toy_masks import make_dataset

from reidkit.types import Dataset


@pytest.fixture
def toy(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "toy")
