"""Descriptions of the settings, read from the dataclasses that define them.

Type, choices and default are those of the fields; the meaning is the entry in the `Attributes:`
section of the class's docstring.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reidkit.config.schema import RunConfig
from reidkit.config.tables import field_types, in_words, toml_value
from reidkit.errors import ConfigError
from reidkit.registry import get_arch, list_archs

ARCH = "arch"
"""The table whose keys, apart from its name, belong to one architecture."""


@dataclass(frozen=True)
class Setting:
    """One setting of a training run.

    Attributes:
        key: as written after `--set`, such as "optim.lr".
        type: in words, such as "list of whole numbers"; "choice" for a closed set.
        choices: the values of a closed set.
        default: before any recipe.
        meaning: one or two sentences.
        archs: architectures that have this option; empty: it does not depend on them.
    """

    key: str
    type: str
    choices: tuple[str, ...]
    default: Any
    meaning: str
    archs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The key without its table."""
        return self.key.rpartition(".")[2]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def describe(config: type, table: str) -> list[Setting]:
    """The settings of one dataclass, in its order.

    Args:
        table: the table of their keys; "" for keys without one.
    """
    meanings, defaults = _meanings(config), config()
    settings = []
    for name, hint in field_types(config).items():
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        settings.append(
            Setting(
                key=f"{table}.{name}" if table else name,
                type="choice" if choices else in_words(hint).removeprefix("a "),
                choices=tuple(map(str, choices)),
                default=getattr(defaults, name),
                meaning=meanings.get(name, ""),
            )
        )
    return settings


def run_settings() -> list[Setting]:
    """The settings that do not depend on the architecture, `arch.name` first. Imports no torch."""
    tables = {
        name: hint
        for name, hint in field_types(RunConfig).items()
        if dataclasses.is_dataclass(hint)
    }
    found = [
        setting
        for table, config in tables.items()
        for setting in describe(typing.cast(type, config), table)
        if setting.key != f"{ARCH}.options"
    ]
    return found + [s for s in describe(RunConfig, "") if s.name not in tables]


def arch_settings() -> list[Setting]:
    """The options of all architectures. One that several share by name, type, default and meaning
    is listed once; imports torch."""
    shared: dict[Setting, list[str]] = {}
    for arch in list_archs():
        for setting in describe(get_arch(arch).config, ARCH):
            shared.setdefault(setting, []).append(arch)
    settings = [dataclasses.replace(s, archs=tuple(archs)) for s, archs in shared.items()]
    return sorted(settings, key=lambda setting: setting.key)


def find_settings(key: str) -> list[Setting]:
    """The settings that a key names: one ("optim.lr"), a table ("optim"), or all of a name ("lr").

    An option of architectures has one entry for each of its variants. torch is imported only if no
    other setting has that key.

    Raises:
        ConfigError: there is no such key; names the nearest.
    """

    def matches(setting: Setting) -> bool:
        return key in (setting.key, setting.name) or setting.key.startswith(f"{key}.")

    known = run_settings()
    found = [setting for setting in known if matches(setting)]
    if not found or key == ARCH:
        known += arch_settings()
        found = [setting for setting in known if matches(setting)]
    if not found:
        nearest = difflib.get_close_matches(key, [setting.key for setting in known], n=1)
        advice = f"Did you mean {nearest[0]}? " if nearest else ""
        raise ConfigError(f"unknown setting {key}. {advice}List all: reidkit settings")
    return found


def settings_page() -> str:
    """docs/settings.md: every setting in Markdown."""
    settings = run_settings()
    sections = [_INTRODUCTION]
    for table in dict.fromkeys(_table_of(setting) for setting in settings):
        rows = [setting for setting in settings if _table_of(setting) == table]
        sections += [f"## {f'`[{table}]`' if table else 'Without a table'}", _rows(rows)]
        if table == ARCH:
            sections += [
                "The other keys of `[arch]` are options, which belong to one architecture each:",
                _rows(arch_settings()),
            ]
    return "\n\n".join(sections) + "\n"


_INTRODUCTION = """# Settings

This page is the output of `reidkit settings --markdown`. Every setting can be changed by `--set
KEY=VALUE`, in a TOML file with `--config`, or by an environment variable such as
`REIDKIT_OPTIM__LR=3e-4`. Later ones win: defaults, recipe, file, environment, `--set`, flags. The
defaults here are those without a recipe; `reidkit/config/presets/*.toml` are the recipes."""


def _table_of(setting: Setting) -> str:
    return setting.key.rpartition(".")[0]


def _rows(settings: Sequence[Setting]) -> str:
    has_archs = any(setting.archs for setting in settings)
    header = ["setting", "type", "default", "meaning", *(["architectures"] if has_archs else [])]
    lines = [header, ["---"] * len(header)]
    for setting in settings:
        kind = ", ".join(f"`{choice}`" for choice in setting.choices) or setting.type
        cells = [f"`{setting.key}`", kind, f"`{toml_value(setting.default)}`", setting.meaning]
        if has_archs:
            cells.append(", ".join(f"`{arch}`" for arch in setting.archs))
        lines.append([cell.replace("|", "\\|") for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _meanings(config: type) -> dict[str, str]:
    """Meaning of each field, from the `Attributes:` sections of the class and its bases. One entry
    may describe several fields ("mean, std: ...")."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
        for names, text in re.findall(
            r"^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", section, re.MULTILINE
        ):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
