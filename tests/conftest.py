"""Small data that many tests share: drawn once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.synthetic import LAYOUTS


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 training and 5 test people in the Market-1501 layout, with label maps."""
    root = tmp_path_factory.mktemp("synthetic") / "market"
    LAYOUTS["market1501"](root, train_pids=6, test_pids=5, seed=1, workers=1)
    return root


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Three training and three test people in the layout that is asked for, drawn once."""
    base = tmp_path_factory.mktemp("layouts")

    def draw(layout: str) -> Path:
        if not (base / layout).exists():
            LAYOUTS[layout](base / layout, train_pids=3, test_pids=3, seed=1, workers=1)
        return base / layout

    return draw
