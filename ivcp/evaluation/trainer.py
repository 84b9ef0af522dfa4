"""The trainer and the processes that it starts: what runs where, what is said when one fails."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
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
from ivcp.evaluation.data import AssignedBatches
from ivcp.evaluation.gpus import first_gpus
from ivcp.evaluation.module import Evaluation
from ivcp.evaluation.process import Interrupted, StopsBetweenBatches, end_with

SHARING = ("auto", "balanced", "sequential")
"""Values of `device_map` that can do with a part of a machine's GPUs."""

REFUSED = {
    "callbacks": "the evaluation has its own",
    "logger": "the evaluation has its own; choose logger=",
    "use_distributed_sampler": "the evaluation assigns samples itself",
    "limit_predict_batches": "answers would be missing; use limit=",
    "fast_dev_run": "answers would be missing; use limit=",
}
"""Keywords that a trainer of an evaluation cannot have, and why."""

ALONE: dict[str, tuple[Any, ...]] = {
    "devices": (1, "1", "auto"), "num_nodes": (1,), "strategy": ("auto",),
}  # fmt: skip
"""Keywords of a trainer that leaves all GPUs to a server, and their values."""

MANY = 4
"""So many processes start on any machine without GPUs, for a try; more need a CPU core each."""

PATIENCE = timedelta(days=30)
"""How long a process that has done its share waits for the others; by default half an hour."""

STOPPING = 60
"""Seconds that processes get to finish their batch when the run is asked to stop."""

LOADER = re.compile(r"DataLoader (timed out|worker \(pid)[^.\n]*")
LOADING = (
    "Loading data came to nothing ({}): a process that loads data hung or died, perhaps for want "
    "of memory. Use fewer workers, a larger worker_timeout, or workers=0 to see its error; "
    "finished answers are kept: go on with resume=true."
)

GONE = (
    "A process of the evaluation is gone ({}); its own error stands above, unless it was killed, "
    "perhaps by the system for want of memory. Finished answers are kept: go on with resume=true."
)


def make_trainer(
    trainer: Callable[..., lightning.Trainer],
    callbacks: list[lightning.Callback],
    sweep: bool = False,
    device_map: str | None = None,
    servers: int = 0,
) -> lightning.Trainer:
    """The trainer, or one sentence about why it cannot be.

    Where a model is spread and several processes have GPUs, each gets its share of the machine's.

    Args:
        trainer: Makes it.
        callbacks: Its callbacks.
        sweep: Whether this is one of several runs of a process.
        device_map: How the model is spread over several devices, if it is.
        servers: How many servers have the model, and all GPUs, instead of the processes.

    Raises:
        UserError: The hardware is missing, the strategy would start the sweep again, all processes
            would put the model in one place, or there would be several beside a server.
    """
    if servers:
        check_alone(trainer)
        strategy = "ddp_spawn" if servers > 1 else "auto"
        trainer = partial(trainer, accelerator="cpu", devices=servers, strategy=strategy)
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
        devices = _keywords(trainer).get("devices")
        if not isinstance(devices, Sequence):  # but a number of them
            firsts = first_gpus(CUDAAccelerator.auto_device_count(), made.num_devices)
            made = build(trainer, callbacks, devices=firsts)
    if isinstance(made.strategy, DDPStrategy):
        made.strategy._timeout = PATIENCE
    # Lightning's handlers would ignore SIGTERM
    made._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
    launcher = made.strategy.launcher
    subprocesses = isinstance(launcher, _SubprocessScriptLauncher) and launches_workers(made)
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
        UserError: The hardware is missing, a keyword is unknown or of no use here, or processes are
            there that would each spawn others.
    """
    keywords = _keywords(trainer)
    for name, reason in REFUSED.items():
        if keywords.get(name):
            raise UserError(f"trainer.{name} cannot be set: {reason}.")
    if (strategy := str(keywords.get("strategy"))).endswith(("_spawn", "_fork")):
        if (tasks := started_together()) > 1:
            raise UserError(
                f"trainer.strategy={strategy} starts its processes itself, but torchrun or a "
                f"cluster says that {tasks} were started; use trainer.strategy=ddp, or start one."
            )
        other["plugins"] = [*(keywords.get("plugins") or ()), LightningEnvironment()]
    try:
        made = trainer(callbacks=callbacks, logger=False, use_distributed_sampler=False, **other)
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"The trainer cannot be used here ({reason}); choose another with trainer=cpu or "
            "trainer=auto."
        ) from error
    most = max(MANY, os.cpu_count() or 1)
    if made.num_devices > most and not on_gpus(made):
        raise UserError(
            f"trainer.devices={made.num_devices} would start as many processes on a machine with "
            f"{os.cpu_count()} CPU cores; use at most {most}."
        )
    return made


def check_alone(trainer: Callable[..., lightning.Trainer]) -> None:
    """Refuse several processes, or a choice of GPUs, where a server spreads the model by itself.

    Raises:
        UserError: The trainer has them.
    """
    keywords = _keywords(trainer)
    wanted = {name: keywords.get(name, usual) for name, (usual, *_) in ALONE.items()}
    for name, value in wanted.items():
        if value not in ALONE[name]:
            raise UserError(
                f"trainer.{name}={value} is of no use with backend=vllm, which spreads over GPUs "
                "by itself: use trainer=auto, backend.tensor_parallel_size and data_parallel_size."
            )
    if (tasks := started_together()) > 1:
        raise UserError(
            f"backend=vllm is started by one process, but torchrun or a cluster says that {tasks} "
            "were started: start one, with backend.data_parallel_size."
        )


def _keywords(trainer: Callable[..., lightning.Trainer]) -> dict[str, Any]:
    """What a partial trainer was configured with."""
    keywords: dict[str, Any] = getattr(trainer, "keywords", {})
    return keywords


def _nothing() -> None:
    """Do nothing; a named function, since it travels to processes."""


def started_together() -> int:
    """How many processes torchrun or a cluster has started of which this is one."""
    return max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def launches_workers(trainer: lightning.Trainer) -> bool:
    """Whether no process waits for this one, as those do that a cluster or torchrun started."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is None or not environment.creates_processes_externally


