"""Keeps the screen for the progress bar and the table."""

from __future__ import annotations

import logging
import os
import warnings


def silence() -> None:
    """Hide Lightning's tips and its advice for training; errors and our own warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\..*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\..*")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are forked
