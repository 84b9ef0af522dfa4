"""The contract of a judge: a language model that reads answers which rules cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any


class Judge(ABC):
    """Answers prompts; what they ask and what the replies mean is the metric's affair."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why the judge cannot be asked (no key, for example), as a sentence; None if it can."""

    @abstractmethod
    def ask(self, prompts: Sequence[str]) -> list[str | None]:
        """The reply to each prompt; None where none could be had."""

    @abstractmethod
    def account(self) -> dict[str, Any]:
        """For the record: model, calls, replies from the cache, failures, tokens, cost."""
