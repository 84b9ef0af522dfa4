"""The command line: from Hydra's configuration to the parts of an evaluation."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, errors

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily, fit_pair
from ivcp.core.plugins import FAMILIES, PRUNERS, default_config, plugged
from ivcp.core.pruner import Pruner
from ivcp.evaluation.evaluate import evaluate
from ivcp.evaluation.trainer import started_together

log = logging.getLogger(__name__)

PARTS = ("pruner", "model", "dataset", "metric", "judge", "trainer", "logger", "draw")

RECORDED = ("keep_ratio", "layer", "layers", "seed")
"""Settings of a pruner that a record has beside its variant."""


def run(config_folder: Path) -> None:
    """Evaluate what the command line asks for; a user's mistake ends with one sentence and code 2.

    Args:
        config_folder: Holds `config.yaml` and the config groups.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # lets errors through to here
    try:
        add_plugged()
        start = hydra.main(version_base="1.3", config_path=str(config_folder), config_name="config")
        start(evaluate_config)()
    except Exception as error:
        explain(error)


def evaluate_config(cfg: DictConfig) -> float:
    """Build the parts, check that they fit, evaluate; gives the primary metric."""
    job = HydraConfig.get()
    names = {name: job.runtime.choices[name] for name in ("model", "pruner", "dataset")}
    names["variant"] = variant(job.overrides.task)
    sweep, together = "MULTIRUN" in str(job.mode), started_together() > 1
    try:
        check_tuned(job)
        parts = {name: instantiate(cfg[name]) for name in PARTS}
        parts["pruner"] = fit_pair(parts["pruner"], parts["model"], names["model"])
        parts["config"] = OmegaConf.to_container(cfg, resolve=True)
        parts["config"]["pruner"] = fitted(parts["config"]["pruner"], parts["pruner"])
        return evaluate(**parts, names=names, folder=job.runtime.output_dir, sweep=sweep)
    except Exception as error:
        explain(error, go_on=sweep and not together)
        if together:  # the others are in this run still, and must not meet the next one
            traceback.print_exc()
            sys.exit(1)
        raise  # Hydra goes on with the next run of the sweep and fails at the end


def explain(error: Exception, go_on: bool = False) -> None:
    """Print a user's mistake as one sentence and exit with 2; a defect is raised again."""
    cause = error.__cause__ if isinstance(error, InstantiationException) else error
    mistake = isinstance(cause, UserError | HydraException | errors.OmegaConfBaseException)
    mistake |= isinstance(error, InstantiationException) and "unexpected keyword" in str(cause)
    if not mistake and not str(cause).startswith("Config group override"):
        raise error
    sentence = " ".join(str(cause).split("Config search path")[0].split()).replace(" Ava", "; ava")
    sentence = sentence.removeprefix("In 'config': ")
    print(sentence, file=sys.stderr)
    log.info(sentence)
    if not go_on:
        sys.exit(2)


def variant(overrides: Sequence[str]) -> str:
    """What was chosen of the pruner beside what has a place of its own in the record."""
    names = (override.lstrip("+") for override in overrides)
    chosen = (
        name.partition("pruner.")[2]
        for name in names
        if name.startswith(("pruner.", "pruner@pruner."))
    )
    return " ".join(o for o in chosen if o.partition("=")[0].split(".")[-1] not in RECORDED)


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


def add_plugged() -> None:
    """Let `pruner=` and `model=` name what other packages bring."""
    store = ConfigStore.instance().store
    for name, kind in plugged(PRUNERS, Pruner).items():
        store(group="pruner", name=name, node=default_config(kind, keep_ratio="${ratio}"))
    for name, family in plugged(FAMILIES, ModelFamily).items():
        store(group="model", name=name, node=default_config(family))
