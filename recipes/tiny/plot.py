"""Draw a training curve: `python -m recipes.tiny.plot runs/tiny/llava/log/metrics.csv llava`.

Of a run that was resumed, both logs are named, in order (`log/`, `log-on/`). Writes `llava.csv`
(the log) and `llava.png` beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
LOSSES = ("language", "pointer", "box", "dense_box", "shape", "count")


def main() -> None:
    """Read the log of a run and draw losses and validation accuracy over the images seen."""
    *logs, name = sys.argv[1:]
    log = pd.concat(map(pd.read_csv, logs))
    log["images"] = log["images"].ffill()
    log.round(4).to_csv(HERE / f"{name}.csv", index=False)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for loss in LOSSES:
        values = log.dropna(subset=[f"loss/{loss}"])
        left.plot(values["images"], values[f"loss/{loss}"].rolling(5, min_periods=1).mean(),
                  label=loss, linewidth=1)  # fmt: skip
    left.set(yscale="log", xlabel="images", ylabel="training loss (mean of 5)")
    left.legend(fontsize=8)
    for task, label in (
        ("grounding", "grounding: Acc@0.5"),
        ("yes_no", "yes/no: accuracy"),
        ("multiple_choice", "counting: accuracy"),
    ):
        values = log.dropna(subset=[f"val/{task}"])
        right.plot(values["images"], values[f"val/{task}"], marker="o", label=label)
    right.set(ylim=(0, 1), xlabel="images", ylabel="validation, generated answers")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(HERE / f"{name}.png", dpi=130)


if __name__ == "__main__":
    main()
