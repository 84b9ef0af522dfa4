"""`ivcp run`: from Hydra's configuration to the parts of an evaluation.

Torch and everything of `ivcp` that needs it are imported behind the composition of the
configuration: help, completion and most mistakes do without.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ivcp.cli.composing import config_folder, register
from ivcp.cli.mistakes import check_known, check_target, explain, sentence_of, unwritable
from ivcp.core.errors import UserError

log = logging.getLogger(__name__)

PARTS = (
    "pruner", "model", "dataset", "metric", "judge", "backend", "trainer", "logger", "draw",
)  # fmt: skip
BLOCKS = {"data": "data.root=DIR", "generation": "generation.max_new_tokens=64"}
"""Blocks that describe no object, each with one of its settings."""
FREE = ("hydra", "generation")
"""Blocks that take keys which their own reader checks."""
RECORDED = ("keep_ratio", "layer", "layers", "seed")
"""Settings of a pruner that a record has beside its variant."""


def run() -> None:
    """Evaluate what the command line says; a user's mistake ends with a sentence and code 2."""
    start(evaluate_config, "config")


def start(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Compose a configuration of the command line and call a task with it.

    Args:
        task: A function of a module, since launchers send it to other processes.
        config_name: The file in `conf`.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # lets errors through to here
    if {"-h", "--help"} & set(sys.argv[1:]):
        from ivcp.cli.help import help_text

        print(help_text(config_name))
        return
    try:
        register()
        folder = str(config_folder())
        hydra.main(version_base="1.3", config_path=folder, config_name=config_name)(task)()
    except Exception as error:
        frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        if isinstance(error, OSError) and task.__code__ not in frames:
            error = unwritable(error)
        explain(error)
        sys.exit(2)


def evaluate_config(cfg: DictConfig) -> float:
    """Build the parts, check that they fit, evaluate; gives the primary metric."""
    job = HydraConfig.get()
    names = {name: job.runtime.choices[name] for name in ("model", "pruner", "dataset")}
    names["variant"] = variant(job.overrides.task)
    sweep, together = "MULTIRUN" in str(job.mode), False
    try:
        check(cfg)
        from ivcp.core.backend import fitted_for
        from ivcp.core.budgeted import budgeted
        from ivcp.core.pairing import fit_pair
        from ivcp.evaluation.evaluate import evaluate
        from ivcp.evaluation.trainer import started_together

        together = started_together() > 1
        parts = {name: instantiate(cfg[name]) for name in PARTS}
        parts["pruner"] = fitted_for(parts["backend"], parts["pruner"])
        parts["pruner"] = fit_pair(parts["pruner"], parts["model"], names["model"])
        parts["config"] = OmegaConf.to_container(cfg, resolve=True)
        parts["config"]["pruner"] = fitted(parts["config"]["pruner"], parts["pruner"])
        check_amount((o.partition("=")[0] for o in job.overrides.task), cfg.tokens)
        budget = {"tokens": cfg.tokens, **cfg.budget}
        parts["pruner"] = budgeted(parts["pruner"], parts["model"].depth(), **budget)
        parts["overrides"] = tuple(job.overrides.task)
        run = evaluate(**parts, names=names, folder=job.runtime.output_dir, sweep=sweep)
        return float("nan") if run is None else run.value
    except Exception as error:
        if together and sentence_of(error) is None:
            traceback.print_exc()
            sys.exit(1)
        log.info(explain(error))
        if together or not sweep:  # the others are in this run still, and must not meet the next
            sys.exit(2)
        raise  # Hydra goes on with the next run of the sweep and fails at the end


def variant(overrides: Sequence[str]) -> str:
    """What was chosen of the pruner beside what has a place of its own in the record."""
    names = (override.lstrip("+") for override in overrides)
    chosen = (
        name.partition("pruner.")[2]
        for name in names
        if name.startswith(("pruner.", "pruner@pruner."))
    )
    return " ".join(o for o in chosen if o.partition("=")[0].split(".")[-1] not in RECORDED)


def check(cfg: DictConfig, parts: Sequence[str] = PARTS, job: HydraConf | None = None) -> None:
    """Find the mistakes for which nothing has to be imported.

    Args:
        cfg: The configuration.
        parts: Its blocks that describe an object.
        job: How it was composed; None for how the run was.

    Raises:
        UserError: There is one.
        InterpolationKeyError: A value refers to a setting that does not exist.
    """
    job = job or HydraConfig.get()
    check_tuned(job)
    check_row(job)
    check_added(job)
    blocks: Any = OmegaConf.to_container(cfg, resolve=True)
    for name, example in BLOCKS.items():
        if not isinstance(block := blocks.get(name, {}), dict):
            raise UserError(f"{name} must be settings by name, such as {example}; got {block!r}.")
    for name in parts:
        if name not in blocks:
            raise UserError(
                f"There is no block {name!r}: a dataset's file begins with # @package _global_ and "
                "has the blocks dataset: and metric:."
            )
        block = blocks[name]
        if isinstance(block, dict):
            if "_target_" in block:
                check_target(name, block["_target_"])
        elif block is not None:
            raise UserError(
                f"{name} must be a mapping with a _target_; got {block!r}: choose another {name}, "
                "or another dataset, which brings its metric."
            )


def check_amount(names: Iterable[str], tokens: int | None) -> None:
    """Refuse two budgets at once.

    Args:
        names: Settings that were given.
        tokens: Tokens of an image to keep, perhaps those of a row of published tables.

    Raises:
        UserError: A ratio was given, too.
    """
    if tokens is not None and "ratio" in set(names):
        raise UserError("ratio and tokens are two ways to give one budget: leave out one of them.")


def check_row(job: HydraConf) -> None:
    """Refuse a row of published tables for another model than theirs.

    Raises:
        UserError: `budget=llava15_192` is chosen with another model.
    """
    model, budget = (str(job.runtime.choices[name]) for name in ("model", "budget"))
    row = budget.rpartition("_")[0]
    if (config_folder() / "model" / f"{row}.yaml").exists() and not model.startswith(row):
        raise UserError(
            f"budget={budget} is a row of tables of {row}; for {model}, give tokens= or ratio= "
            "with budget=layer_average."
        )


def check_tuned(job: HydraConf) -> None:
    """Refuse a tuned setting that does not exist; only that of a pair may be absent.

    Raises:
        UserError: `tuned=` names one that does not exist.
    """
    names = [o.partition("=")[2] for o in job.overrides.task if o.lstrip("+").startswith("tuned=")]
    folders = [Path(source.path) / "tuned" for source in job.runtime.config_sources if source.path]
    there = sorted(path.stem for folder in folders for path in folder.glob("*.yaml"))
    for name in names:
        if name not in there:
            raise UserError(f"tuned must be one of {', '.join(there)}; got {name}.")


def check_added(job: HydraConf) -> None:
    """Refuse what `+name=value` adds to the configuration, unless something reads it.

    Raises:
        UserError: Nothing does.
    """
    choices = job.runtime.choices
    plain: Any = OmegaConf.load(config_folder() / f"{job.job.config_name}.yaml")
    known = [*PARTS, *(str(name) for name in plain if name not in ("defaults", "hydra"))]
    for override in job.overrides.task:
        name = override.lstrip("+").partition("=")[0]
        block, _, key = name.partition(".")
        if override.startswith("+") and name not in choices and block not in (*PARTS, *FREE):
            check_known(block, known)
            if key:
                check_known(key, plain[block])


def fitted(config: dict[str, Any], pruner: Any) -> dict[str, Any]:
    """A pruner's configuration with the layers that "auto" stands for."""
    if isinstance(pruner, tuple):
        pairs = zip(config.items(), pruner, strict=True)
        return {name: fitted(part, method) for (name, part), method in pairs}
    filled = {key: getattr(pruner, key) for key, value in config.items() if value == "auto"}
    nested = {
        key: fitted(value, getattr(pruner, key))
        for key, value in config.items()
        if isinstance(value, dict)
    }
    return {**config, **filled, **nested}
