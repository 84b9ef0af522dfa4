"""Does a model need its tokens' own positions, or only their order?"""

from __future__ import annotations

from experiments.analysis.differences import add_holm
from experiments.analysis.drawing import dots, split
from experiments.analysis.samples import BOXES, Run, Studies, arms
from experiments.analysis.tables import Analysis, pivots, row, to_table, unpruned_rows

ORDERS = ("own", "gapless", "shuffled")
RENUMBER = ("False", "ranks", "shuffled")
NOTE = """Primary metric in percent at a ratio of 0.5; in brackets the 95 % interval of the
difference to own positions; * where McNemar's p is below 0.05 after Holm's correction over all
tests of a model and dataset."""


def analyse(studies: Studies) -> Analysis | None:
    """Each method with its tokens' own positions, gapless ones and shuffled ones."""

    def key(run: Run) -> tuple[str, str, int]:
        return run.info.dataset, run.info.pruner, RENUMBER.index(str(run.settings["renumber"]))

    rows = []
    for model in studies.models:
        found = arms(studies.runs(model, "positions"), key)
        for (dataset, method, order), arm in found.items():
            own = found.get((dataset, method, 0)) if order else None
            rows.append(row("positions", arm, own, settings=ORDERS[order], against=ORDERS[0]))
    if not rows:
        return None
    table = add_holm(to_table([*rows, *unpruned_rows(studies)]), "model", "dataset")
    methods = table[table["question"] == "positions"]
    boxes = methods[methods["quantity"] == BOXES].assign(
        x=methods["method"], line=methods["settings"]
    )
    figure = dots(split(boxes, "model"), sorted(set(boxes["x"])), "acc@0.5, ratio 0.5")
    tables = pivots(methods, ["model", "dataset"], ["method", "layer"], "settings")
    return Analysis(table, tables, NOTE, figure)
