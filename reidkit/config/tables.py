"""Strict TOML tables: read into dataclasses, merged, written back.

Strict means that an unknown key, a missing one or a value of the wrong type fails, with the place
and the nearest known key.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from reidkit.errors import ConfigError, suggest

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        ConfigError: if it is missing or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def from_table(cls: type[T], table: Mapping[str, Any], *, where: str) -> T:
    """A dataclass from a table: every key known, every value of its field's type.

    Fields may be bool, int, float (whole numbers count), str, Path, Literal, tuple, dict[str, ...],
    unions of these, and dataclasses.

    Raises:
        ConfigError: naming `where`, the key, and what was expected.
    """
    values = parse_values(cls, table, where=where)
    missing = [
        f.name
        for f in dataclasses.fields(cast(Any, cls))
        if f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing key {', '.join(missing)}")
    try:
        return cls(**values)
    except ConfigError as error:  # an impossible value, refused by the dataclass itself
        raise ConfigError(f"{where}: {error}") from error


def parse_values(cls: type, table: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The fields of `cls` that `table` gives, checked and converted; missing ones stay missing."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key}. {suggest(key, known)}")
    return {key: _value(hints[key], value, where=where, key=key) for key, value in table.items()}


def _value(hint: Any, value: Any, *, where: str, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    wrong = ConfigError(f"{where}: {key} must be {_describe(hint)}, got {value!r}")
    if hint is Any or (hint is types.NoneType and value is None):
        return value
    if origin in (types.UnionType, typing.Union):
        for option in args:
            try:
                return _value(option, value, where=where, key=key)
            except ConfigError:
                continue
        raise wrong
    if origin is Literal:
        if value not in args or type(value) not in {type(arg) for arg in args}:
            raise ConfigError(
                f"{where}: {key} must be one of {', '.join(map(str, args))}; got {value!r}"
            )
        return value
    if origin is tuple and isinstance(value, list | tuple):
        each = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        if len(each) != len(value):
            raise wrong
        return tuple(_value(h, v, where=where, key=key) for h, v in zip(each, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {k: _value(args[1], v, where=where, key=f"{key}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_table(cast(type, hint), value, where=f"{where}: {key}")
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise wrong


def _describe(hint: Any) -> str:
    args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        inner = _describe(args[0]).removeprefix("a ") + "s"
        return f"a list of {inner}" if args[1:] == (...,) else f"a list of {len(args)} {inner}"
    if dataclasses.is_dataclass(hint):
        return "a table"
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint, str(hint))


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The two tables as one; where both have a value, `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def nested(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """{"optim.lr": 1} -> {"optim": {"lr": 1}}."""
    table: dict[str, Any] = {}
    for key, value in pairs.items():
        *parents, last = key.split(".")
        inner = table
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{key}: {parent} is a value, not a table")
        inner[last] = value
    return table


def scalar(text: str) -> Any:
    """A value as TOML reads it; text that is not TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(table: Mapping[str, Any]) -> str:
    """TOML text of a table; values of None are left out."""
    lines: list[str] = []
    _write_table(table, (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _write_table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping) and v is not None}
    if path and (plain or not table):
        lines += ["", f"[{'.'.join(map(_toml_key, path))}]"]
    lines += [f"{_toml_key(k)} = {_toml_value(v)}" for k, v in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            _write_table(value, (*path, key), lines)


def _toml_key(key: str) -> str:
    bare = key.replace("-", "_").isalnum() or key.replace("-", "").replace("_", "").isalnum()
    return key if bare and key.isascii() else json.dumps(key, ensure_ascii=False)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    return repr(value)
