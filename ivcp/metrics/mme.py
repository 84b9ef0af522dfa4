"""MME: pairs of questions about an image, in fourteen categories, as points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from ivcp.core.metric import Statistics, divided, unparsed_rate
from ivcp.metrics.yes_no import YesNoMetrics

PERCEPTION = (
    "OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters",
    "scene",
)  # fmt: skip
COGNITION = (
    "code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation",
)  # fmt: skip
CATEGORIES = PERCEPTION + COGNITION
PARTS = ("right", "questions", "both_right", "pairs")


def by_image(scored: pd.DataFrame) -> pd.DataFrame:
    """One row for each category and image; columns are `PARTS`.

    A pair is the first two questions about an image; an image with one question has no pair.

    >>> rows = {"category": ["OCR"] * 3, "image_path": ["a", "a", "b"], "score": [1.0, 1.0, 0.0]}
    >>> by_image(pd.DataFrame(rows)).reset_index()[list(PARTS)].values.tolist()
    [[2.0, 2.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    """
    key = ["category", "image_path"]
    labelled = scored.reindex(columns=[*key, "score"]).dropna()
    grouped, pair = labelled.groupby(key)["score"], labelled.groupby(key).head(2)
    questions = grouped.size().astype(float)
    pairs = (questions >= 2).astype(float)
    both = pair.groupby(key)["score"].prod() * pairs
    return pd.DataFrame(dict(zip(PARTS, (grouped.sum(), questions, both, pairs), strict=True)))


class MmeMetrics(YesNoMetrics):
    """Points of perception (of 2,000) and cognition (of 800), and their sum.

    A category gives the percentage of right answers plus that of images with both answers right.
    Categories without answers add nothing.
    """

    primary_metric = "total"
    highest = 2800.0

    def unit(self, name: str) -> Literal["%", ""]:
        return "%" if name in ("accuracy", "unparsed_rate") else ""

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """A unit is an image in a category; four columns for each category."""
        images = by_image(scored)
        category = images.index.get_level_values("category")
        columns = {
            f"{name} {part}": images[part] * (category == name)
            for name in CATEGORIES
            for part in PARTS
        }
        return pd.DataFrame(columns, index=images.index).astype(float)

    def primary_value(self, sums: Statistics) -> Statistics:
        present = ~np.isnan(points(sums))
        total: Statistics = np.where(present, points(sums), 0.0).sum(-1)
        return np.where(present.any(-1), total, np.nan)

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`total`, `perception`, `cognition` and each category in points; `accuracy`."""
        sums = self.sufficient_statistics(scored).to_numpy().sum(0)
        of_category = dict(zip(CATEGORIES, points(sums).tolist(), strict=True))
        present = {name: value for name, value in of_category.items() if not np.isnan(value)}
        groups = {
            name: sum(present[category] for category in categories if category in present)
            if any(category in present for category in categories)
            else float("nan")
            for name, categories in (("perception", PERCEPTION), ("cognition", COGNITION))
        }
        return {
            "total": float(self.primary_value(sums)),
            **groups,
            "accuracy": float(scored["score"].mean()),
            "unparsed_rate": unparsed_rate(scored),
            **{f"category/{name}": value for name, value in present.items()},
        }


def points(sums: Statistics) -> Statistics:
    """(..., 14) points of each category from (..., 56) sums; NaN for one without answers."""
    parts = sums.reshape(*sums.shape[:-1], len(CATEGORIES), len(PARTS))
    plain = divided(parts[..., 0], parts[..., 1])
    both = divided(parts[..., 2], parts[..., 3])
    return 100 * (plain + np.where(np.isnan(both), 0.0, both))
