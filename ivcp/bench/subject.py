"""What is compared: a model, and the methods on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ivcp.bench.result import MethodInfo
from ivcp.core.budget import in_words
from ivcp.core.budgeted import Budgeted, budgeted
from ivcp.core.family import ModelFamily
from ivcp.core.pairing import fit_pair
from ivcp.core.pruner import Pruner


@dataclass(frozen=True)
class Method:
    """A pruner, with the name and the budget that it is measured with.

    Attributes:
        name: For the record.
        pruner: The method.
        variant: Its other settings, for the record.
        tokens: Visual tokens of an image to keep, instead of the pruner's `keep_ratio`.
        budget: What a budget counts (`ivcp.core.budgeted.budgeted`).
    """

    name: str
    pruner: Pruner
    variant: str = ""
    tokens: int | None = None
    budget: Mapping[str, Any] = field(default_factory=lambda: {"count": "final", "solved": True})

    def fitted(self, family: ModelFamily, model: str) -> Method:
        """The method with the layers of a model, and its budget.

        Raises:
            UserError: The model cannot serve it.
        """
        pruner = fit_pair(self.pruner, family, model)
        pruner = budgeted(pruner, family.depth(), tokens=self.tokens, **self.budget)
        return Method(self.name, pruner, self.variant)

    def info(self, unfilled_ratio: float | None) -> MethodInfo:
        """What the record says of it.

        Args:
            unfilled_ratio: What was kept, for a method without a ratio.
        """
        pruner, variant = self.pruner, self.variant
        if isinstance(pruner, Budgeted):
            words = in_words(pruner.keep_ratio, pruner.tokens, pruner.count, pruner.budget_over)
            variant = f"{variant} ({words})".strip()
        ratio = pruner.keep_ratio if pruner.fills_ratio() else unfilled_ratio
        return MethodInfo(
            pruner=self.name,
            variant=variant,
            method=repr(pruner),
            ratio=ratio if pruner.prunes() and not isinstance(pruner, Budgeted) else None,
            layers=tuple(stage.layer for stage in pruner.stages()),
        )


@dataclass(frozen=True)
class Subject:
    """A model, and the methods that are compared on it.

    Attributes:
        name: For the record.
        family: Loads the weights.
        methods: At least one.
    """

    name: str
    family: ModelFamily
    methods: tuple[Method, ...]

    def fitted(self) -> Subject:
        """The model with the methods as they run on it.

        Raises:
            UserError: It cannot serve one of them.
        """
        methods = tuple(method.fitted(self.family, self.name) for method in self.methods)
        return replace(self, methods=methods)
