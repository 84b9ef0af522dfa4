"""Scores by an LLM judge, after all answers are in, where a metric's rules are not enough."""

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
    """Let a judge score the answers for which the metric has a prompt, all in one call.

    The rule's score stands for all answers if there is no judge or it turns out that it can't be
    used: predictions that took hours are not lost to a wrong key. It stands for single answers
    without a reply, or whose reply the metric can't read.

    Args:
        records: With the rule's scores; those of failed samples are left alone.
        metric: Writes the prompts and reads the replies.
        judge: None for none.

    Returns:
        The records, and for the report: `scored_by` ("model" if it gave any score, else "rule"),
        `reason` (a sentence on why rules scored where a model should have; None if they did not),
        `prompts` (how many there are for a judge), `scored` (how many gave a score) and, if the
        judge was used, `unscored` (no reply, or no score in it) and `account`, the judge's own.
    """
    scored = list(records)
    prompts = _prompts(scored, metric)
    info: dict[str, Any] = {
        "scored_by": "rule", "reason": None, "prompts": len(prompts), "scored": 0,
    }  # fmt: skip
    if not prompts:
        return scored, info
    if judge is None:
        info["reason"] = _missing_judge([sample for sample, _ in prompts.values()], metric)
        return scored, info
    try:
        if missing := judge.missing():
            raise UserError(missing)
        replies = judge.complete([prompt for _, prompt in prompts.values()])
    except UserError as error:
        info["reason"] = f"{error} No model scored the answers; rules stood in."
        return scored, {**info, "account": judge.account()}
    for (index, (sample, _)), reply in zip(prompts.items(), replies, strict=True):
        by_judge = None if reply is None else metric.parse_judge_reply(reply, sample)
        record = replace(scored[index], judged=reply)
        if by_judge is not None:
            by_rule = record.parsed, record.score
            record = replace(record, parsed=by_judge[0], score=by_judge[1], by_rule=by_rule)
            info["scored"] += 1
        scored[index] = record
    unscored = len(prompts) - info["scored"]
    if unscored:
        info["reason"] = (
            f"The judge gave no score for {unscored} of {len(prompts)} answers that it was to "
            "score; rules stood in for those."
        )
    scored_by = "model" if info["scored"] else "rule"
    info |= {"scored_by": scored_by, "unscored": unscored, "account": judge.account()}
    return scored, info


def _prompts(records: Sequence[Record], metric: AnswerMetric) -> dict[int, tuple[Sample, str]]:
    """Sample and prompt for each index into the records that a judge is to score."""
    prompts = {}
    for index, record in enumerate(records):
        if record.failed is None:
            sample = record.sample()
            prompt = metric.judge_prompt(record.prediction, record.parsed, sample)
            if prompt is not None:
                prompts[index] = sample, prompt
    return prompts


def _missing_judge(samples: Sequence[Sample], metric: AnswerMetric) -> str | None:
    """Why values are not what their name promises, and what to do; None if a rule is meant."""
    tasks = getattr(metric, "tasks", {})  # of a group, by the samples' label
    for_models = [
        sample
        for sample in samples
        if tasks.get(sample.labels.get("task"), metric).judged_by == "model"
    ]
    if not for_models:
        return None
    names = " and ".join(sorted({sample.benchmark or "This benchmark" for sample in for_models}))
    return (
        f"{names}: answers are meant to be graded by a model, but a rule stood in, so the values "
        "compare with no published ones; add judge=openai to have the answers graded."
    )
