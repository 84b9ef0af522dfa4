"""The contract of a judge: a language model that scores answers which rules cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any


class Judge(ABC):
    """Completes prompts; the metric writes the prompts and reads scores in the replies."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why the judge cannot be used (no key, for example), as a sentence; None if it can."""

    @abstractmethod
    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """The reply to each prompt; None where there is none.

        Raises:
            UserError: There is no reply at all, for a reason that the user can change.
        """

    @abstractmethod
    def account(self) -> dict[str, Any]:
        """For the record: model, calls, replies from the cache, failures, tokens, cost."""
