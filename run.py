"""Evaluate a pruning method: `python run.py model=tiny pruner=ivcp dataset=shapes ratio=0.3`."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import hydra
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
from ivcp.evaluation.processes import started_together

PARTS = ("pruner", "model", "dataset", "metric", "judge", "trainer", "logger", "draw")

TOLD = ("keep_ratio", "layer", "layers", "seed")


def tell(error: Exception, go_on: bool = False) -> None:
    """Print a user's mistake as one sentence and exit with 2; a defect is raised again."""
    cause = error.__cause__ if isinstance(error, InstantiationException) else error
    known = isinstance(cause, UserError | HydraException | errors.OmegaConfBaseException)
    known |= isinstance(error, InstantiationException) and "unexpected keyword" in str(cause)
    if not known and not str(cause).startswith("Config group override"):
        raise error
    sentence = " ".join(str(cause).split("Config search path")[0].split()).replace(" Ava", "; ava")
    print(sentence.removeprefix("In 'config': "), file=sys.stderr)
    if not go_on:
        sys.exit(2)


def variant(overrides: Sequence[str]) -> str:
    """What was chosen of the pruner beside what has a place of its own in the record."""
    own = (o.lstrip("+") for o in overrides)
    told = (o.partition("pruner.")[2] for o in own if o.startswith(("pruner.", "pruner@pruner.")))
    return " ".join(o for o in told if o.partition("=")[0].split(".")[-1] not in TOLD)


def fitted(config: dict[str, Any], pruner: Any) -> dict[str, Any]:
    """A pruner's configuration with the layers that "auto" stands for."""
    if isinstance(pruner, tuple):
        pairs = zip(config.items(), pruner, strict=True)
        return {name: fitted(part, own) for (name, part), own in pairs}
    filled = {key: getattr(pruner, key) for key, value in config.items() if value == "auto"}
    nested = {
        key: fitted(value, getattr(pruner, key))
        for key, value in config.items()
        if isinstance(value, dict)
    }
    return {**config, **filled, **nested}


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Build the parts, check that they fit, evaluate; returns the primary_metric metric."""
    job = HydraConfig.get()
    names = {name: job.runtime.choices[name] for name in ("model", "pruner", "dataset")}
    names["variant"] = variant(job.overrides.task)
    sweep, together = "MULTIRUN" in str(job.mode), started_together() > 1
    try:
        parts = {name: instantiate(cfg[name]) for name in PARTS}
        parts["pruner"] = fit_pair(parts["pruner"], parts["model"], names["model"])
        parts["config"] = OmegaConf.to_container(cfg, resolve=True)
        parts["config"]["pruner"] = fitted(parts["config"]["pruner"], parts["pruner"])
        return evaluate(**parts, names=names, folder=job.runtime.output_dir, sweep=sweep)
    except Exception as error:
        tell(error, go_on=sweep and not together)
        if together:  # the others are in this run still, and must not meet the next one
            traceback.print_exc()
            sys.exit(1)
        raise  # Hydra goes on with the next run of the sweep and fails at the end


def add_plugged() -> None:
    """Let `pruner=` and `model=` name what other packages bring."""
    store = ConfigStore.instance().store
    for name, kind in plugged(PRUNERS, Pruner).items():
        store(group="pruner", name=name, node=default_config(kind, keep_ratio="${ratio}"))
    for name, family in plugged(FAMILIES, ModelFamily).items():
        store(group="model", name=name, node=default_config(family))


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # lets errors through to here
    try:
        add_plugged()
        main()
    except Exception as error:
        tell(error)
