"""`ivcp bench`: several methods, ratios, prompts and batch sizes in one process and one result.

Hydra takes commas for a sweep of runs. Here they are a comparison inside one run: the words of the
command line are rewritten before Hydra reads them, and each combination is composed on its own.
"""

from __future__ import annotations

import itertools
import json
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from ivcp.cli.mistakes import explain
from ivcp.cli.run import check, check_amount, start, variant
from ivcp.core.errors import UserError

log = logging.getLogger(__name__)

BENCHED = ("model", "pruner")
LISTS = ("tokens", "batch_size")
"""Settings that are lists themselves; every other one with commas makes methods."""
OF_BENCH = ("tokens", "keep_tokens", "compared")
"""Settings that mean something else to a method, or nothing."""
WEIGHTS = {"random": False, "reduced": False}
MADE = {
    (False, False): "", (True, False): " (random weights)", (False, True): " (reduced)",
    (True, True): " (reduced)",
}  # fmt: skip
"""What a model's name says of its weights."""


def bench() -> None:
    """Measure what the command line says."""
    words = sys.argv[1:]
    if not {"-m", "--multirun"} & set(words):  # then commas are Hydra's
        sys.argv[1:] = one_run(words)
    start(bench_config, "bench")


def one_run(words: Sequence[str]) -> list[str]:
    """The words of a command line without commas; what is compared is in one of them.

    >>> one_run(["pruner=ivcp,fastv", "tokens=400,1600", "ratio=0.5"])
    ['pruner=ivcp', 'tokens=[400,1600]', 'ratio=0.5', 'compared=[["pruner=ivcp","pruner=fastv"]]']
    """
    plain, compared = [], []
    for word in words:
        choices = _choices(word)
        name = word.partition("=")[0]
        if len(choices) < 2:
            plain.append(word)
        elif name in LISTS:
            plain.append(f"{name}=[{','.join(choices)}]")
        else:
            compared.append([f"{name}={choice}" for choice in choices])
            plain.append(compared[-1][0])
    if compared:
        plain.append(f"compared={json.dumps(compared, separators=(',', ':'))}")
    return plain


def _choices(word: str) -> list[str]:
    """The values of a setting, if there are several; words that Hydra must explain have none."""
    if word.startswith("-"):
        return []
    try:
        override: Override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            return []
        return [str(value) for value in override.sweep_string_iterator()]
    except HydraException:
        return []


def bench_config(cfg: DictConfig) -> float:
    """Compose and build what is compared, measure it; gives the least ratio of prefill times."""
    job = HydraConfig.get()
    try:
        check(cfg, BENCHED)
        subjects = _subjects(cfg, job.overrides.task)
        from ivcp.bench.measure import bench as measure

        settings: Any = OmegaConf.to_container(cfg, resolve=True)
        names = {override.lstrip("+").partition("=")[0] for override in job.overrides.task}
        if "tokens" not in names:  # then the number is a budget's
            settings["tokens"] = None
        elif "image" in names and settings["tokens"] is not None:
            raise UserError("tokens and image are two ways to give one prompt: leave out one.")
        others = {
            key: settings[key] for key in settings
            if key not in (*BENCHED, "ratio", "keep_tokens", "compared", "budget")
        }  # fmt: skip
        words = [word for word in sys.argv[1:] if not word.startswith("compared=")]
        folder = Path(job.runtime.output_dir)
        result = measure(subjects, folder=folder, command=_typed(words, cfg), **others)
        ratios = [row.prefill_ms.ratio.median for _, row in result.rows if row.counts]
        return min((ratio for ratio in ratios if ratio is not None), default=float("nan"))
    except KeyboardInterrupt:
        print(
            f"Interrupted; {job.runtime.output_dir} has the groups that were finished. The same "
            "command with this hydra.run.dir= and resume=true goes on.",
            file=sys.stderr,
        )
        sys.exit(130)
    except Exception as error:
        log.info(explain(error))
        if "MULTIRUN" not in str(job.mode):
            sys.exit(2)
        raise


