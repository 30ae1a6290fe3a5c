"""Small synthetic data sets that many tests share, rendered once per session."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reidkit.synthetic import LAYOUTS

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of pytest -n's processes and for those that its tests start; before torch
    # is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

for name in ("SIGINT", "SIGHUP"):
    # Ignored in a background job and by nohup; the tests send them.
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Files of tests need not outlast a power cut, and waiting for the disk takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 training and 5 test identities in Market-1501's layout, with label maps."""
    root = tmp_path_factory.mktemp("synthetic") / "market"
    LAYOUTS["market1501"](root, train_pids=6, test_pids=5, seed=1, workers=1)
    return root


@pytest.fixture(scope="session")
def synthetic_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Data sets of three training and three test identities, by layout."""
    base = tmp_path_factory.mktemp("layouts")

    def dataset(layout: str) -> Path:
        if not (base / layout).exists():
            LAYOUTS[layout](base / layout, train_pids=3, test_pids=3, seed=1, workers=1)
        return base / layout

    return dataset
