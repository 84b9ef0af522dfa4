"""How a run stands to its unpruned baseline: what is known, or why nothing is."""

from __future__ import annotations

from dataclasses import dataclass

from ivcp.report.runs import Run


@dataclass(frozen=True)
class Interval:
    """Where a number lies with a confidence of 95 %; None where nothing is known."""

    low: float | None = None
    high: float | None = None


UNKNOWN = Interval()
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How a run and its baseline differ on the samples that both were asked.

    Of a group, the samples of each task are resampled apart, and answers of all count together.
    What is not known is None.

    Attributes:
        difference: Of primary_metric minus baseline, in the primary_metric's unit.
        relative: Of primary_metric over baseline.
        fixed: Answers that only the run has right.
        regressed: Answers that only the baseline has right.
        p: Of McNemar's exact test on these two.
    """

    difference: Interval = UNKNOWN
    relative: Interval = UNKNOWN
    fixed: int | None = None
    regressed: int | None = None
    p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval of the difference leaves out 0 and McNemar's p is below 0.05.

        The interval alone is deceived by a handful of answers, which resampling hardly varies.
        """
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or self.p is None:
            return False
        return not low <= 0 <= high and self.p < ALPHA


NOT_PAIRED = Paired()


@dataclass(frozen=True)
class Unpaired:
    """A run, or a task of a group, without these statistics though it has a baseline.

    Attributes:
        run: The run.
        reason: Why, without a full stop.
    """

    run: Run
    reason: str
