"""What tests know of each model family: one file a family, found by its name."""

from importlib import import_module
from pkgutil import iter_modules

from expectation import Expectation

EXPECTED: dict[str, Expectation] = {
    module.name: import_module(f"{__name__}.{module.name}").Expected()
    for module in iter_modules(__path__)
}
