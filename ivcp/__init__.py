"""Vision-token pruning for large vision-language models, on unmodified `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from ivcp.core.budget import Over
    from ivcp.core.family import ModelAdapter
    from ivcp.core.pruner import Pruner
    from ivcp.engine.session import Session

__all__ = [
    "ask", "attach", "compare_runs", "evaluate", "load", "load_dataset", "load_predictions",
    "load_runs", "pruned",
]  # fmt: skip
__version__ = "0.1.0"

LATER = {
    "ask": "ivcp.notebook",
    "load": "ivcp.notebook",
    "compare_runs": "ivcp.report.frame",
    "evaluate": "ivcp.cli.call",
    "load_dataset": "ivcp.cli.call",
    "load_predictions": "ivcp.results.load",
    "load_runs": "ivcp.results.load",
}
"""Names with modules that need more packages than pruning does; imported when they are used."""


def __getattr__(name: str) -> Any:
    """Find a method by the name of its class (`from ivcp import FastV`), or what needs more."""
    from importlib import import_module
    from pkgutil import iter_modules

    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    if name[:1].isupper():
        folder = import_module("ivcp.pruners").__path__
        for module in iter_modules(folder, "ivcp.pruners."):
            method = vars(import_module(module.name)).get(name)
            if getattr(method, "__module__", None) == module.name:  # defined, not imported there
                return method
    raise AttributeError(f"module 'ivcp' has no attribute {name!r}")


def attach(
    model: nn.Module,
    pruner: Pruner,
    *,
    family: ModelAdapter | None = None,
    budget_over: Over = "video",
) -> Session:
    """Prune visual tokens in every forward pass of `model` until `session.close()`.

    Meant for notebooks, where a `with` block cannot span cells; elsewhere use `pruned`.

    Args:
        model: An unmodified Hugging Face model of a supported family; with or without its head,
            alone or inside another module (PEFT, DistributedDataParallel, a module of yours).
        pruner: A method, such as `ivcp.pruners.ivcp.IVCPrune(keep_ratio=0.5)`.
        family: How to look inside the model; by default found by `model.config.model_type`.
        budget_over: What the pruner's budget holds for: each "video" (and image), each "frame" of
            a video (and image), or all of a "sample".

    Returns:
        The session, with the results of the last prefill.

    Raises:
        UserError: The model cannot serve the pruner, is being pruned already, or the pruner acts on
            images before they are processed.
    """
    from torch import nn

    from ivcp.core.budgeted import with_budget_over
    from ivcp.core.errors import UserError
    from ivcp.core.pruner import Pruner
    from ivcp.engine.attach import attach as attach_hooks
    from ivcp.engine.checks import check_compiled
    from ivcp.models import find_family, find_model

    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a Hugging Face model; got a {type(model).__name__}.")
    if isinstance(pruner, Pruner) and pruner.before_processor:
        raise UserError(
            f"{pruner.name} resizes images before they are processed, and here they are "
            "processed already: use ivcp.ask, ivcp.evaluate or run.py, or another pruner."
        )
    if isinstance(pruner, Pruner):
        pruner = with_budget_over(pruner, budget_over)
    check_compiled(model)  # before `find_model`: it looks inside, where nothing may be compiled
    if family is None:
        model = find_model(model)
        family = find_family(model)
    return attach_hooks(model, family, pruner)


@contextmanager
def pruned(
    model: nn.Module,
    pruner: Pruner,
    *,
    family: ModelAdapter | None = None,
    budget_over: Over = "video",
) -> Iterator[Session]:
    """Prune visual tokens in every forward pass of `model` inside the block.

    Args:
        model: As in `attach`.
        pruner: Likewise.
        family: Likewise.
        budget_over: Likewise.

    Yields:
        The session, with the results of the last prefill.

    Raises:
        UserError: The model cannot serve the pruner, or is being pruned already.
    """
    with closing(attach(model, pruner, family=family, budget_over=budget_over)) as session:
        yield session
