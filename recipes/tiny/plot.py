"""Draw the training curve: `python -m recipes.tiny.plot runs/tiny/.../log/metrics.csv`.

Writes `curve.csv` (the log, thinned) and `curve.png` beside this file.
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
    """Read the log of a run and draw losses and validation accuracy over training time."""
    log = pd.read_csv(sys.argv[1])
    log["minutes"] = log["minutes"].ffill()
    log.round(4).to_csv(HERE / "curve.csv", index=False)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for name in LOSSES:
        values = log.dropna(subset=[f"loss/{name}"])
        left.plot(values["minutes"], values[f"loss/{name}"].rolling(5, min_periods=1).mean(),
                  label=name, linewidth=1)  # fmt: skip
    left.set(yscale="log", xlabel="minutes", ylabel="training loss (mean of 5)")
    left.legend(fontsize=8)
    for name, label in (
        ("grounding", "grounding: Acc@0.5"),
        ("yes_no", "yes/no: accuracy"),
        ("multiple_choice", "counting: accuracy"),
    ):
        values = log.dropna(subset=[f"val/{name}"])
        right.plot(values["minutes"], values[f"val/{name}"], marker="o", label=label)
    right.set(ylim=(0, 1), xlabel="minutes", ylabel="validation, generated answers")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(HERE / "curve.png", dpi=130)


if __name__ == "__main__":
    main()
