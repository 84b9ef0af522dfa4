"""Runs that differ in a pruner's settings can be told apart everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from ivcp.report.__main__ import main
from ivcp.report.variants import Variant, find_variants, split_settings
from ivcp.results.load import find_runs


@pytest.fixture
def variants(tmp_path) -> Any:
    """Gives the variants of all runs by the names of their folders."""

    def find() -> dict[str, Variant]:
        runs = find_runs([tmp_path])[0]
        variants = find_variants([run.info for run in runs])
        return {run.folder.name: variant for run, variant in zip(runs, variants, strict=True)}

    return find


def pruner(**settings: Any) -> dict[str, Any]:
    return {"pruner": {"_target_": "ivcp.pruners.any.Any", "keep_ratio": 0.5, **settings}}


def test_settings_that_differ_are_reported(make_run, variants) -> None:
    for number, (renumber, share) in enumerate([(False, 0.2), (True, 0.2), (False, None)]):
        config = pruner(layer=4, prune_earlier_kv=True, renumber=renumber, share=share)
        make_run(str(number), pruner="ivcp", value=0.5, config=config)
    make_run("other", pruner="fastv", value=0.5, config=pruner(prune_earlier_kv=False))
    assert [variant.text for variant in variants().values()] == [
        "renumber=false share=0.2",
        "renumber=true share=0.2",
        "renumber=false",
        "",
    ]


def test_what_a_column_shows_is_no_variant_and_a_seed_repeats(make_run, variants) -> None:
    for number, layer in enumerate((2, 4)):
        make_run(str(number), pruner="random", value=0.5, config=pruner(layer=layer, seed=number))
    assert variants() == {"0": Variant("", "seed=0"), "1": Variant("", "seed=1")}
    assert Variant("a=1", "seed=0").text == "a=1 seed=0"


def test_a_setting_that_only_some_runs_have_sets_them_apart(make_run, variants) -> None:
    make_run("old", pruner="ivcp", value=0.5, config=pruner(layer=4))
    make_run("new", pruner="ivcp", value=0.1, config=pruner(layer=4, renumber=True))
    assert {name: variant.text for name, variant in variants().items()} == {
        "old": "", "new": "renumber=true",
    }  # fmt: skip


def test_other_settings_set_all_runs_of_a_dataset_apart(make_run, variants) -> None:
    """Else they would be one point of a plot, though they cannot be compared."""
    for name, size in (("none", 20), ("ivcp", 20), ("none", 40), ("ivcp", 40)):
        config = pruner() | {"dataset": {"size": size, "root": f"/{size}"}, "workers": size}
        make_run(f"{name}{size}", pruner=name, value=0.5, config=config)
    make_run("other", pruner="ivcp", value=0.5, dataset="pope", config=pruner(), dtype="float64")
    assert {name: variant.text for name, variant in variants().items()} == {
        **dict.fromkeys(("none20", "ivcp20"), "dataset.size=20"),
        **dict.fromkeys(("none40", "ivcp40"), "dataset.size=40"),
        "other": "",
    }


def test_a_condition_is_reported_once(make_run, variants) -> None:
    for dtype in ("float16", "float32"):
        config = pruner() | {"model": {"dtype": dtype}}
        make_run(dtype, pruner="ivcp", value=0.5, config=config, dtype=dtype, device=dtype[-2:])
    assert [variant.text for variant in variants().values()] == [
        "model.dtype=float16 device=16",
        "model.dtype=float32 device=32",
    ]
    make_run("auto", pruner="ivcp", value=0.5, config={}, dataset="other", dtype="float16")
    make_run("too", pruner="ivcp", value=0.5, config={}, dataset="other", dtype="float32")
    assert variants()["too"].text == "dtype=float32"


def test_a_method_in_a_method_goes_by_its_name(make_run, variants) -> None:
    for name, kind in (("fastv", "FastV"), ("random", "RandomPruning")):
        base = {"_target_": f"ivcp.pruners.{name}.{kind}", "keep_ratio": 0.5, "layer": 4}
        extra = {"seed_ratio": 0.1} if name == "fastv" else {}
        config = pruner(base=base | extra, layers=[2, 4])
        make_run(name, pruner="plus_ivc", value=0.5, config=config)
    assert [variant.text for variant in variants().values()] == ["base=fastv", "base=random"]


def test_tables_and_page_have_a_column_only_where_runs_differ(make_run, tmp_path, capsys) -> None:
    make_run("a/none", pruner="none", value=0.9)
    make_run("a/ivcp", pruner="ivcp", value=0.5, config=pruner(prune_earlier_kv=True))
    for folder, varied in (("a", False), ("b", True)):
        if varied:
            make_run("b/none", pruner="none", value=0.9)
            for prune in (True, False):
                config = pruner(prune_earlier_kv=prune)
                make_run(f"b/{prune}", pruner="ivcp", value=0.5, config=config)
        out = tmp_path / "out"
        assert main([str(tmp_path / folder), "--out", str(out)]) == 0
        texts = [(out / name).read_text() for name in ("table.md", "table.tex", "report.html")]
        for text in [*texts, capsys.readouterr().out]:
            assert ("kv=false" in text.replace("\\", "")) == varied
        assert ("| variant |" in texts[0]) == varied
        head = (out / "table.csv").read_text().splitlines()[0].split(",")
        assert "variant" in head


def test_settings_in_common_are_split_from_the_others(make_run, tmp_path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        config = {"model": {"path": None, "sizes": [1, 2]}, "seed": seed, "empty": {}}
        make_run(name, pruner="ivcp", value=0.5, config=config)
    make_run("c", pruner="ivcp", value=0.5, config={"seed": 2, "extra": {"deep": True}})
    runs = [run.info for run in find_runs([tmp_path])[0]]
    common, others = split_settings(runs[:2])
    assert common["config.model.sizes"] == "[1, 2]"
    assert {"config.model.path", "config.empty"}.isdisjoint(common)
    assert others == [{"config.seed": "1"}, {"config.seed": "2"}]
    assert not [name for name in common if name.startswith("primary_metric")]
    common, others = split_settings(runs)
    assert others[2] == {"config.seed": "2", "config.extra.deep": "True"}
    assert others[1]["config.model.sizes"] == "[1, 2]"
    common, others = split_settings(runs[2:])
    assert (common["config.extra.deep"], others) == ("True", [{}])