def _typed(words: Iterable[str], cfg: DictConfig) -> str:
    """The command as it was typed, commas included."""
    compared: list[list[str]] = OmegaConf.to_container(cfg.compared)  # type: ignore[assignment]
    commas = {block[0]: block for block in compared}
    typed = ["ivcp", "bench"]
    for word in words:
        name, _, value = word.partition("=")
        if word in commas:
            value = ",".join(choice.partition("=")[2] for choice in commas[word])
            word = f"{name}={value}"
        elif name in LISTS:
            word = f"{name}={value.strip('[]')}"
        typed.append(word)
    return shlex.join(typed)


def _subjects(cfg: DictConfig, overrides: Sequence[str]) -> list[Any]:
    """The models with their methods, in the order of the command line.

    Raises:
        UserError: A combination has a mistake.
    """
    compared: Any = OmegaConf.to_container(cfg.compared)
    varied = {choice.partition("=")[0] for block in compared for choice in block}
    names = {override.lstrip("+").partition("=")[0] for override in overrides} | varied
    if "ratio" in names and (cfg.keep_tokens is not None or "keep_tokens" in varied):
        raise UserError(
            "ratio and keep_tokens are two ways to give one budget: leave out one of them."
        )
    fixed = [o for o in overrides if o.lstrip("+").partition("=")[0] not in {*varied, *OF_BENCH}]
    keep = [] if cfg.keep_tokens is None or "keep_tokens" in varied else [cfg.keep_tokens]
    combinations = []
    for choices in itertools.product(*compared):
        words = [word for word in choices if not word.startswith("keep_tokens=")]
        budgets = [w.partition("=")[2] for w in choices if w.startswith("keep_tokens=")] or keep
        words += [f"tokens={_keep_tokens(number)}" for number in budgets]
        each = compose("bench", [*fixed, *words], return_hydra_config=True)
        with open_dict(each):
            job = each.pop("hydra")
        check(each, BENCHED, job)
        combinations.append((each, job))
    from ivcp.bench.measure import find_device
    from ivcp.bench.subject import Method, Subject

    device = str(find_device(cfg.device))
    subjects: dict[str, Any] = {}
    for each, job in combinations:
        chosen, overrides = job.runtime.choices, job.overrides.task
        check_amount((o.partition("=")[0] for o in overrides), each.tokens)
        settings: Any = OmegaConf.to_container(each.model, resolve=True)
        variants = [o for o in overrides if o.startswith("model.") and o.split("=")[0] in varied]
        name = " ".join([chosen.model, *(o.partition("model.")[2] for o in variants)])
        name += MADE[settings.get("random") is True, settings.get("reduced") is True]
        if name not in subjects:
            subjects[name] = Subject(name, _family(settings, chosen.model, device), ())
        budget: Any = OmegaConf.to_container(each.budget)
        settings_text = variant(overrides)
        for word in (o for o in overrides if o.partition("=")[0] in varied):
            if word.startswith("pruner.") and word.partition(".")[2] not in settings_text:
                settings_text = f"{settings_text} {word.partition('.')[2]}".strip()
        pruner = instantiate(each.pruner)
        method = Method(chosen.pruner, pruner, settings_text, each.tokens, budget)
        family, methods = subjects[name].family, subjects[name].methods
        if method.fitted(family, name) not in [known.fitted(family, name) for known in methods]:
            subjects[name] = Subject(name, family, (*methods, method))
    return list(subjects.values())


def _keep_tokens(number: object) -> int:
    """A number of tokens to keep.

    Raises:
        UserError: It is none.
    """
    if not str(number).isdecimal() or not int(str(number)):
        raise UserError(f"keep_tokens must be a whole number of at least 1; got {number!r}.")
    return int(str(number))


def _family(settings: dict[str, Any], name: str, device: str) -> Any:
    """The family, with its checkpoint or with random weights.

    Raises:
        UserError: The weights are not here, and nobody asked for random ones.
    """
    chosen = {key: settings.pop(key, default) for key, default in WEIGHTS.items()}
    for key, value in chosen.items():
        if not isinstance(value, bool):
            raise UserError(f"model.{key} must be true or false; got {value!r}.")
    family = instantiate(settings)
    if any(chosen.values()):
        from ivcp.models.random_weights import random_weights

        return random_weights(family, reduced=chosen["reduced"], device=device)
    try:
        family.depth()
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(
            f"{reason}; or measure {name} without weights: model.random=true makes random ones of "
            "its published sizes."
        ) from error
    return family
