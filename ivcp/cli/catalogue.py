"""`ivcp list`: methods with their signals and papers, models, datasets."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ivcp.cli.composing import composed
from ivcp.cli.help import choices

if TYPE_CHECKING:
    from ivcp.core.pruner import Pruner
    from ivcp.core.view import Signal

PIPE_WIDTH = 140


def show_catalogue(words: Sequence[str]) -> int:
    """Print the tables that the words name; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="ivcp list", description="List methods, models and datasets."
    )
    parser.add_argument("groups", nargs="*", metavar="pruner|model|dataset", default=[])
    groups = parser.parse_args(words).groups
    if wrong := set(groups) - set(TABLES):
        parser.error(f"expected {', '.join(TABLES)}; got {', '.join(sorted(wrong))}")
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    for group in groups or TABLES:
        title, columns, rows = TABLES[group]
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows():
            table.add_row(*map(Text, row))
        console.print(table)
    return 0


def served(provides: frozenset[Signal]) -> list[str]:
    """Names of the methods that read no other signals than these."""
    from hydra.utils import instantiate

    return [
        name
        for name in choices("pruner")
        if signals_of(instantiate(composed(f"pruner={name}").pruner), provides) <= provides
    ]


def signals_of(pruner: Pruner, provides: frozenset[Signal]) -> set[str]:
    """What a method looks at in a model that provides some signals."""
    stages = pruner.fitted("llava", 32, provides).stages()  # any depth will do
    return {need for stage in stages for need in stage.needs}


def pruners() -> Iterator[tuple[str, ...]]:
    """Name, what it is, what it looks at, and its paper."""
    from hydra.utils import get_class, instantiate

    from ivcp.core.view import Signal

    for name, line in choices("pruner").items():
        config = composed(f"pruner={name}").pruner
        paper = re.search(r"Paper: (.*?\))", get_class(config._target_).__doc__ or "", re.DOTALL)
        signals = sorted(signals_of(instantiate(config), frozenset(get_args(Signal))))
        yield name, line, ", ".join(signals) or "-", paper[1] if paper else "-"


def models() -> Iterator[tuple[str, ...]]:
    """Name, what it is, its class and its weights."""
    from hydra.utils import get_class

    for name, line in choices("model").items():
        config = composed(f"model={name}").model
        family = get_class(config._target_)
        architecture = getattr(family, "architecture", family.__name__)
        yield name, line, architecture, str(config.get("path") or "-")


def datasets() -> Iterator[tuple[str, ...]]:
    """Name, what it is, its metric, and how many rows it has."""
    for name, line in choices("dataset").items():
        cfg = composed(f"dataset={name}")
        metric = str(cfg.metric._target_).rpartition(".")[2]
        yield name, line, metric, _rows(cfg.dataset)


def _rows(dataset: DictConfig) -> str:
    """The published number of rows, where the configuration has it."""
    names = ("rows", "expressions", "size")
    rows = next((value for name in names if (value := dataset.get(name))), None)
    return f"{rows:,}" if isinstance(rows, int) else "-"


TABLES = {
    "pruner": ("pruner=", ("name", "method", "looks at", "paper"), pruners),
    "model": ("model=", ("name", "model", "class", "weights"), models),
    "dataset": ("dataset=", ("name", "dataset", "metric", "rows"), datasets),
}
"""Title, columns and rows of each table."""
