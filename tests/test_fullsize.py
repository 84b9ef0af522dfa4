"""The full-size check, at a size that takes seconds."""

from __future__ import annotations

import csv
import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.fullsize import bench, syncs
from benchmarks.fullsize.methods import methods_for
from benchmarks.fullsize.models import PUBLISHED, model_config, random_inputs, tile_count
from benchmarks.fullsize.report import Results, check_targets, combination
from ivcp.core.errors import UserError
from ivcp.measure.flops import DecoderSizes
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.testing import random_model

BILLIONS = {"qwen25vl": 8.29, "qwen3vl": 8.77, "internvl": 8.08}  # as the hub states them
TINY = ["--size=reduced", "--models=qwen25vl", "--tokens=16", "--batch=2", "--repeats=1",
        "--warmups=0", "--decode-tokens=1", "--ratios=0.5", "--device=cpu"]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Narrow layers, and one thread: for so little work starting threads takes longest."""
    from benchmarks.fullsize import models

    narrow = {"hidden_size": 128, "intermediate_size": 64, "num_attention_heads": 2}
    monkeypatch.setattr(models, "REDUCED_TEXT", models.REDUCED_TEXT | narrow)
    tower = models.REDUCED_VISION["qwen25vl"] | {"out_hidden_size": 128}
    monkeypatch.setattr(models, "REDUCED_VISION", models.REDUCED_VISION | {"qwen25vl": tower})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_has_the_published_number_of_parameters(name):
    model = random_model(model_config(name, "full"), torch.bfloat16, "meta")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e9 == pytest.approx(BILLIONS[name], abs=0.01)


def test_tiles_never_number_two():
    assert {tile_count(tokens) for tokens in range(1, 2000)} == {1, 3, 4, 5, 6, 7, 8}


def test_methods_act_where_their_papers_say():
    methods = methods_for(["none", "ivcp", "fastv", "sparsevlm"], [0.5], 28, 16 / 28)
    assert [method.name for method in methods] == [
        "unpruned", "none", "ivcp", "fastv as published", "fastv matched", "sparsevlm",
    ]  # fmt: skip
    layers = [[stage.layer for stage in method.pruner.stages()] for method in methods[2:]]
    assert layers == [[16], [2], [16], [3, 6, 14]]


@pytest.mark.parametrize("depth", [3, 4, 8, 32])
def test_stages_ascend_within_any_depth(depth):
    pruner = methods_for(["sparsevlm"], [0.5], depth, 0.5)[-1].pruner
    layers = [stage.layer for stage in pruner.stages()]
    assert layers == sorted(set(layers))
    assert layers[0] >= 1


def test_earlier_caches_that_stay_hold_what_each_layer_processed():
    tokens = [[10, 10], [10, 10], [4, 4], [4, 4]]
    assert bench.kept_fraction(tokens, FastV(keep_ratio=0.5)) == pytest.approx(0.7)
    assert bench.kept_fraction(tokens, IVCPrune(keep_ratio=0.5, layer=2)) == pytest.approx(0.4)


def test_a_run_leaves_all_files_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    words = [*TINY, f"--out={tmp_path}"]
    bench.bench(bench.arguments([*words, "--pruners=ivcp"]))
    before = (tmp_path / "results.csv").read_text().splitlines()
    assert len(before) == 3
    rows = bench.bench(bench.arguments([*words, "--pruners=ivcp,fastv"])).rows
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[:3] == before
    assert [row["method"] for row in rows] == [
        "unpruned", "ivcp", "fastv as published", "fastv matched",
    ]  # fmt: skip
    assert {row["status"] for row in rows} == {"ok"}
    assert {float(row["kv_cache_ratio_over_kept_fraction"]) for row in rows} == {1.0}
    assert float(rows[1]["prefill_flops_ratio"]) < 1
    assert {row["peak_memory_bytes"] for row in rows} == {""}
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == 4
    assert (tmp_path / "results.md").is_file()
    assert (tmp_path / "plot.png").is_file()
    monkeypatch.setattr(bench, "random_model", None)
    bench.bench(bench.arguments([*words, "--pruners=ivcp,fastv"]))  # nothing is left to do


def test_the_formula_gives_cache_and_tokens_of_a_run():
    model = random_model(model_config("qwen25vl", "reduced"))
    inputs, _ = random_inputs("qwen25vl", model, 16, 2)
    sizes = DecoderSizes.of(model.model.language_model)
    real = bench.run_once(model, inputs, NoPruning(), 1)
    formula = bench.unpruned_by_formula(model, inputs, sizes)
    assert formula.cache_bytes == real.cache_bytes
    assert formula.layer_tokens == real.layer_tokens


@pytest.mark.parametrize("victim", [FastV, None])
def test_a_method_out_of_memory_is_a_row_and_the_others_go_on(tmp_path, monkeypatch, victim):
    real = bench.run_once

    def run(model, inputs, pruner, steps):
        if (pruner is None) if victim is None else isinstance(pruner, victim):
            raise torch.OutOfMemoryError
        return real(model, inputs, pruner, steps)

    monkeypatch.setattr(bench, "run_once", run)
    bench.bench(bench.arguments([*TINY, "--pruners=ivcp,fastv", f"--out={tmp_path}"]))
    with (tmp_path / "results.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    failed = {name for name, row in rows.items() if row["status"] == "out of memory"}
    expected = {"unpruned"} if victim is None else {"fastv as published", "fastv matched"}
    assert failed == expected
    assert rows["ivcp"]["prefill_ms"]
    assert bool(rows["ivcp"]["prefill_time_ratio"]) == (victim is not None)


def test_targets_are_judged_by_pruned_rows_alone():
    row = {"status": "ok", "method": "ivcp", "visual_tokens": "400", "decode_time_ratio": "0.9"}
    slow = {**row, "method": "none", "decode_time_ratio": "1.5"}
    checks = {check["column"]: check for check in check_targets([row, slow])}
    assert checks["decode_time_ratio"]["met"] is True
    assert checks["pruning_overhead_ms"]["met"] is None
    late = check_targets([row, {**row, "decode_time_ratio": "1.01"}])[-1]
    assert (late["met"], late["rows_met"], late["missed_by"]) == (False, 1, ["ivcp"])


def test_rows_survive_a_reload(tmp_path):
    key = dict.fromkeys(
        ("size", "device", "model", "attention", "dtype", "method", "before_layers"), "x"
    )
    row = {**key, "visual_tokens_wanted": 400, "batch": 1, "keep_ratio": 0.3, "status": "no"}
    Results(tmp_path, {}).add([row])
    assert combination(row) in Results(tmp_path, {}).done


def test_synchronisations_count_inside_layers_only(monkeypatch):
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def wait(*_):
        if modes[-1] == "warn":
            warnings.warn(syncs.SYNC_WARNING, stacklevel=1)

    layers = nn.ModuleList([nn.Identity(), nn.Identity()])
    with syncs.counted_syncs(layers) as messages:
        handle = layers[1].register_forward_pre_hook(wait)  # as a session's hooks do
        for layer in layers:
            wait()
            layer(torch.zeros(1))
        handle.remove()
    assert len(messages) == 1
    assert modes[-1] == "default"


@pytest.mark.parametrize("words", [["--models=llava"], ["--pruners=best"], ["--syncs"]])
def test_mistakes_are_found_before_weights_are_made(words, monkeypatch):
    monkeypatch.setattr(bench, "random_model", None)
    with pytest.raises(UserError):
        bench.bench(bench.arguments([*TINY, *words, "--out=unused"]))


def test_unknown_family_stops_at_once(monkeypatch):
    monkeypatch.setattr(bench, "model_config", lambda *_: SimpleNamespace(model_type="other"))
    with pytest.raises(UserError, match="supports models"):
        bench.check(bench.arguments(TINY))
