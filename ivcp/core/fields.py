"""Checks a dataclass's values against its annotations: a mistake is named where it is made."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import types
from collections.abc import Collection, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ivcp.core.errors import UserError

NOT_MINE = object()
"""What `_fitted` gives for a value that its annotation does not allow."""


def check_fields(record: Any) -> None:
    """Check the fields of a frozen dataclass; numpy numbers become Python's, lists become tuples.

    Annotations other than numbers, texts, truth values, `Literal`, tuples of them and `None` are
    left to the class.

    Raises:
        UserError: A value has another type than its field.
    """
    hints = _hints(record.__class__)
    for field in dataclasses.fields(record):
        value, hint = getattr(record, field.name), hints.get(field.name, Any)
        fitted = _fitted(value, hint)
        if fitted is NOT_MINE:
            raise UserError(f"{field.name} must be {_described(hint)}; got {value!r}.")
        if fitted is not value:
            object.__setattr__(record, field.name, fitted)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except NameError:  # a name that only a type checker imports
        return {}


def _fitted(value: Any, hint: Any) -> Any:
    """The value as Python's own type, or `NOT_MINE`."""
    if hint is Any:
        return value
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = (_fitted(value, option) for option in options)
        return next((one for one in found if one is not NOT_MINE), NOT_MINE)
    if origin is Literal:
        return value if value in options and not isinstance(value, bool) else NOT_MINE
    if origin is tuple and len(options) == 2 and options[1] is Ellipsis:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return NOT_MINE
        items = tuple(_fitted(item, options[0]) for item in value)
        if NOT_MINE in items:
            return NOT_MINE
        return value if isinstance(value, tuple) and items == value else items
    if origin is frozenset:  # of words
        if isinstance(value, str) or not isinstance(value, Collection):
            return NOT_MINE
        if not all(isinstance(item, str) for item in value):
            return NOT_MINE
        return value if isinstance(value, frozenset) else frozenset(value)
    if hint is bool:
        return value if isinstance(value, bool) else NOT_MINE
    if hint in (int, float) and isinstance(value, bool):
        return NOT_MINE
    if hint is int:
        return int(value) if isinstance(value, numbers.Integral) else NOT_MINE
    if hint is float:
        if type(value) in (int, float):
            return value
        return float(value) if isinstance(value, numbers.Real) else NOT_MINE
    if hint is str:
        return value if isinstance(value, str) else NOT_MINE
    if hint is type(None):
        return value if value is None else NOT_MINE
    if isinstance(hint, type):
        return value if isinstance(value, hint) else NOT_MINE
    return value


def _described(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(option) for option in options)
    if origin is Literal:
        return " or ".join(str(option) for option in options)
    if origin is frozenset:
        return "a set of words"
    if origin is tuple:
        return f"a list, each item {_described(options[0])}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if hint is type(None):
        return "null"
    return words.get(hint, f"a {getattr(hint, '__name__', hint)}")
