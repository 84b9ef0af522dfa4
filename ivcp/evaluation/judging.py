"""Grading by a judging model, after all answers are in, where a metric's rules are not enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ivcp.core.errors import UserError
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.types import Sample
from ivcp.evaluation.records import Record


def judge_records(
    records: Sequence[Record], metric: AnswerMetric, judge: Judge | None
) -> tuple[list[Record], dict[str, Any]]:
    """Let a judge grade what the metric would have judged, all in one call.

    The rule's verdict stands for all answers if there is no judge or it turns out that it can't be
    asked: predictions that took hours are not lost to a wrong key. It stands for single answers
    about which the judge said nothing, or nothing that the metric could read.

    Args:
        records: With the rule's verdicts; those of failed samples are left alone.
        metric: Says what to ask and what a reply means.
        judge: None for none.

    Returns:
        The records, and for the report: `by` ("model" if it gave any verdict, else "rule"),
        `reason` (a sentence on why rules decided where a model should have; None if they did not),
        `wanted` answers that the metric would have judged, `judged` ones that were, and, if the
        judge was asked, `unreadable` ones (no reply, or no verdict in it) and `account`, the
        judge's own.
    """
    graded = list(records)
    asked = _questions(graded, metric)
    info: dict[str, Any] = {"by": "rule", "reason": None, "wanted": len(asked), "judged": 0}
    if not asked:
        return graded, info
    if judge is None:
        info["reason"] = _stand_in([sample for sample, _ in asked.values()], metric)
        return graded, info
    try:
        if missing := judge.missing():
            raise UserError(missing)
        replies = judge.ask([prompt for _, prompt in asked.values()])
    except UserError as error:
        info["reason"] = f"{error} No model graded the answers; rules stood in."
        return graded, {**info, "account": judge.account()}
    for (place, (sample, _)), reply in zip(asked.items(), replies, strict=True):
        heard = None if reply is None else metric.parse_judge_reply(reply, sample)
        record = replace(graded[place], judged=reply)
        if heard is not None:
            rule = record.parsed, record.score
            record = replace(record, parsed=heard[0], score=heard[1], by_rule=rule)
            info["judged"] += 1
        graded[place] = record
    unreadable = len(asked) - info["judged"]
    if unreadable:
        info["reason"] = (
            f"The judge gave no verdict on {unreadable} of {len(asked)} answers that it was to "
            "grade; rules stood in for those."
        )
    by = "model" if info["judged"] else "rule"
    return graded, {**info, "by": by, "unreadable": unreadable, "account": judge.account()}


def _questions(records: Sequence[Record], metric: AnswerMetric) -> dict[int, tuple[Sample, str]]:
    """Sample and prompt for each place among the records that a judge is to look at."""
    asked = {}
    for place, record in enumerate(records):
        if record.failed is None:
            sample = record.sample()
            prompt = metric.judge_prompt(record.prediction, record.parsed, sample)
            if prompt is not None:
                asked[place] = sample, prompt
    return asked


def _stand_in(samples: Sequence[Sample], metric: AnswerMetric) -> str | None:
    """Why values are not what their name promises, and what to do; None if a rule was meant."""
    tasks = getattr(metric, "tasks", {})  # of a group, by the samples' label
    meant = [
        sample
        for sample in samples
        if tasks.get(sample.labels.get("task"), metric).judged_by == "model"
    ]
    if not meant:
        return None
    names = " and ".join(sorted({sample.benchmark or "This benchmark" for sample in meant}))
    return (
        f"{names}: answers are meant to be graded by a model, but a rule stood in, so the values "
        "compare with no published ones; add judge=openai to have the answers graded."
    )
