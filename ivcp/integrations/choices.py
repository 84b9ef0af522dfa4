"""Methods and model families by name, for programs that compose no configuration."""

from __future__ import annotations

from importlib import import_module
from inspect import isabstract, isclass
from pkgutil import iter_modules
from typing import TypeVar

from ivcp.core.plugins import plugged

T = TypeVar("T")


def available(folder: str, base: type[T], group: str) -> dict[str, type[T]]:
    """The classes of `ivcp.<folder>`, and those that other packages bring."""
    return {**stems(folder, base), **plugged(group, base)}


def stems(folder: str, base: type[T]) -> dict[str, type[T]]:
    """The classes of `ivcp.<folder>` by the modules that define them, and no other, in full."""
    package = import_module(f"ivcp.{folder}")
    classes = {}
    for entry in iter_modules(package.__path__):
        module = import_module(f"{package.__name__}.{entry.name}")
        defined = [
            value
            for value in vars(module).values()
            if isclass(value) and issubclass(value, base) and not isabstract(value)
            if value.__module__ == module.__name__
        ]
        if len(defined) == 1:
            classes[entry.name] = defined[0]
    return classes
