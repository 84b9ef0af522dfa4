"""Evaluations from Python: the configuration's defaults, with objects in place of its blocks."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import ivcp
from ivcp.cli.composing import composed, config_folder
from ivcp.cli.mistakes import check_known, sentence_of
from ivcp.cli.run import PARTS, check_amount
from ivcp.core.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from ivcp.core.family import ModelFamily
    from ivcp.core.metric import AnswerMetric
    from ivcp.core.pruner import Pruner
    from ivcp.evaluation.data import SampleSource
    from ivcp.models.processor import Processor
    from ivcp.results.load import FinishedRun

GROUPS = ("backend", "budget", "judge", "logger", "trainer")
"""Blocks that a setting can choose by name."""


def load_dataset(name: str, **settings: Any) -> SampleSource:
    """A dataset by its name in `conf/dataset`; it has a length, and gives a `Sample` by its index.

    Args:
        name: Such as "shapes" or "refcoco_testA"; `ivcp list dataset` shows all.
        settings: Fields of the dataset that differ from its configuration, such as `root` or
            `size`.

    Raises:
        UserError: There is no such dataset or setting, or its files cannot be read.
    """
    cfg = _composed(f"dataset={name}").dataset
    for key, value in settings.items():
        check_known(key, [key for key in cfg if key != "_target_"])
        cfg[key] = value
    return _built(cfg)


def evaluate(
    model: nn.Module | ModelFamily | str,
    pruner: Pruner | None = None,
    *,
    dataset: SampleSource | str = "shapes",
    metric: AnswerMetric | None = None,
    processor: Processor | None = None,
    folder: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> FinishedRun:
    """Evaluate a model with a pruning method, as `ivcp run` does.

    Args:
        model: A Hugging Face model in evaluation mode, as `ivcp.load` or `from_pretrained` give it;
            a family, which loads one; or a name of `conf/model`.
        pruner: The method; None prunes nothing.
        dataset: A name of `conf/dataset`, or a dataset of your own, which needs a `metric`.
        metric: Scores the answers; by default the dataset's own.
        processor: What `ivcp.load` gave with the model; by default made from the model's own folder
            or hub id.
        folder: Where results are written; by default a new folder in `outputs`.
        quiet: Whether progress and table stay away, as in a loop.
        settings: Any setting of `conf/config.yaml`: `limit=50`, `batch_size="auto"`,
            `data={"root": "..."}`, `logger="wandb"`, `backend="vllm"` or a `VLLMBackend`, ...;
            `tokens=192, budget="layer_average"` gives the method another budget than its
            `keep_ratio`, and `budget_over="frame"` gives each frame of a video its own.

    Returns:
        The finished run: `value` of the primary metric, typed `results`, `predictions()` and its
        `folder`.

    Raises:
        UserError: The model cannot serve the pruner, a setting is wrong, the data cannot be read,
            or every sample failed.
    """
    from ivcp.core.backend import Backend, fitted_for
    from ivcp.core.budgeted import budgeted
    from ivcp.core.pairing import fit_pair
    from ivcp.evaluation.evaluate import evaluate as evaluate_parts
    from ivcp.evaluation.trainer import started_together

    if started_together() > 1:
        raise UserError(
            "ivcp.evaluate is called by one process; under torchrun or srun, use ivcp run."
        )
    loaded = not isinstance(model, str) and not hasattr(model, "load")
    if loaded and not hasattr(model, "parameters"):
        raise UserError(
            f"model must be a Hugging Face model, a family, or a name of conf/model; got {model!r}."
        )
    for setting in {"trainer", "backend"} & set(settings) if loaded else ():
        raise UserError(
            f"A model that is loaded is evaluated where it is, by one process; for {setting}= pass "
            "its name in conf/model, or its family."
        )
    if not isinstance(dataset, str) and metric is None:
        raise UserError("A dataset of your own needs a metric: pass metric=, too.")
    if pruner is not None and "ratio" in settings:
        raise UserError(
            "The pruner has its keep_ratio, such as FastV(keep_ratio=0.3): leave out ratio."
        )
    server = settings.pop("backend") if isinstance(settings.get("backend"), Backend) else None
    named = [name for name in GROUPS if isinstance(settings.get(name), str)]
    row = f"{settings['budget']}.yaml" if "budget" in named else "final.yaml"
    chosen = [f"{name}={settings.pop(name)}" for name in named]
    chosen += [f"dataset={dataset}"] if isinstance(dataset, str) else []
    chosen += [f"model={model}"] if isinstance(model, str) else []
    chosen += _where(model) if loaded else []
    cfg = _composed(*chosen)
    known = [key for key in cfg if key not in ("model", "pruner", "tasks")]
    for name, value in settings.items():
        check_known(name, known)
        cfg[name] = OmegaConf.merge(cfg[name], value) if isinstance(value, dict) else value
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    family, name = _family(model, cfg, processor)
    server = _built(cfg.backend) if server is None else server
    method = fitted_for(server, ivcp.NoPruning() if pruner is None else pruner)
    method = fit_pair(method, family, name)
    if "ratio" in OmegaConf.load(config_folder() / "budget" / row) and method.prunes():
        method = dataclasses.replace(method, keep_ratio=cfg.ratio)  # of published tables
    check_amount(settings, config["tokens"])
    budget = {name: config[name] for name in ("tokens", "budget_over")} | config["budget"]
    objects: dict[str, Any] = {"pruner": method, "dataset": dataset, "metric": metric}
    objects = {key: part for key, part in objects.items() if not isinstance(part, str | None)}
    if isinstance(server, Backend):
        objects["backend"] = server
    if not isinstance(model, str):
        objects["model"] = family
    config |= {key: described(part) for key, part in objects.items()}
    parts: dict[str, Any] = {"model": family, **objects}
    parts |= {key: _built(cfg[key]) for key in PARTS if key not in parts}
    parts["pruner"] = budgeted(method, family.depth(), **budget)
    names = {
        "model": name,
        "pruner": _name(method),
        "dataset": dataset if isinstance(dataset, str) else type(dataset).__name__,
        "variant": "",
    }
    now = datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    path = Path(folder or Path("outputs") / now)
    path.mkdir(parents=True, exist_ok=True)
    try:
        run = evaluate_parts(**parts, names=names, config=config, folder=str(path), quiet=quiet)
    except SystemExit as stopped:  # which a notebook would take for its own end
        raise KeyboardInterrupt(f"stopped; {path} has what was finished") from stopped
    return cast("FinishedRun", run)  # one process, so it is the first


def described(part: Any) -> Any:
    """An object as a configuration: its class and, of a dataclass, its fields.

    >>> from ivcp.pruners.random import RandomPruning
    >>> described(RandomPruning(keep_ratio=0.5, layer=4))["keep_ratio"]
    0.5
    """
    if isinstance(part, tuple | list):
        return [described(item) for item in part]
    kind = type(part)
    if kind.__module__ == "builtins":
        return part
    values = {}
    if dataclasses.is_dataclass(part):
        values = {
            item.name: described(getattr(part, item.name)) for item in dataclasses.fields(part)
        }
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **values}


def _family(model: Any, cfg: DictConfig, processor: Processor | None) -> tuple[ModelFamily, str]:
    """The family of what was passed as a model, and the model's name for the record."""
    from ivcp.models.loaded import holding

    if isinstance(model, str):
        return _built(cfg.model), model
    family = model if hasattr(model, "load") else holding(model, processor)
    path = getattr(family, "path", None) or getattr(family, "packaged", None) or "tiny"
    return family, str(path).rstrip("/").rpartition("/")[2]


def _name(pruner: Pruner) -> str:
    """A method's name for the record: its file's, or its class's if a notebook defines it."""
    from ivcp.core.budgeted import Budgeted

    kind = type(pruner.method if isinstance(pruner, Budgeted) else pruner)
    return kind.__name__ if kind.__module__ == "__main__" else kind.__module__.rpartition(".")[2]


def _where(model: Any) -> list[str]:
    """The trainer that leaves a model where it is."""
    device = next(model.parameters()).device
    if device.type == "cpu":
        return ["trainer=cpu"]
    return ["trainer=gpu", f"trainer.devices=[{device.index or 0}]"]


def _composed(*overrides: str) -> DictConfig:
    try:
        return composed(*overrides)
    except Exception as error:
        raise _explained(error) from error


def _built(cfg: DictConfig | None) -> Any:
    try:
        return instantiate(cfg)
    except Exception as error:
        raise _explained(error) from error


def _explained(error: Exception) -> Exception:
    sentence = sentence_of(error)
    return error if sentence is None else UserError(sentence)
