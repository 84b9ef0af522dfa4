"""Runs that differ in a pruner's settings can be told apart everywhere."""

from __future__ import annotations

from typing import Any

from ivcp.report.__main__ import main
from ivcp.report.runs import find_runs
from ivcp.report.series import make_series
from ivcp.report.variants import with_variants


def variants(tmp_path) -> list[str]:
    return [run.variant for run in with_variants(find_runs([tmp_path])[0])]


def pruner(**settings: Any) -> dict[str, Any]:
    return {"pruner": {"_target_": "ivcp.pruners.any.Any", "keep_ratio": 0.5, **settings}}


def test_settings_that_differ_are_told(make_run, tmp_path) -> None:
    for number, (renumber, share) in enumerate([(False, 0.2), (True, 0.2), (False, None)]):
        config = pruner(layer=4, prune_earlier_kv=True, renumber=renumber, share=share)
        make_run(str(number), pruner="ivcp", value=0.5, layer=4, config=config)
    make_run(
        "other", pruner="fastv", value=0.5, layer=4, config=pruner(layer=4, prune_earlier_kv=False)
    )
    assert variants(tmp_path) == [
        "renumber=false share=0.2",
        "renumber=true share=0.2",
        "renumber=false share=null",
        "",
    ]


def test_what_a_column_shows_is_no_variant_and_a_seed_is_a_repeat(make_run, tmp_path) -> None:
    for number, layer in enumerate((2, 4)):
        config = pruner(layer=layer, seed=number)
        make_run(str(number), pruner="random", value=0.5, layer=layer, config=config)
    runs = with_variants(find_runs([tmp_path])[0])
    assert [(run.variant, run.repeat) for run in runs] == [("", "seed=0"), ("", "seed=1")]
    assert runs[1].apart == "seed=1"


def test_a_setting_that_only_some_runs_have_sets_them_apart(make_run, tmp_path) -> None:
    make_run("old", pruner="ivcp", value=0.5, config=pruner(layer=4))
    make_run("new", pruner="ivcp", value=0.1, config=pruner(layer=4, renumber=True))
    assert sorted(variants(tmp_path)) == ["", "renumber=true"]


def test_other_settings_set_all_runs_of_a_set_apart(make_run, tmp_path) -> None:
    """Else they would be one point of a plot, though none is held against the other."""
    for name, size in (("none", 20), ("ivcp", 20), ("none", 40), ("ivcp", 40)):
        config = pruner() | {"dataset": {"size": size, "root": f"/{size}"}, "workers": size}
        make_run(f"{name}{size}", pruner=name, value=0.5, config=config)
    make_run("other", pruner="ivcp", value=0.5, dataset="pope", config=pruner())
    found = {run.folder.name: run.variant for run in with_variants(find_runs([tmp_path])[0])}
    assert found["none20"] == found["ivcp20"] == "dataset.size=20"
    assert found["ivcp40"] == "dataset.size=40"
    assert found["other"] == ""


def test_a_method_in_a_method_goes_by_its_name(make_run, tmp_path) -> None:
    for name, kind in (("fastv", "FastV"), ("random", "RandomPruning")):
        base = {"_target_": f"ivcp.pruners.{name}.{kind}", "keep_ratio": 0.5, "layer": 4}
        extra = {"seed_ratio": 0.1} if name == "fastv" else {}
        config = pruner(base=base | extra, layers=[2, 4])
        make_run(name, pruner="plus_ivc", value=0.5, layer=4, config=config)
    assert variants(tmp_path) == ["base=fastv", "base=random"]


def test_lines_of_plots_are_apart(make_run, tmp_path) -> None:
    for cut in (True, False):
        for ratio in (0.5, 0.3):
            config = pruner(layer=4, prune_earlier_kv=cut)
            make_run(f"{cut}{ratio}", pruner="ivcp", value=0.5, ratio=ratio, config=config)
    runs = with_variants(find_runs([tmp_path])[0])
    labels = [one.label for one in make_series(runs).values()]
    assert labels == ["ivcp prune_earlier_kv=false", "ivcp prune_earlier_kv=true"]


def test_tables_and_page_have_a_column_only_where_runs_differ(make_run, tmp_path, capsys) -> None:
    make_run("a/none", pruner="none", value=0.9)
    make_run("a/ivcp", pruner="ivcp", value=0.5, config=pruner(prune_earlier_kv=True))
    for folder, told in (("a", False), ("b", True)):
        if told:
            make_run("b/none", pruner="none", value=0.9)
            for cut in (True, False):
                make_run(f"b/{cut}", pruner="ivcp", value=0.5, config=pruner(prune_earlier_kv=cut))
        out = tmp_path / "out"
        assert main([str(tmp_path / folder), "--out", str(out)]) == 0
        texts = [(out / name).read_text() for name in ("table.md", "table.tex", "report.html")]
        for text in [*texts, capsys.readouterr().out]:
            assert ("kv=false" in text.replace("\\", "")) == told
        assert ("| variant |" in texts[0]) == told
        head = (out / "table.csv").read_text().splitlines()[0].split(",")
        assert "variant" in head
