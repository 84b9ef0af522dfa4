"""A process of an evaluation: it stays quiet, stops between batches, ends with its parent."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what schedulers send."""


def silence() -> None:
    """Hide Lightning's tips and its advice for training; errors and our own warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\..*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\..*")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are forked


class Interrupted(Exception):  # noqa: N818 (nobody made a mistake)
    """The run was asked to stop by a signal; its text is the signal's number."""

    @property
    def exit_code(self) -> int:
        """What the process exits with, as a shell has it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + int(str(self))


class StopsBetweenBatches(Callback):
    """While predictions are made, a signal stops the run behind the batch at hand, else at once.

    A second signal never waits.
    """

    def __init__(self) -> None:
        self.received = 0
        self.predicting = False
        self.launcher: Any = None  # of the trainer, while it runs

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to signals inside the block, where this is the main thread of the process."""
        before = self._listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _listen(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.received = bool(self.received), number
        started = getattr(self.launcher, "procs", None) or []
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        # a process that spawned others waits for them: they stop, and so end the wait
        waits = self.predicting or (started and isinstance(self.launcher, _MultiProcessingLauncher))
        if again or not waits:
            raise Interrupted(number)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen in a spawned process, too."""
        self._listen()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on batches are waited for."""
        self.predicting = True

    def on_predict_batch_end(self, *args: Any) -> None:
        """Stop if a signal came.

        Raises:
            Interrupted: It did.
        """
        if self.received:
            raise Interrupted(self.received)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What follows need not be waited for."""
        self.predicting = False


def end_with(parent: int, message: str = "") -> None:
    """End this process soon after its parent has ended, wherever it stands and whatever killed it.

    Args:
        parent: Process id of the parent.
        message: Printed then.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if message:
            print(message, file=sys.stderr, flush=True)
        os._exit(1)  # a queue to the parent, or a lock that it holds, would keep the process

    threading.Thread(target=watch, daemon=True).start()


class LoaderProcess:
    """What a process that loads data does first.

    Ctrl-C reaches all processes of a terminal: the one that evaluates decides when to stop.
    """

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, number: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with(self.parent)
