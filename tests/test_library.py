"""`import reidkit` offers the library's functions without importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import reidkit
from reidkit.errors import ConfigError


def test_every_public_name_can_be_used() -> None:
    assert all(callable(getattr(reidkit, name)) for name in reidkit.__all__)
    assert set(reidkit.__all__) <= set(dir(reidkit))
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = reidkit.serach


def test_importing_the_library_does_not_import_torch() -> None:
    code = "import sys, reidkit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_create_model_builds_a_network_by_name_and_options() -> None:
    model = reidkit.create_model(
        "baseline", num_ids=3, input_size=(64, 32), options={"backbone": "resnet18"}
    ).eval()
    with torch.inference_mode():
        assert model.embed(torch.zeros(2, 3, 64, 32)).shape == (2, 512)
    with pytest.raises(ConfigError, match="baseline options: unknown key backbon"):
        reidkit.create_model("baseline", options={"backbon": "resnet18"})
