"""Make a workspace that compares the runs of a project.

`python -m ivcp.wandb.dashboard --project P`; docs/wandb.md says what it shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ivcp.core.errors import UserError, exit_code
from ivcp.evaluation.wandb_logger import has_key

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

COSTS = {
    "keep_ratio": "visual tokens kept",
    "kv_ratio": "KV cache, of unpruned",
    "flops_ratio": "prefill FLOPs, of unpruned",
    "prefill_ms": "prefill, ms (median)",
}
"""Costs on the x axes, as in a report: name in the summary and the table `result`, and label."""
PINNED = (
    "primary_metric",
    *COSTS,
    "pruning_overhead_ms",
    "unparsed_rate",
    "failed_samples",
)
"""Names in the summary that are columns of the list of runs."""
TIMES = (
    "time_to_first_token_ms",
    "language_prefill_ms",
    "pruning_overhead_ms",
    "decode_ms_per_token",
)
MAX_RUNS = 200  # in a panel


def workspace(
    project: str,
    entity: str = "",
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    name: str = "Pruning",
) -> Workspace:
    """Build the workspace; it is not saved.

    Args:
        project: Project whose evaluations it shows.
        entity: User or team that owns the project.
        models: Names of the models to show; empty for all.
        datasets: Names of the datasets to show; empty for all.
        name: Name of the workspace.

    Raises:
        UserError: The package wandb-workspaces is missing.
    """
    try:
        from wandb_workspaces import expr, workspaces
    except ModuleNotFoundError as error:
        raise UserError("The dashboard needs wandb-workspaces: pip install ivcp[wandb].") from error
    filters = [expr.Metric("JobType").isin(["evaluation"])]
    if models:
        filters.append(expr.Config("names.value.model").isin(list(models)))
    if datasets:
        filters.append(expr.Config("names.value.dataset").isin(list(datasets)))
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections(),
        settings=workspaces.WorkspaceSettings(max_runs=MAX_RUNS),
        runset_settings=workspaces.RunsetSettings(
            filters=expr.And(*filters),
            order=[expr.Ordering(expr.Summary("primary_metric"), ascending=False)],
            pinned_columns=[f"summary:{key}" for key in PINNED],
        ),
        auto_generate_panels=True,  # below ours: the numbers of each category
    )


def sections() -> list[Section]:
    """Pareto plots, curves over costs and layers, comparison of runs, times, kept tokens."""
    from wandb_workspaces.reports import v2 as panels
    from wandb_workspaces.workspaces import Section, SectionLayoutSettings

    def section(title: str, *content: Any, columns: int, rows: int = 1) -> Section:
        layout = SectionLayoutSettings(columns=columns, rows=rows)
        return Section(name=title, panels=list(content), is_open=True, layout_settings=layout)

    pareto = [
        panels.ScatterPlot(
            title=f"Primary metric against {label}",
            x=panels.SummaryMetric(key),
            y=panels.SummaryMetric("primary_metric"),
        )
        for key, label in COSTS.items()
    ]
    axes = [(key, label, "series") for key, label in COSTS.items()]
    axes.append(("layer", "layer before which tokens are pruned", "series_over_layers"))
    curves = [
        panels.CustomChart(
            query={"summaryTable": {"tableKey": "result"}},
            chart_name="wandb/lineseries/v0",
            chart_fields={"step": key, "lineKey": series, "lineVal": "primary_metric"},
            chart_strings={"title": f"Primary metric over {label}", "xname": label},
        )
        for key, label, series in axes
    ]
    columns = [
        panels.ParallelCoordinatesPlotColumn(metric=panels.Config("names.pruner")),
        *(
            panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(key))
            for key in (*COSTS, "primary_metric")
        ),
    ]
    times = [
        panels.BarPlot(title=key, metrics=[f"efficiency/{key}/median"], max_runs_to_show=MAX_RUNS)
        for key in TIMES
    ]
    gallery = panels.MediaBrowser(
        title="Kept tokens: one column a run, one row a sample",
        media_keys=["kept_tokens"],
        grid_x_axis="run",
        grid_y_axis="index",
    )
    return [
        section("Pareto", *pareto, columns=2, rows=2),
        section("Curves", *curves, columns=3, rows=2),
        section(
            "Runs",
            panels.WeavePanelSummaryTable(table_name="result"),
            panels.ParallelCoordinatesPlot(columns=columns),
            panels.RunComparer(diff_only="split"),
            columns=1,
            rows=3,
        ),
        section("Times", *times, columns=4),
        section("Kept tokens", gallery, columns=1),
        section("Predictions", panels.WeavePanelSummaryTable(table_name="predictions"), columns=1),
    ]


def save(view: Workspace) -> str:
    """Save a workspace as a new view and return its address.

    Raises:
        UserError: There are no credentials, or the server refuses.
    """
    import wandb

    if not has_key():
        raise UserError(
            "No API key was found; run wandb login, set WANDB_API_KEY, or use --dry-run."
        )
    try:
        view.entity = view.entity or wandb.Api().default_entity or ""
        view.save()
        return str(view.url)
    except Exception as error:  # the library documents none of its many error types
        reason = " ".join(str(error).split())
        raise UserError(f"The workspace could not be saved ({reason}).") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ivcp.wandb.dashboard")
    parser.add_argument("--project", default="ivcp", help="default: ivcp")
    parser.add_argument("--entity", default="", help="user or team; default: the account's")
    parser.add_argument("--model", action="append", default=[], help="show only it; repeatable")
    parser.add_argument("--dataset", action="append", default=[], help="show only it; repeatable")
    parser.add_argument("--name", default="Pruning", help="name of the view; default: Pruning")
    parser.add_argument(
        "--dry-run", action="store_true", help="write the workspace as JSON, without a network"
    )
    options = parser.parse_args(arguments)

    def make() -> None:
        view = workspace(
            options.project, options.entity, options.model, options.dataset, options.name
        )
        if options.dry_run:
            spec = view._to_model().model_dump(by_alias=True, exclude_none=True)
            print(json.dumps(spec, indent=2))
        else:
            print(save(view))

    return exit_code(make)


if __name__ == "__main__":
    sys.exit(main())
