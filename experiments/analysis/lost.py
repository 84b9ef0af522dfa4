"""What makes an answer wrong: the object's tokens lost, holes in the image, or an early layer?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.stats import norm

from experiments.analysis.differences import add_holm
from experiments.analysis.logistic import explained, logistic
from experiments.analysis.samples import BOXES, Key, Run, Studies
from experiments.analysis.tables import Analysis, pivot, pivots, row, to_table
from ivcp.report.figures import STYLE, draw_figure, percent

FROM = ("positions", "spread", "horizon", "equal_cost")
RIGHT, KEPT, COVERAGE, SHARE = BOXES, "kept_in_box", "coverage", "layers with all tokens"
PREDICTORS = [KEPT, COVERAGE, SHARE]
SETS = ([KEPT], [COVERAGE], [SHARE], [KEPT, COVERAGE], PREDICTORS)
NOTE = """All pruned grounding runs of four studies with their tokens' own positions. `kept_in_box`:
the part of the true box's tokens that remains; `coverage`: the largest distance from a token to a
remaining one, in image diagonals; `layers with all tokens`: the first pruned layer over all layers.
Log-odds of a right answer: one logistic regression over all answers, with 95 % intervals robust to
the dependence of answers to one sample and of answers in one run; * where p is below 0.05 after
Holm's correction. R²: linear regressions of the runs' acc@0.5 on their means."""


def usable(studies: Studies, model: str) -> list[Run]:
    """The runs that count; those that come to the same tokens and answers do so once."""
    runs: dict[Key, Run] = {}
    for run in (run for study in FROM for run in studies.runs(model, study)):
        info, settings = run.info, run.settings
        own = str((settings.get("base") or settings).get("renumber", False)) == "False"
        measured = bool(info.layers) and bool(np.isfinite(run.kept_in_box).any())
        if info.primary_metric.name == BOXES and run.sweep != "diagnose" and own and measured:
            outcome = (run.counts.right, run.kept_in_box, run.coverage)
            runs.setdefault((info.layers, *(each.tobytes() for each in outcome)), run)
    return list(runs.values())


def analyse(studies: Studies) -> Analysis | None:
    """What explains right answers, on samples and on runs."""
    rows, means, runs = [], [], []
    for model in studies.models:
        if not (found := usable(studies, model)):
            continue
        names = {"model": model, "dataset": found[0].info.dataset}
        samples = pd.concat([_samples(run, number) for number, run in enumerate(found)])
        rows += [names | each for each in effects(samples.dropna())]
        runs.append(pd.DataFrame([_means(run) for run in found]))
        for columns in SETS:
            value = explained(runs[-1][columns].to_numpy(), runs[-1][RIGHT].to_numpy())
            names |= {"question": "R²", "quantity": "R²", "settings": " + ".join(columns)}
            rows.append(names | {"samples": len(found), "value": value})
        for run in sorted(found, key=lambda run: run.info.pruner):
            if run.sweep == "all":
                values = [(name, _means(run)[name]) for name in (RIGHT, KEPT, COVERAGE)]
                means += [
                    row("methods", (run,), quantity=name, value=value) for name, value in values
                ]
    if not runs:
        return None
    table, of_runs = add_holm(to_table(rows), "model", "quantity"), pd.concat(runs)
    odds = table["question"] == "logistic"
    tables = {
        "log-odds of a right answer": pivot(table[odds], ["model", "settings"], "quantity"),
        "R² of runs": pivot(table[~odds], ["settings"], "model"),
    }
    methods = to_table(means)
    tables |= pivots(methods, ["model", "question"], ["method", "layer"], "quantity")
    files = {"runs.csv": of_runs}
    return Analysis(pd.concat([table, methods]), tables, NOTE, _figure(of_runs), files)


def _samples(run: Run, number: int = 0) -> pd.DataFrame:
    """One row an answer."""
    columns = {RIGHT: run.counts.right, KEPT: run.kept_in_box, COVERAGE: run.coverage}
    share = min(run.info.layers) / run.depth
    return pd.DataFrame({"id": run.ids, "run": number, **columns, SHARE: share})


def _means(run: Run) -> dict[str, Any]:
    """One row of runs."""
    info, means = run.info, _samples(run)[[RIGHT, *PREDICTORS]].mean()
    names = {"model": info.model, "method": info.pruner, "ratio": info.ratio}
    count = info.budget.count if info.budget else ""
    return {**names, "layer": info.layer_names, "budget": count, **means.to_dict()}


def effects(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """What each predictor adds to the log-odds, by its own unit and by its standard deviation."""
    predictors = samples[PREDICTORS].to_numpy(np.float64)
    clusters = [pd.factorize(samples[name])[0] for name in ("id", "run")]
    beta, errors = logistic(predictors, samples[RIGHT].to_numpy(np.bool_), *clusters)
    rows: list[dict[str, Any]] = []
    for quantity, scale in (("log-odds", np.ones(3)), ("log-odds per SD", predictors.std(0))):
        for name, *numbers in zip(PREDICTORS, beta[1:] * scale, errors[1:] * scale, strict=True):
            value, error = map(float, numbers)
            ends = {"low": value + error * norm.ppf(0.025), "high": value + error * norm.ppf(0.975)}
            p = float(2 * norm.sf(abs(value) / error)) if error else 1.0
            names = {"question": "logistic", "quantity": quantity, "settings": name, "test": "wald"}
            rows.append(names | ends | {"samples": len(samples), "value": value, "p": p})
    return rows


@rc_context(STYLE)  # type: ignore[arg-type]
def _figure(runs: pd.DataFrame) -> Figure:
    """Accuracy against the part of the box that remains, a dot a run, coloured by coverage."""
    models = sorted(set(runs["model"]))
    figure, panels = draw_figure("", len(models), [])
    scale = Normalize(runs[COVERAGE].min(), runs[COVERAGE].max())
    for panel, model in zip(panels, models, strict=True):
        block = runs[runs["model"] == model]
        panel.scatter(100 * block[KEPT], 100 * block[RIGHT], 12, block[COVERAGE], norm=scale)
        panel.set_title(model, loc="left", fontweight="bold")
        panel.set_xlabel("tokens of the true box that remain")
        percent(panel, x=True, y=True)
    panels[0].set_ylabel("acc@0.5 of a run")
    figure.colorbar(ScalarMappable(scale), ax=panels, label="coverage, image diagonals")
    return figure
