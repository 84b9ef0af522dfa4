"""The part of the configuration that evaluation itself follows, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ivcp.core.errors import UserError
from ivcp.engine.generate_arguments import check_generation

LEAST = {
    "batch_size": 1, "workers": 0, "worker_timeout": 0, "limit": 1, "pictures": 0, "seed": 0,
}  # fmt: skip
LEAST_WORKERS, WORKERS_A_CORE = 16, 4
"""So many processes that load data are never refused, in all and for each CPU core."""
LARGEST_SEED = 2**32 - 1  # of numpy

FOLDERS = {
    "baseline": "null, auto, or the folder of a finished run",
    "resume": "true, false, or the folder of a run",
}
OTHERWISE = {"limit": ", or null for all samples", "batch_size": ", or auto"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run goes.

    Attributes:
        batch_size: Samples a batch, at least 1; "auto" for as many as fit.
        workers: Processes that load data; 0 loads in the main process.
        worker_timeout: Seconds that one of them may take for a batch; 0 for as long as it takes.
        limit: Most samples to evaluate, at least 1; None takes all.
        pictures: Number of first samples whose kept tokens are drawn.
        seed: Of everything that is drawn at random.
        baseline: None, "auto", or the folder of a finished run.
        resume: Whether to go on where an interrupted run of the same settings stopped; or its
            folder.
        generation: Keyword arguments of `generate`.
    """

    batch_size: int | Literal["auto"] = 8
    workers: int = 2
    worker_timeout: int = 50
    limit: int | None = None
    pictures: int = 4
    seed: int = 0
    baseline: str | None = "auto"
    resume: bool | str = False
    generation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A field is no whole number or out of its range, or an argument of `generate`
                cannot be used.
        """
        for name, least in LEAST.items():
            value, optional = getattr(self, name), name == "limit"
            if (optional and value is None) or (name == "batch_size" and value == "auto"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(
                    f"{name} must be a whole number of at least {least}"
                    f"{OTHERWISE.get(name, '')}; got {value!r}."
                )
        if self.workers > (most := max(LEAST_WORKERS, WORKERS_A_CORE * (os.cpu_count() or 1))):
            raise UserError(
                f"workers must be at most {most} on a machine with {os.cpu_count()} CPU cores; got "
                f"{self.workers}."
            )
        for name, wanted in FOLDERS.items():
            value = getattr(self, name)
            allowed = isinstance(value, bool) if name == "resume" else value is None
            if not allowed and not isinstance(value, str | Path):
                raise UserError(f"{name} must be {wanted}; got {value!r}.")
        if self.seed > LARGEST_SEED:
            raise UserError(f"seed must be at most {LARGEST_SEED}; got {self.seed}.")
        object.__setattr__(self, "generation", check_generation(self.generation))

    @classmethod
    def of(cls, config: dict[str, Any]) -> Settings:
        """The settings in a whole configuration; other keys are passed over."""
        names = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in names})
