"""The command that makes a finished run again."""

from __future__ import annotations

import shlex

from ivcp.report.variants import setting_text
from ivcp.results.comparability import flatten
from ivcp.results.schema import RunInfo

PARTS = ("pruner", "dataset", "model", "generation")
"""Parts of a configuration that are repeated setting by setting where no overrides are recorded."""


def command_of(info: RunInfo) -> str:
    """The command line of a run: as it was typed, else from its recorded configuration.

    A configuration that names neither is enough for the choices of model, method and data alone.
    """
    if info.overrides:
        return shlex.join(["ivcp", "run", *info.overrides])
    words = [f"model={info.model}", f"pruner={info.pruner}", f"dataset={info.dataset}"]
    config = info.config
    names = ("ratio", "tokens", "limit", "seed", "batch_size")
    words += [
        f"{name}={setting_text(config[name])}" for name in names if config.get(name) is not None
    ]
    if info.budget is not None and info.budget.count != "final":
        words.append(f"budget={info.budget.count}")
    for part in PARTS:
        for name, value in flatten(config.get(part) or {}).items():
            if not name.endswith("_target_") and isinstance(value, str | int | float | list):
                words.append(f"{part}.{name}={setting_text(value)}")
    return shlex.join(["ivcp", "run", *words])
