"""The processes of an evaluation: who starts them, and what is told when one of them fails."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import (
    _MultiProcessingLauncher,
    _SubprocessScriptLauncher,
)
from rich.console import Console
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from ivcp.core.errors import UserError
from ivcp.evaluation.data import SharedBatches
from ivcp.evaluation.machine import first_gpus
from ivcp.evaluation.module import Evaluation

SHARING = ("auto", "balanced", "sequential")
"""Values of `device_map` that can do with a part of a machine's GPUs."""

PATIENCE = timedelta(days=30)
"""How long a process that has done its share waits for the others; by default half an hour."""

GONE = (
    "A process of the evaluation is gone ({}); its own error stands above, unless it was killed, "
    "perhaps by the system for want of memory. Finished answers are kept: go on with resume=true."
)


def make_trainer(
    trainer: Callable[..., lightning.Trainer],
    callbacks: list[lightning.Callback],
    sweep: bool = False,
    device_map: str | None = None,
) -> lightning.Trainer:
    """The trainer, or one sentence about why it cannot be.

    Where a model is spread and several processes have GPUs, each gets its share of the machine's.

    Args:
        trainer: Makes it.
        callbacks: Its callbacks.
        sweep: Whether this is one of several runs of a process.
        device_map: How the model is spread over several devices, if it is.

    Raises:
        UserError: The hardware is missing, the strategy would start the sweep again, or all
            processes would put the model in one place.
    """
    told = getattr(trainer, "keywords", {})
    made = build(trainer, callbacks)
    if made.precision != "32-true":
        raise UserError(
            f"trainer.precision must be 32-true, which leaves the model as it was loaded; got "
            f"{made.precision}: choose model.dtype instead."
        )
    if device_map is not None and made.num_devices > 1 and on_gpus(made):
        if device_map not in SHARING:
            raise UserError(
                f"model.device_map must be {' or '.join(SHARING)} where {made.num_devices} "
                f"processes share the GPUs of a machine; got {device_map!r}."
            )
        if not isinstance(told.get("devices"), Sequence):  # a number was given, not a list
            firsts = first_gpus(CUDAAccelerator.auto_device_count(), made.num_devices)
            made = build(trainer, callbacks, devices=firsts)
    if isinstance(made.strategy, DDPStrategy):
        made.strategy._timeout = PATIENCE
    launcher = made.strategy.launcher
    subprocesses = isinstance(launcher, _SubprocessScriptLauncher) and starts_others(made)
    if sweep and made.world_size > 1 and subprocesses:
        raise UserError(
            "A sweep (-m) cannot use trainer.strategy=ddp, which would start the whole sweep again "
            "in every process; use trainer=ddp or trainer.strategy=ddp_spawn."
        )
    return made


def build(
    trainer: Callable[..., lightning.Trainer], callbacks: list[lightning.Callback], **other: Any
) -> lightning.Trainer:
    """The trainer; one that spawns its processes does so within a cluster's job of one task, too.

    Raises:
        UserError: The hardware is missing, or processes are there that would each spawn others.
    """
    told = getattr(trainer, "keywords", {})
    if str(told.get("strategy")).endswith(("_spawn", "_fork")):
        if (tasks := started_together()) > 1:
            raise UserError(
                f"trainer.strategy={told['strategy']} starts its processes itself, but torchrun or "
                f"a cluster says that {tasks} were started; use trainer.strategy=ddp, or start one."
            )
        other["plugins"] = [*(told.get("plugins") or ()), LightningEnvironment()]
    try:
        return trainer(callbacks=callbacks, logger=False, use_distributed_sampler=False, **other)
    except (MisconfigurationException, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"The trainer cannot be used here ({reason}); choose another with trainer=cpu or "
            "trainer=auto."
        ) from error


def started_together() -> int:
    """How many processes torchrun or a cluster has started of which this is one."""
    return max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def starts_others(trainer: lightning.Trainer) -> bool:
    """Whether no process waits for this one, as those do that a cluster or torchrun started."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is None or not environment.creates_processes_externally


def on_gpus(trainer: lightning.Trainer) -> bool:
    """Whether the processes have GPUs."""
    return isinstance(trainer.accelerator, CUDAAccelerator)


def predict(trainer: lightning.Trainer, module: Evaluation, shares: SharedBatches) -> None:
    """Run the trainer; a user's mistake in a spawned process arrives as the sentence that it is.

    Raises:
        UserError: As in the process, or a process was killed.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(trainer.strategy.launcher, ended), daemon=True).start()
    try:
        trainer.predict(module, datamodule=shares, return_predictions=False)
    except ProcessRaisedException as error:
        _, found, sentence = str(error).rpartition(f"{UserError.__module__}.UserError: ")
        if not found:
            raise
        raise UserError(sentence.strip()) from error
    except ProcessExitedException as error:
        raise UserError(GONE.format(error)) from error
    except RuntimeError as error:  # of a process that waits for one that is gone
        if lost := lost_process(trainer.strategy.launcher):
            raise UserError(GONE.format(lost)) from error
        raise
    finally:
        ended.set()
        _forget(sys.exc_info()[1])
        module.release()


def lost_process(launcher: Any, seconds: float = 3.0) -> str:
    """Which of the processes that a launcher has started ended with an error; empty if none did.

    Args:
        launcher: Lightning's.
        seconds: How long to wait for one that is just about to end.
    """
    until = time.monotonic() + seconds
    started = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
    while started:
        for rank, process in enumerate(started, start=1):
            if code := process.poll():
                return f"process {rank}, with exit code {code}"
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    return ""


def _watch(launcher: Any, ended: threading.Event) -> None:
    """End this process when one that it has started is lost, wherever it stands.

    Lightning's own observer would do so every five seconds, without a word.
    """
    while not ended.wait(0.5):
        if lost := lost_process(launcher, seconds=0):
            Console(stderr=True).show_cursor()
            print(GONE.format(lost), file=sys.stderr, flush=True)
            for process in launcher.procs:
                process.kill()
            os._exit(2)


def _forget(error: BaseException | None) -> None:
    """Free what the frames of a failed run hold, such as a cache, as a sweep keeps the error."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class NoOrphan(Callback):
    """Ends a process that the first one of its machine started when that one is gone.

    Killed, the first one cannot end the others, which would go on unseen and hold their GPUs.
    """

    parent: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note who started this process; a cluster's and torchrun's look after their own."""
        environment = getattr(trainer.strategy, "cluster_environment", None)
        spawned = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
        if isinstance(environment, LightningEnvironment) and (spawned or trainer.local_rank > 0):
            self.parent = os.getppid()

    def on_predict_batch_end(self, *args: Any) -> None:
        """Look.

        Raises:
            UserError: It is gone.
        """
        if self.parent not in (None, os.getppid()):
            raise UserError(GONE.format("the one that started this one"))
