"""Do seeds help the foreground, and what does choosing the layer on validation do to a ranking?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.analysis.differences import add_holm, compare_boxes
from experiments.analysis.drawing import curves, split
from experiments.analysis.equal_cost import agreement
from experiments.analysis.samples import Studies, arms, by_layer
from experiments.analysis.tables import Analysis, pivot, pivots, row, to_table, unpruned_rows

SEEDS = ("text alone", "with seeds")
NOTE = """Seeds: in percent, with seeds as queries beside the text (`pruner.seed_ratio=0.01`); in
brackets the 95 % interval of the difference to text alone; * where p (McNemar's; of `kept_in_box`
the bootstrap's) is below 0.05 after Holm's correction over methods, layers and ratios of a model.
Layers: test scores, against the unpruned model, at the layer that validation chooses: the earliest
one at which the interval of the difference to the unpruned model holds 0, else the best one."""


def choose_layer(scores: Mapping[int, float], level: Mapping[int, bool]) -> int:
    """The earliest layer that is level with the unpruned model, else the earliest of the best.

    >>> choose_layer({1: 0.2, 2: 0.9, 3: 0.8}, {1: False, 2: False, 3: True})
    3
    """
    enough = [layer for layer in sorted(scores) if level[layer]]
    return enough[0] if enough else max(sorted(scores), key=lambda layer: scores[layer])


def analyse(studies: Studies) -> Analysis | None:
    """Seeds against none at each layer, and layers chosen on validation."""
    rows = []
    for model in studies.models:
        rows += [*seeds(studies, model), *layers(studies, model)]
    if not rows:
        return None
    table = to_table([*rows, *unpruned_rows(studies)])
    table = add_holm(table, "question", "model", "quantity")
    chosen = table[table["question"] == "layers"]
    ranks = agreement(chosen[chosen["quantity"] != "layer"])
    seeded = table[(table["question"] == "seeds") & (table["settings"] == SEEDS[1])]
    tables = pivots(seeded, ["model", "question", "quantity"], ["ratio", "layer"], "method")
    tables |= pivots(chosen, ["model", "question"], ["method"], "settings")
    tables["agreement of rankings"] = pivot(ranks, ["model"], "settings")
    drawn = table[table["question"].isin(["seeds", "val"]) & (table["quantity"] != "kept_in_box")]
    drawn = drawn[drawn["ratio"] == drawn["ratio"].max()]
    names = (drawn["method"] + " " + drawn["settings"]).str.strip()
    ends = drawn[["low", "high"]].where(drawn["question"] == "seeds")  # of eight lines too many
    drawn = drawn.assign(x=drawn["layer"], line=names, low=ends["low"], high=ends["high"])
    panels = split(drawn, "question", "model")
    figure = curves(panels, "layer before which tokens are pruned")
    return Analysis(pd.concat([table, ranks]), tables, NOTE, figure)


def seeds(studies: Studies, model: str) -> list[dict[str, Any]]:
    """Scores and kept parts of the box with seeds, against those without."""
    rows = []
    found = arms(
        studies.runs(model, "two_stage", "seeds"),
        lambda run: (*by_layer(run), run.settings["seed_ratio"] > 0),
    )
    for (*group, seeded), arm in found.items():
        plain = found.get((*group, False)) if seeded else None
        names = {"settings": SEEDS[seeded], "against": SEEDS[0]}
        rows.append(row("seeds", arm, plain, **names))
        if plain:
            names["quantity"] = "kept_in_box"
            rows.append(row("seeds", arm) | compare_boxes(arm, plain) | names)
    return rows


def layers(studies: Studies, model: str) -> list[dict[str, Any]]:
    """Scores on both splits, and those on test at the chosen and at the default layer."""
    rows: dict[str, dict[str, dict[int, dict[str, Any]]]] = {"val": {}, "test": {}}
    for name, methods in rows.items():
        unpruned = studies.unpruned(model, name)
        for (*_, (layer,), method), arm in arms(
            studies.runs(model, "two_stage", name), by_layer
        ).items():
            control = unpruned.get(arm[0].info.dataset)
            methods.setdefault(method, {})[layer] = row(name, arm, control)
            half = arm[0].depth // 2
    chosen = []
    for method, at in rows["val"].items():
        scores = {layer: each["value"] for layer, each in at.items()}
        level = {
            layer: each.get("low", 1) <= 0 <= each.get("high", 0) for layer, each in at.items()
        }
        best = choose_layer(scores, level)
        names = {name: at[best][name] for name in ("model", "dataset", "method")}
        layer_row = {"question": "layers", "quantity": "layer", "settings": "layer", "value": best}
        chosen.append(names | layer_row)
        for settings, layer in (("chosen layer", best), (f"layer {half}", half)):
            if tested := rows["test"].get(method, {}).get(layer):
                chosen.append(tested | {"question": "layers", "settings": settings})
    each_layer = [
        each for methods in rows.values() for at in methods.values() for each in at.values()
    ]
    return [*each_layer, *chosen]
