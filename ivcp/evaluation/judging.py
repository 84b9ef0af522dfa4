"""Scoring by a judging model, after all answers are in, where a metric's rules are not enough."""

from __future__ import annotations

from collections.abc import Sequence

from ivcp.core.errors import UserError
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.types import Sample
from ivcp.results.prediction import Prediction
from ivcp.results.schema import Judging


def judge_predictions(
    predictions: Sequence[Prediction], metric: AnswerMetric, judge: Judge | None
) -> tuple[list[Prediction], Judging]:
    """Let a judge score the answers that the metric would have judged, all in one call.

    The rule's score stands for all answers if there is no judge or it turns out that it can't be
    used: predictions that took hours are not lost to a wrong key. It stands for single answers to
    which the judge gave no reply, or none that the metric could read.

    Args:
        predictions: With the rule's scores; those of failed samples are left alone.
        metric: Words the prompts and reads the replies.
        judge: None for none.
    """
    scored = list(predictions)
    prompts = _prompts(scored, metric)
    if not prompts:
        return scored, Judging()
    if judge is None:
        reason = _missing_judge([sample for sample, _ in prompts.values()], metric)
        return scored, Judging(reason=reason, wanted=len(prompts))
    try:
        if missing := judge.missing():
            raise UserError(missing)
        replies = judge.complete([prompt for _, prompt in prompts.values()])
    except UserError as error:
        reason = f"{error} No model scored the answers; rules stood in."
        return scored, Judging(reason=reason, wanted=len(prompts), account=judge.account())
    judged = 0
    for (index, (sample, _)), reply in zip(prompts.items(), replies, strict=True):
        result = None if reply is None else metric.parse_judge_reply(reply, sample)
        changes: dict[str, object] = {"judge_reply": reply}
        if result is not None:
            parsed, score = result
            rule = scored[index].parsed, scored[index].score
            changes |= {"parsed": parsed, "score": score, "by_rule": rule}
            judged += 1
        scored[index] = scored[index].model_copy(update=changes)
    reason = None
    if unreadable := len(prompts) - judged:
        reason = (
            f"The judge gave no score for {unreadable} of {len(prompts)} answers that it was to "
            "judge; rules stood in for those."
        )
    return scored, Judging(
        by="model" if judged else "rule",
        reason=reason,
        wanted=len(prompts),
        judged=judged,
        unreadable=unreadable,
        account=judge.account(),
    )


def _prompts(
    predictions: Sequence[Prediction], metric: AnswerMetric
) -> dict[int, tuple[Sample, str]]:
    """Sample and prompt by the index of each prediction that a judge is to look at."""
    prompts = {}
    for index, prediction in enumerate(predictions):
        if prediction.failed is None:
            sample = prediction.sample()
            prompt = metric.judge_prompt(prediction.prediction, prediction.parsed, sample)
            if prompt is not None:
                prompts[index] = sample, prompt
    return prompts


def _missing_judge(samples: Sequence[Sample], metric: AnswerMetric) -> str | None:
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