def on_gpus(trainer: lightning.Trainer) -> bool:
    """Whether the processes have GPUs."""
    return isinstance(trainer.accelerator, CUDAAccelerator)


def predict(
    trainer: lightning.Trainer,
    module: Evaluation,
    batches: AssignedBatches,
    stop: StopsBetweenBatches,
) -> None:
    """Run the trainer; what ends a spawned process arrives as what it is.

    Raises:
        Interrupted: A signal stopped this process or one that it started.
        UserError: As in the process, or a process is gone.
    """
    launcher = stop.launcher = trainer.strategy.launcher
    ended = threading.Event()
    threading.Thread(target=_watch, args=(launcher, stop, ended), daemon=True).start()
    try:
        trainer.predict(module, datamodule=batches, return_predictions=False)
        if stop.received:  # too late for a batch
            raise Interrupted(stop.received)
    except (Exception, SystemExit) as error:
        if isinstance(error, Interrupted) or stop.received:
            for process in _started(launcher):  # which stop likewise, and write their last batch
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOPPING)
            if isinstance(error, Interrupted):
                raise
            raise Interrupted(stop.received) from error
        if (explained := _explained(error, launcher)) is error:
            raise
        raise explained from error
    finally:
        ended.set()
        stop.launcher = None
        _forget(sys.exc_info()[1])
        module.release()


def _explained(error: BaseException, launcher: Any) -> BaseException:
    """An error of this process, or what it says of one in another process."""
    if isinstance(error, ProcessRaisedException):
        for kind in (UserError, Interrupted):
            _, found, text = str(error).rpartition(f"{kind.__module__}.{kind.__name__}: ")
            if found:
                return kind(text.strip())
    if loading := LOADER.search(str(error)):
        return UserError(LOADING.format(loading[0]))
    if isinstance(error, ProcessExitedException):
        return UserError(GONE.format(error))
    if isinstance(error, RuntimeError) and (lost := lost_process(launcher)):
        return UserError(GONE.format(lost))  # this process waited for it
    return error


def _started(launcher: Any) -> list[Any]:
    """Processes that this one has started, each a `subprocess.Popen`."""
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []


def lost_process(launcher: Any, seconds: float = 3.0) -> str:
    """Which of the processes that a launcher has started ended with an error; empty if none did.

    Args:
        launcher: Lightning's.
        seconds: How long to wait for one that is just about to end.
    """
    until = time.monotonic() + seconds
    while processes := _started(launcher):
        for rank, process in enumerate(processes, start=1):
            if code := process.poll():
                return f"process {rank}, with exit code {code}"
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    return ""


def _watch(launcher: Any, stop: StopsBetweenBatches, ended: threading.Event) -> None:
    """End this process when one that it has started is lost, wherever it stands.

    Lightning's own observer would kill it every five seconds, without a word, and also when the
    others stop because of a signal. It first looks after five seconds, and finds nothing to do.
    """
    while not ended.wait(0.5):
        for thread in threading.enumerate():
            if isinstance(thread, _ChildProcessObserver):
                thread._run = lambda: True  # type: ignore[method-assign]
        if not stop.received and (lost := lost_process(launcher, seconds=0)):
            Console(stderr=True).show_cursor()
            print(GONE.format(lost), file=sys.stderr, flush=True)
            for process in launcher.procs:
                process.kill()
            os._exit(2)


def _forget(error: BaseException | None) -> None:
    """Free what the frames of a failed run hold, such as a cache, as a sweep keeps the error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class EndsWithFirst(Callback):
    """Ends a process that the first one of its machine started when that one is gone.

    Killed, the first one cannot end the others, which would go on unseen and hold their GPUs.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch who started this process; a cluster's and torchrun's look after their own."""
        environment = getattr(trainer.strategy, "cluster_environment", None)
        spawned = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
        if isinstance(environment, LightningEnvironment) and (spawned or trainer.local_rank > 0):
            end_with(os.getppid(), GONE.format("the one that started this one"))
