"""Every setting is described, from the dataclass that defines it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reidkit.config import known_keys, load_run_config, to_table
from reidkit.config.describe import (
    Setting,
    arch_settings,
    find_settings,
    run_settings,
    settings_page,
)
from reidkit.errors import ConfigError
from reidkit.registry import get_arch, list_archs

DOCS = Path(__file__).parents[2] / "docs"


def one(key: str) -> Setting:
    (found,) = find_settings(key)
    return found


def test_every_key_that_can_be_set_is_listed_with_a_meaning() -> None:
    options = arch_settings()
    for arch in list_archs():
        expected = set(known_keys(get_arch(arch).config))
        own = {s.key for s in options if arch in s.archs}
        assert {s.key for s in run_settings()} | own == expected
    without = [s.key for s in [*run_settings(), *options] if not s.meaning]
    assert without == []


def test_a_setting_has_the_type_choices_and_default_of_its_field() -> None:
    kind = one("sampler.kind")
    assert (kind.type, kind.choices, kind.default) == (
        "choice",
        ("groups", "pk", "shuffle"),
        "groups",
    )
    assert one("schedule.milestones").type == "list of whole numbers"
    assert one("input.mean").meaning == one("input.std").meaning
    table = to_table(load_run_config([]))
    for setting in run_settings():
        inner = table
        *parents, name = setting.key.split(".")
        for parent in parents:
            inner = inner[parent]
        assert setting.default == inner[name]


def test_a_key_names_a_setting_a_table_or_every_setting_of_that_name() -> None:
    assert one("optim.lr") == one("lr")
    assert {s.key.partition(".")[0] for s in find_settings("optim")} == {"optim"}
    assert {s.key for s in find_settings("stages")} == {"arch.stages"}
    archs = [arch for s in find_settings("arch.stages") for arch in s.archs]
    assert len(archs) == len(set(archs)) and "iaunet" in archs
    with pytest.raises(ConfigError, match=r"Did you mean optim\.lr\?"):
        find_settings("optim.l")


def test_the_documentation_of_the_settings_is_up_to_date() -> None:
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == settings_page(), "run: reidkit settings --markdown > docs/settings.md"


def test_settings_are_shown_without_importing_torch() -> None:
    code = (
        "import sys\nfrom reidkit.cli import main\ntry:\n    main(['settings', 'optim.lr'])\n"
        "except SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("optim.lr = 0.00035    number\n")
    assert done.stdout.endswith("False\n")
