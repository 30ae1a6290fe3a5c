"""TOML tables: read, validated into dataclasses, merged, written back.

Validation is pydantic's, strict and without unknown keys; the messages are our own. pydantic is
imported where it is used, so that `reidkit --help` does not wait for it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from reidkit.errors import ConfigError, suggest
from reidkit.files import check_regular

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        ConfigError: if it is missing, or is not a regular file of TOML.
    """
    check_regular(path, ConfigError)
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # the latter: nested too deeply
        raise ConfigError(f"{path} is not TOML: {error}") from error


def to_toml(table: Mapping[str, Any]) -> str:
    """TOML text of a table; keys whose value is None are left out, paths become strings."""
    import tomli_w

    return tomli_w.dumps(_writable(table))


def _writable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _writable(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_writable(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def from_table(
    cls: type[T], table: Mapping[str, Any], *, where: str, known: Iterable[str] = ()
) -> T:
    """A dataclass from a table: every key known, every value of its field's type.

    Types are strict: neither "1" nor true is a whole number, but a whole number is a number. Arrays
    become tuples, strings paths and tables dataclasses.

    Args:
        where: file (and table) that messages begin with.
        known: keys to suggest for an unknown one; default: those of its table.
    Raises:
        ConfigError: naming `where`, the key, and what was expected; also one that the dataclass's
            own `__post_init__` raises.
    """
    from pydantic import ValidationError

    try:
        text = json.dumps(dict(table), default=str)  # JSON's types are TOML's, apart from dates
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error
    try:
        # Strict JSON takes an array for a tuple; strict Python objects would have to be tuples.
        value: T = _adapter(cast(Any, cls)).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise ConfigError(f"{where}: {_explain(cls, table, details, known)}") from error
    except ConfigError as error:  # an impossible value, refused by the dataclass itself
        raise ConfigError(f"{where}: {error}") from error
    return value


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _explain(
    cls: type, table: Mapping[str, Any], errors: Sequence[ErrorDetails], known: Iterable[str]
) -> str:
    """One line: the first unknown key, or else all missing ones, or else the first wrong value."""
    unknown = [e["loc"] for e in errors if e["type"] == "unexpected_keyword_argument"]
    if unknown:
        *parents, _ = unknown[0]
        keys = [
            ".".join(map(str, [*parents, name])) for name in field_types(_hint_at(cls, parents))
        ]
        key = ".".join(map(str, unknown[0]))
        return f"unknown key {key}. {suggest(key, [*known] or keys)}"
    if not errors[0]["loc"]:  # such as text that is not Unicode, or tables nested too deeply
        return f"cannot be read: {errors[0]['msg']}"
    missing = [e["loc"] for e in errors if isinstance(e["loc"][-1], str) and e["type"] == "missing"]
    if missing:
        return f"missing key {', '.join('.'.join(map(str, loc)) for loc in missing)}"
    return _wrong_value(cls, table, errors[0]["loc"])


def _hint_at(cls: Any, loc: Sequence[int | str]) -> Any:
    for part in loc:
        cls = _inner(cls, part)
    return _without_none(cls)


def _wrong_value(hint: Any, value: Any, loc: Sequence[int | str]) -> str:
    """The value at `loc` and what it should be. A location ends inside a value for the entries of
    a list of scalars and the alternatives of a union: then the whole value is named."""
    key = ""
    for part in loc:
        inner = _inner(hint, part)
        if inner is None:
            break
        hint, value = inner, value[part]
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    expected = in_words(hint)
    return f"{key} must be {expected}{';' if ',' in expected else ','} got {value!r}"


def _without_none(hint: Any) -> Any:
    """The type of a table that may be absent; any other type as it is."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    tables = [a for a in typing.get_args(hint) if is_union and dataclasses.is_dataclass(a)]
    return tables[0] if tables else hint


def _inner(hint: Any, part: int | str) -> Any:
    """The type of a table's entry; None where `part` does not lead into a table."""
    hint = _without_none(hint)
    if dataclasses.is_dataclass(hint):
        return field_types(hint).get(str(part))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is dict:
        return arguments[1]
    is_list_of_tables = typing.get_origin(hint) is tuple and dataclasses.is_dataclass(arguments[0])
    return arguments[0] if is_list_of_tables else None


def field_types(cls: Any) -> dict[str, Any]:
    """The type of every field of a dataclass, by name."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def in_words(hint: Any) -> str:
    """A type as messages name it: "a list of 2 numbers"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if arguments[1:] else repr(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return " or ".join(in_words(a) for a in arguments if a is not types.NoneType)
    if origin is tuple:
        entries = in_words(arguments[0]).removeprefix("a ") + "s"
        return f"a list of {'' if arguments[1] is ... else f'{len(arguments)} '}{entries}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a table"
    return _WORDS.get(hint, "a path" if hint is Path else str(hint))


def partial(name: str, types: Mapping[str, Any]) -> type:
    """A dataclass of these types with every key optional and no constraints, in inner tables too:
    what a single layer of settings may contain."""
    fields = []
    for key, hint in types.items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            hint = partial(hint.__name__, field_types(hint))
        fields.append((key, hint, None))
    return dataclasses.make_dataclass(name, fields)


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


def toml_value(value: Any) -> str:
    """A setting's value as TOML writes it on one line: `"sgd"`, `[20, 40]`, `true`."""
    return json.dumps(value)  # strings, numbers, booleans and lists of them look the same in JSON


def scalar(text: str) -> Any:
    """A value as TOML reads it; text that is not TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
