"""reidkit settings."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.options import JsonOption
from reidkit.cli.output import print_json
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.config.describe import Setting


def settings(
    key: Annotated[
        str | None,
        typer.Argument(help="Setting or table, such as optim.lr or loss.", show_default="all"),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/settings.md, all settings in tables.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List settings with type, default and meaning.

    Defaults are those without a recipe. Change a setting by --set KEY=VALUE.

    \b
    Examples:
      reidkit settings
      reidkit settings optim
      reidkit settings arch.stages
    """
    from reidkit.config.describe import arch_settings, find_settings, run_settings, settings_page

    if markdown:
        if key is not None or json:
            raise ConfigError("--markdown prints all settings: leave out KEY and --json")
        print(settings_page(), end="")
        return
    found = find_settings(key) if key is not None else [*run_settings(), *arch_settings()]
    if json:
        print_json([setting.to_dict() for setting in found])
        return
    for setting in found:
        print_setting(setting)


def print_setting(setting: Setting) -> None:
    """Prints key and default, then type and meaning below."""
    from reidkit.config import toml_value

    kind = " | ".join(setting.choices) or setting.type
    print(f"{setting.key} = {toml_value(setting.default)}    {kind}")
    for text in (setting.meaning, ", ".join(setting.archs)):
        for line in textwrap.wrap(text, 92):
            print(f"    {line}")
