"""Regular expressions from manifests and options, which must come to an end on every name.

Python's engine backtracks: `(a+)+b` takes 2^n steps on n letters a, and k repetitions that compete
for the same characters take n^k. An expression is therefore refused before it is used if, by its
syntax tree, a repeated group can match the same text in several ways, or more than `MAX_COMPETING`
repetitions compete. Expressions that are refused can be written with separators, or with the
possessive `++` and atomic `(?>...)` of Python 3.11, which do not backtrack.
"""

from __future__ import annotations

import functools
import importlib
import re
import warnings
from collections.abc import Sequence
from typing import Any

from reidkit.errors import ConfigError

MAX_COMPETING = 3
"""Repetitions that may compete for the same characters."""
MAX_NAME = 512
"""Characters of a name or path that is matched; file systems allow 255 in a name."""
MAX_EXPRESSION = 1000
"""Characters of an expression."""

_parser: Any = importlib.import_module("re._parser")  # the trees that `re` compiles

Characters = frozenset[int]
_OTHER = 256
"""Stands for all characters beyond Latin-1."""
_ALL: Characters = frozenset(range(_OTHER + 1))


class _Ambiguous(Exception):
    """The part of an expression that may take too long, in words."""


def compile_expression(text: str, *, where: str) -> re.Pattern[str]:
    """The compiled expression.

    Args:
        where: file and key, or option, that messages begin with.
    Raises:
        ConfigError: it is not a regular expression, or may take too long on some name.
    """
    if len(text) > MAX_EXPRESSION:
        raise ConfigError(
            f"{where} has {len(text):,} characters, expected an expression of at most "
            f"{MAX_EXPRESSION:,}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # [[ may mean something else one day
            compiled = re.compile(text)
            _check_sequence(_parser.parse(text), [])
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{where} {text!r} is not a regular expression: {error}") from error
    except _Ambiguous as error:
        raise ConfigError(
            f"{where} {text!r} may take too long to match: {error}. Put a separator between them, "
            "such as [^_]*_[^_]*, or make repetitions possessive: write *+ or ++"
        ) from error
    return compiled


def match_name(expression: re.Pattern[str], name: str) -> re.Match[str] | None:
    """The match of a whole name or path; none for one that is longer than `MAX_NAME`."""
    return expression.fullmatch(name) if len(name) <= MAX_NAME else None


def _check_sequence(items: Sequence[Any], competing: list[Characters]) -> list[Characters]:
    """The repetitions before and in a sequence that compete for what follows.

    Args:
        competing: characters of each repetition before it that may still give some back.
    """
    for operator, argument in items:
        competing = _check_item(str(operator), argument, competing)
    return competing


def _check_item(operator: str, argument: Any, competing: list[Characters]) -> list[Characters]:
    if operator in _SINGLE:
        return _separate(competing, _characters(operator, argument))
    if operator in ("MAX_REPEAT", "MIN_REPEAT"):
        return _check_repeat(argument[0], argument[1], argument[2], competing)
    if operator == "SUBPATTERN":
        return _check_sequence(argument[3], competing)
    if operator == "BRANCH":
        return _check_alternatives(argument[1], competing)
    if operator == "GROUPREF_EXISTS":
        return _check_alternatives([argument[1], argument[2] or []], competing)
    if operator in ("ASSERT", "ASSERT_NOT"):
        _check_sequence(argument[1], competing)
        return competing
    if operator == "ATOMIC_GROUP":  # gives nothing back, but what is inside may take long
        _check_sequence(argument, competing)
        return competing
    if operator == "POSSESSIVE_REPEAT":
        _check_sequence(argument[2], competing)
        return competing
    if operator == "GROUPREF" or operator == "AT":
        return competing
    raise _Ambiguous(f"it contains {operator.lower()}, which is not known to be harmless")


def _check_repeat(
    low: int, high: int, body: Sequence[Any], competing: list[Characters]
) -> list[Characters]:
    body = _without_groups(body)
    if high <= 1:
        return competing if high == 0 else _check_alternatives([body, []], competing)
    single = len(body) == 1 and str(body[0][0]) in _SINGLE
    if not single and not _is_delimited(body):
        raise _Ambiguous("a repeated group can match the same text in several ways")
    characters = _all_characters(body)
    first, content = body[0]
    if low > 0 and str(first) in _SINGLE:
        competing = _separate(competing, _characters(str(first), content))
    return competing if low == high and single else _compete(competing, characters)


def _check_alternatives(
    alternatives: Sequence[Sequence[Any]], competing: list[Characters]
) -> list[Characters]:
    """Also several alternatives compete: the engine tries each of them."""
    after = [_check_sequence(items, competing) for items in alternatives]
    characters = frozenset[int]().union(*map(_all_characters, alternatives))
    return _compete(max(after, key=len), characters)


def _compete(competing: list[Characters], characters: Characters) -> list[Characters]:
    competing = [*competing, characters]
    if sum(bool(other & characters) for other in competing) > MAX_COMPETING:
        raise _Ambiguous(f"more than {MAX_COMPETING} repetitions compete for the same characters")
    return competing


def _separate(competing: list[Characters], characters: Characters) -> list[Characters]:
    """Without the repetitions that can match none of the characters that must follow."""
    return [other for other in competing if other & characters]


def _without_groups(items: Sequence[Any]) -> list[Any]:
    """The items with those of plain groups in their place."""
    flat = []
    for item in items:
        flat += _without_groups(item[1][3]) if str(item[0]) == "SUBPATTERN" else [item]
    return flat


def _is_delimited(body: Sequence[Any]) -> bool:
    """Whether a repeated group matches any text in one way only: it has a fixed length, or begins
    or ends with a character that occurs nowhere else in it, and its repetitions share none."""
    if not body or not all(_is_plain(item) for item in body):
        return False
    varying = [k for k, (operator, _) in enumerate(body) if str(operator) not in _SINGLE]
    alone = [not _all_characters(body[k : k + 1]) & _others(body, k) for k in range(len(body))]
    ends = {0, len(body) - 1} - set(varying)
    return not varying or (all(alone[k] for k in varying) and any(alone[k] for k in ends))


def _others(items: Sequence[Any], number: int) -> Characters:
    return _all_characters([*items[:number], *items[number + 1 :]])


def _is_plain(item: Any) -> bool:
    """Whether an item is a character or a repetition of one."""
    operator, argument = str(item[0]), item[1]
    if operator in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        body = _without_groups(argument[2])
        return len(body) == 1 and str(body[0][0]) in _SINGLE
    return operator in _SINGLE


def _all_characters(items: Sequence[Any]) -> Characters:
    """Every character that items may contain; all, where that is not evident."""
    found: Characters = frozenset()
    for operator, argument in _without_groups(items):
        name = str(operator)
        if name in _SINGLE:
            found |= _characters(name, argument)
        elif name.endswith("_REPEAT"):
            found |= _all_characters(argument[2])
        elif name != "AT":
            return _ALL
    return found


_SINGLE = ("LITERAL", "NOT_LITERAL", "IN", "ANY", "RANGE", "CATEGORY")
_CATEGORIES = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}


