"""Log a report to Weights & Biases: `python -m ivcp.wandb.upload REPORT --project P`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ivcp.core.errors import UserError, exit_code
from ivcp.evaluation.wandb_logger import UnattendedWandbLogger


def upload(report: Path, project: str, mode: str = "online", **options: Any) -> str:
    """Log a report's tables, images and pages as one run of job type "report".

    Every `*.csv` becomes a table, every `*.png` an image, every `*.html` a page, each under its
    stem; all of these and the figures, whatever their kind, are in one artifact.

    Args:
        report: Folder that `python -m ivcp.report` wrote.
        project: Project of Weights & Biases.
        mode: "online" or "offline".
        options: Further arguments of `wandb.init`, such as `entity`, `group`, `name`.

    Returns:
        A message that says where the run is.

    Raises:
        UserError: The folder holds no report, or the mode is unknown.
    """
    import wandb

    files = sorted(path for path in report.glob("*") if path.is_file())
    figures = sorted(path for path in report.glob("figures/*") if path.is_file())
    tables = [path for path in files if path.suffix == ".csv"]
    if not tables:
        raise UserError(
            f"{report} holds no table; give a folder that python -m ivcp.report has written."
        )
    options = {"name": f"report {report.resolve().name}", **options}
    logger = UnattendedWandbLogger(
        save_dir=report, project=project, mode=mode, job_type="report", tags=["report"], **options
    )
    run = logger.experiment
    logged: dict[str, Any] = {f"tables/{path.stem}": read_table(path) for path in tables}
    logged |= {f"plots/{path.stem}": wandb.Image(str(path)) for path in _of(files, ".png")}
    logged |= {f"pages/{path.stem}": wandb.Html(str(path)) for path in _of(files, ".html")}
    run.log(logged)
    artifact = wandb.Artifact(f"report-{report.resolve().name}", type="report")
    for path in (*files, *figures):
        artifact.add_file(str(path), name=path.relative_to(report).as_posix())
    run.log_artifact(artifact)
    address = None if run.offline else run.url
    folder = Path(run.dir).parent
    logger.finalize("success")
    message = f"{len(logged)} tables, plots and pages and {len(files) + len(figures)} files are"
    return f"{message} at {address}." if address else f"{message} offline: wandb sync {folder}"


def read_table(path: Path) -> Any:
    """A CSV file as a table of Weights & Biases; empty cells are None."""
    import wandb

    frame = pd.read_csv(path).astype(object)
    frame = frame.where(frame.notna(), None)
    return wandb.Table(columns=[str(name) for name in frame.columns], data=frame.values.tolist())


def _of(files: Sequence[Path], suffix: str) -> list[Path]:
    return [path for path in files if path.suffix == suffix]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ivcp.wandb.upload")
    parser.add_argument("report", type=Path, help="folder that python -m ivcp.report wrote")
    parser.add_argument("--project", default="ivcp", help="default: ivcp")
    parser.add_argument("--mode", default="online", choices=("online", "offline"))
    for key, text in (
        ("entity", "user or team; default: the account's"),
        ("group", "group of the run, such as the sweep's"),
        ("name", "name of the run; default: report and the folder's name"),
    ):
        parser.add_argument(f"--{key}", default=argparse.SUPPRESS, help=text)
    options = vars(parser.parse_args(arguments))
    return exit_code(lambda: print(upload(**options)))


if __name__ == "__main__":
    sys.exit(main())
