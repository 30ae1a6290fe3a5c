"""Small data that many tests share: drawn once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from reidkit.synthetic import LAYOUTS


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 training and 5 test people in the Market-1501 layout, with label maps."""
    root = tmp_path_factory.mktemp("synthetic") / "market"
    LAYOUTS["market1501"](root, train_pids=6, test_pids=5, seed=1, workers=1)
    return root