def _characters(operator: str, argument: Any) -> Characters:
    """The characters that an item for one character matches, upper and lower case alike."""
    if operator == "LITERAL":
        return _folded(range(argument, argument + 1))
    if operator == "NOT_LITERAL":
        return _ALL - {argument} if argument < _OTHER else _ALL
    if operator == "RANGE":
        return _folded(range(argument[0], min(argument[1], _OTHER) + 1))
    if operator == "CATEGORY":
        return _category(str(argument).removeprefix("CATEGORY_"))
    if operator == "ANY":
        return _ALL
    sets = [_characters(str(name), value) for name, value in argument if str(name) != "NEGATE"]
    union = frozenset[int]().union(*sets)
    is_negated = str(argument[0][0]) == "NEGATE"
    return (_ALL - _exact(argument)) | {_OTHER} if is_negated else union


def _exact(argument: Any) -> Characters:
    """The characters that a set names, in this case only."""
    found: set[int] = set()
    for name, value in argument:
        if str(name) == "LITERAL":
            found.add(value)
        elif str(name) == "RANGE":
            found |= set(range(value[0], min(value[1], _OTHER) + 1))
        elif str(name) == "CATEGORY":
            found |= _category(str(value).removeprefix("CATEGORY_")) - {_OTHER}
    return frozenset(found)


def _folded(codes: range) -> Characters:
    both = {
        ord(other)
        for code in codes
        for other in (chr(code).lower(), chr(code).upper(), chr(code))
        if len(other) == 1
    }
    return frozenset(min(code, _OTHER) for code in both)


@functools.cache
def _category(name: str) -> Characters:
    negated = name.startswith("NOT_")
    known = re.compile(_CATEGORIES[name.removeprefix("NOT_").removeprefix("UNI_")])
    found = {code for code in range(_OTHER) if bool(known.match(chr(code))) != negated}
    return frozenset(found | {_OTHER})
