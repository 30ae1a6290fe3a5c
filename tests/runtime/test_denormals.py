"""Denormal numbers are zero while a model runs, and only then."""

from __future__ import annotations

import platform
import sys

import numpy as np
import pytest

from reidkit.runtime.denormals import denormals_as_zero


def halved() -> float:
    """Half of the smallest normal number."""
    return float(np.full(64, np.finfo(np.float32).tiny) @ np.full(64, 0.5 / 64, np.float32))


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="only on x86-64 Linux"
)
def test_denormal_numbers_are_zero_within_the_block_alone() -> None:
    assert halved() > 0
    with denormals_as_zero():
        assert halved() == 0
        assert np.float32(3) * np.float32(0.5) == 1.5
    assert halved() > 0
    with pytest.raises(ZeroDivisionError), denormals_as_zero():
        _ = 1 / 0
    assert halved() > 0
