"""Is it their coordinates that IVC tokens give a model, or that they are spread over the image?"""

from __future__ import annotations

from experiments.analysis.differences import add_holm
from experiments.analysis.drawing import curves, split
from experiments.analysis.samples import BOXES, Run, Studies, arms, ratio
from experiments.analysis.tables import UNPRUNED, Analysis, pivots, row, to_table, unpruned_rows

IVC, NO_BASE, BASE_ALONE = "ivc", "alone", "base alone"
KEYS, ENDS = ["model", "dataset", "method", "ratio", "settings"], ["low", "high", "p_holm"]
NOTE = """Primary metric in percent of tokens alone, or added to those of a base method in 0.4 of
its budget; of random tokens the mean of the draws (lowest to highest); in brackets the 95 %
interval of IVC tokens minus the tokens of the line; * where p is below 0.05 after Holm's correction
over all controls and ratios, with tokens alone (early, and late) or with all bases, of a model and
dataset."""


def base(run: Run) -> str:
    """The base method that tokens are added to."""
    if run.info.pruner == "plus_ivc":
        return run.sweep.partition("-")[0]
    late = f", before layer {run.info.layer_names}" if run.sweep.startswith("late-") else ""
    return NO_BASE + late


def tokens(run: Run) -> str:
    """Which tokens are kept, or added."""
    settings = run.settings
    if settings.get("share") == 0:
        return BASE_ALONE
    changed = [f"{name}={settings[name]}" for name in ("rope_base", "offset") if settings.get(name)]
    return " ".join([settings.get("added", run.info.pruner), *changed])


def analyse(studies: Studies) -> Analysis | None:
    """IVC tokens against each control at the same ratio."""
    rows = []
    for model in studies.models:
        found = arms(
            studies.runs(model, "spread"),
            lambda run: (run.info.dataset, base(run), ratio(run), tokens(run)),
        )
        for (*group, name), arm in found.items():
            method = group[1]
            question = method if method.startswith(NO_BASE) else "added"
            rows.append(row(question, arm, method=method, settings=name))
            ivc = found.get((*group, IVC))
            if ivc and name != IVC:
                names = {"method": method, "settings": IVC, "against": name}
                rows.append(row(question, ivc, arm, **names))
    if not rows:
        return None
    table = to_table([*rows, *unpruned_rows(studies)])
    table = add_holm(table, "question", "model", "dataset")
    pairs = table[table["against"].notna()].drop(columns="settings")
    pairs = pairs.rename(columns={"against": "settings"})
    scores = table[table["against"].isna()].drop(columns=ENDS)
    shown = scores[scores["question"] != UNPRUNED].merge(pairs[[*KEYS, *ENDS]], "left", KEYS)
    shown = shown.rename(columns={"settings": "tokens"})
    tables = pivots(shown, ["model", "dataset", "method"], ["tokens"], "ratio")
    boxes = table[table["against"].isna() & (table["quantity"] == BOXES)]
    boxes = boxes.assign(x=boxes["ratio"], line=boxes["settings"])
    return Analysis(table, tables, NOTE, curves(split(boxes, "method", "model"), "ratio"))
