"""From which layer on does it no longer matter which tokens are kept?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.analysis.differences import add_holm, compare_boxes
from experiments.analysis.drawing import curves, split
from experiments.analysis.samples import BOXES, LAYERS, Studies, arms, by_layer
from experiments.analysis.tables import (
    UNPRUNED,
    Analysis,
    pivot,
    pivots,
    row,
    to_table,
    unpruned_rows,
)
from ivcp.report.comparison import ALPHA

RANDOM = "random"
NOTE = """In percent, of random tokens the mean of the draws (lowest to highest); in brackets the
95 % interval of the difference to random tokens, of random tokens to the unpruned model; * where p
is below 0.05 after Holm's correction over methods and layers of a model, dataset and ratio.
`horizon`: the first layer from which on no method is better than random tokens with *. `no
difference`: likewise, better or worse. `random is level`: the first layer from which on all
intervals of random tokens hold 0. `kept_in_box`: the part of the true box's tokens that is kept."""


def first_from(holds: Mapping[int, bool]) -> int | None:
    """The first layer from which on something holds at every layer; None if not at the last.

    >>> first_from({1: True, 2: False, 3: True, 4: True})
    3
    """
    first = None
    for layer in sorted(holds, reverse=True):
        if not holds[layer]:
            break
        first = layer
    return first


def analyse(studies: Studies) -> Analysis | None:
    """Methods against random tokens at each layer, and where each signal finds the true box."""
    rows, recall = [], []
    for model in studies.models:
        unpruned = studies.unpruned(model)
        found = arms(studies.runs(model, "horizon", *LAYERS), by_layer)
        for (*group, method), arm in found.items():
            if method == RANDOM:
                rows.append(row("layers", arm, unpruned.get(arm[0].info.dataset)))
            else:
                rows.append(row("layers", arm, found.get((*group, RANDOM)), against=RANDOM))
        found = arms(studies.runs(model, "horizon", "diagnose"), by_layer)
        for (*group, _), arm in found.items():
            control = found.get((*group, RANDOM), arm)
            pair = compare_boxes(arm, control) | {"against": RANDOM}
            columns = {"value": pair["value"]} if control is arm else pair
            recall.append(row("diagnose", arm) | columns | {"quantity": "kept_in_box"})
    if not rows:
        return None
    family = ("model", "dataset", "ratio", "against")
    table = add_holm(to_table([*rows, *unpruned_rows(studies)]), *family)
    diagnose = add_holm(to_table(recall), *family)
    layers = table[table["question"] == "layers"]
    horizons = _horizons(layers)
    tables = {"horizons": pivot(horizons, ["model", "dataset", "ratio"], "quantity")}
    tables |= pivots(layers, ["model", "dataset"], ["ratio", "layer"], "method")
    tables |= pivots(diagnose, ["model", "quantity"], ["ratio", "layer"], "method")
    task = table["quantity"].eq(BOXES).map({True: "boxes, ratio ", False: "questions, ratio "})
    drawn = table.assign(x=table["layer"], line=table["method"], at=task + table["ratio"].map(str))
    figure = curves(split(drawn, "at", "model"), "layer before which tokens are pruned")
    files = {} if diagnose.empty else {"diagnose.csv": diagnose}
    return Analysis(pd.concat([table, horizons]), tables, NOTE, figure, files)


def _horizons(layers: pd.DataFrame) -> pd.DataFrame:
    """The layers of `NOTE` for each model, dataset and ratio."""
    differs = layers["p_holm"] < ALPHA
    level = (layers["low"] <= 0) & (layers["high"] >= 0)
    quantities = (
        ("horizon", RANDOM, ~(differs & (layers["difference"] > 0))),
        ("no difference", RANDOM, ~differs),
        ("random is level", UNPRUNED, level),
    )
    rows: list[dict[str, Any]] = []
    for names, block in layers.groupby(["model", "dataset", "ratio"]):
        columns = dict(zip(("model", "dataset", "ratio"), names, strict=True))
        for quantity, against, holds in quantities:
            held = holds[block.index[block["against"] == against]]
            if held.empty:
                continue
            first = first_from(held.groupby(block["layer"].astype(int)).all().to_dict())
            rows.append(columns | {"question": "horizon", "quantity": quantity, "value": first})
    return to_table(rows)
