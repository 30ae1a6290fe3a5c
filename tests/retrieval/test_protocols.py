"""The list of protocols."""

from __future__ import annotations

from typing import get_args

from reidkit.choices import ProtocolName
from reidkit.retrieval import PROTOCOLS


def test_the_choices_of_the_command_line_are_the_protocols():
    assert set(get_args(ProtocolName)) == set(PROTOCOLS)
