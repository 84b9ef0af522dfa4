"""Does the ranking of methods depend on how a budget is counted?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

from experiments.analysis.differences import add_holm
from experiments.analysis.drawing import dots, split
from experiments.analysis.samples import BOXES, Run, Studies, arms, ratio
from experiments.analysis.tables import (
    Analysis,
    pivot,
    pivots,
    row,
    to_table,
    unpruned_rows,
)

METHODS, EARLY, BEFORE = "methods", "early", "before layer 0"
CONTROLS = ("random", "uniform", "farthest")
COUNTS = ("final", "layer_average", "flops")
NOTE = """Primary metric in percent at equal budgets, counted as tokens that remain (`final`), their
mean over layers (`layer_average`) or FLOPs of the prefill (`flops`); in brackets the 95 % interval
of the difference to the unpruned model; * where McNemar's p is below 0.05 after Holm's correction
over the methods of a column. Controls before layer 0 have the same tokens by the first two counts.
`before layer 0`: methods that prune before the language model, at equal final tokens, against
controls there; Holm's correction over methods and controls. `kendall tau`: how far the rankings of
the methods agree, without those controls; * as above, over the pairs of a model and dataset."""


def key(run: Run) -> tuple[str, bool, float, int, str]:
    """What tells arms apart."""
    count = run.info.budget.count if run.info.budget else COUNTS[0]
    return run.info.dataset, run.sweep == EARLY, ratio(run), COUNTS.index(count), run.info.pruner


def analyse(studies: Studies) -> Analysis | None:
    """All methods under three counts, and how far the rankings agree."""
    rows = []
    for model in studies.models:
        unpruned = studies.unpruned(model)
        found = arms(studies.runs(model, "equal_cost"), key)
        for (dataset, early, asked, count, method), arm in found.items():
            question, name = (EARLY, f"{method}, layer 0") if early else (METHODS, method)
            names: dict[str, Any] = {"method": name, "settings": COUNTS[count]}
            rows.append(row(question, arm, unpruned.get(dataset), **names))
            if arm[0].info.layers == (0,) and not early and count == 0:
                for control in CONTROLS:
                    if other := found.get((dataset, True, asked, 0, control)):
                        rows.append(row(BEFORE, arm, other, control))
            budget, kept = arm[0].info.budget, arm[0].results.tokens.keep_ratio
            obtained = budget.obtained if budget else None
            for quantity, value in (("tokens kept", kept), ("budget obtained", obtained)):
                rows.append(row("amounts", arm, **names, quantity=quantity, value=value))
    if not rows:
        return None
    table = to_table([*rows, *unpruned_rows(studies)])
    before = add_holm(table[table["question"] == BEFORE], "model", "dataset", "ratio")
    table = add_holm(table[table["question"] != BEFORE], "model", "dataset", "settings", "ratio")
    scores = table[table["question"].isin([METHODS, EARLY])]
    ranks = agreement(scores[scores["question"] == METHODS])
    shown = scores.assign(column=scores["settings"] + " " + scores["ratio"].map(str))
    tables = pivots(shown, ["model", "dataset"], ["method"], "column")
    tables |= pivots(before, ["question", "model", "dataset", "ratio"], ["method"], "against")
    tables["agreement of rankings"] = pivot(ranks, ["model", "dataset", "ratio"], "settings")
    boxes = scores[(scores["quantity"] == BOXES) & (scores["ratio"] == scores["ratio"].min())]
    boxes = boxes.assign(x=boxes["method"], line=boxes["settings"])
    order = boxes[boxes["settings"] == COUNTS[0]].groupby("x")["value"].mean()
    order = order.sort_values(ascending=False, kind="stable")
    methods = list(dict.fromkeys([*order.index, *boxes["x"]]))
    figure = dots(split(boxes, "model"), methods, f"acc@0.5, budget {boxes['ratio'].min():g}")
    return Analysis(pd.concat([table, before, ranks]), tables, NOTE, figure)


def agreement(scores: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between each two settings, over the methods that have both."""
    rows = []
    for names, block in scores.groupby(["model", "dataset", "ratio"]):
        columns = dict(zip(("model", "dataset", "ratio"), names, strict=True))
        wide = block.pivot(index="method", columns="settings", values="value")
        for one, other in combinations(dict.fromkeys(block["settings"]), 2):
            if len(both := wide[[one, other]].dropna()) < 2:
                continue
            tau = kendalltau(both[one], both[other])
            columns |= {"question": "kendall tau", "quantity": "kendall tau", "test": "kendall"}
            columns |= {"settings": f"{one}, {other}", "samples": len(both)}
            rows.append(columns | {"value": tau.statistic, "p": tau.pvalue})
    return add_holm(to_table(rows), "model", "dataset")
