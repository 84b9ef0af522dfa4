"""Metrics of VLMEvalKit's benchmarks: by its current rules, the research release's, or stricter."""

from __future__ import annotations

from typing import Literal, get_args

from ivcp.core.errors import UserError
from ivcp.core.metric import AnswerMetric
from ivcp.core.types import Answer

Compat = Literal["vlmevalkit", "release", "strict"]


class VlmEvalKitMetric(AnswerMetric):
    """Base of the metrics whose rules VLMEvalKit defines.

    Args:
        compat: "vlmevalkit" for the rules of its current code; "release" for those of the older
            copy inside the IVC-Prune release, where they differ; "strict" for the current ones,
            except that the article "a" is not the letter of an option.

    Raises:
        UserError: `compat` is something else.
    """

    def __init__(self, compat: Compat = "vlmevalkit") -> None:
        super().__init__()
        if compat not in get_args(Compat):
            raise UserError(f"metric.compat must be {', '.join(get_args(Compat))}; got {compat!r}.")
        self.compat = compat

    def text(self, prediction: str) -> str:
        """The reply as it is scored.

        The release keeps replies in a spreadsheet, where one that begins with "=" is a formula
        whose value is 0.
        """
        formula = self.compat == "release" and prediction.startswith("=")
        return "0" if formula else prediction


def texts(answer: Answer | None) -> tuple[str, ...]:
    """The accepted texts of an open question, as a tuple.

    >>> texts("cat"), texts(("cat", "kitten"))
    (('cat',), ('cat', 'kitten'))

    Raises:
        TypeError: It is no text.
    """
    accepted = (answer,) if isinstance(answer, str) else tuple(answer or ())
    if not all(isinstance(text, str) for text in accepted):
        raise TypeError(f"Expected one or more texts as answer, but got {answer!r}.")
    return tuple(str(text) for text in accepted)
