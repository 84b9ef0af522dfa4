"""What runs share and what each has of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ivcp.report.runs import find_runs
from ivcp.report.settings import settings_of


def test_settings_are_set_apart(make_run: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        config = {"model": {"path": None, "sizes": [1, 2]}, "seed": seed, "empty": {}}
        make_run(name, pruner="ivcp", value=0.5, config=config)
    make_run("c", pruner="ivcp", value=0.5, config={"seed": 2, "extra": {"deep": True}})
    runs, _ = find_runs([tmp_path])
    two = settings_of(runs[:2])
    assert two.shared["config.model.path"] == "-"
    assert two.shared["config.model.sizes"] == "[1, 2]"
    assert two.shared["config.empty"] == "{}"
    assert two.own == ({"config.seed": "1"}, {"config.seed": "2"})
    assert not [name for name in two.shared if name.startswith("primary_metric")]
    three = settings_of(runs)
    assert three.own[2] == {"config.seed": "2", "config.extra.deep": "True"}
    assert three.own[1]["config.model.path"] == "-"
    alone = settings_of(runs[2:])
    assert (alone.shared["config.extra.deep"], alone.own) == ("True", ({},))
    assert settings_of([]).own == ()
