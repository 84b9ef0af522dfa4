"""`bench`: its files, its table, what it goes on with, and the mistakes that it refuses."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from test_conf import CONF

import ivcp
from ivcp.bench.backend import slower_backend
from ivcp.bench.image import image_size
from ivcp.bench.loaded_model import LoadedModel
from ivcp.bench.measure import bench
from ivcp.bench.result import BenchResult, Times, compared
from ivcp.bench.rotation import RotatedRuns
from ivcp.bench.subject import Method, Subject
from ivcp.core.errors import UserError
from ivcp.core.pixels import MAX_PIXELS
from ivcp.models.internvl import InternVL
from ivcp.models.llava15 import Llava15
from ivcp.models.qwen3vl import Qwen3VL
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.models.random_weights import random_weights
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.results.schema import Quartiles

IVCP, FASTV = Method("ivcp", IVCPrune(keep_ratio=0.5)), Method("fastv", FastV(keep_ratio=0.5))


def subject(*methods: Method) -> Subject:
    return Subject("tiny", Qwen25VL(path=None, dtype="float32"), methods or (IVCP,))


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "subjects": [subject()],
        "image": (96, 64),
        "folder": tmp_path / "new" / "folder",
        "repeats": 3,
        "warmup": 0,
        "new_tokens": 3,
        "device": "cpu",
    }


def times(**changed: float | None) -> Times:
    zero = dict.fromkeys(Times.model_fields, 1)
    return Times(**{**zero, "peak_memory_bytes": None, **changed})


def test_the_files_hold_the_result_and_the_table_shows_it(arguments, capsys) -> None:
    result = bench(**arguments, batch_size=2, question="Where?")
    folder = arguments["folder"]
    assert BenchResult.model_validate_json((folder / "bench.json").read_text()) == result
    (group,) = result.groups
    plain, row = group.methods
    assert (group.model, group.image, group.batch_size) == ("tiny", (96, 64), 2)
    assert (group.visual_tokens, group.dtype, group.attention) == (24, "float32", "sdpa")
    assert (row.info.pruner, row.info.ratio, row.info.layers) == ("ivcp", 0.5, (4,))
    assert (result.run.device, result.run.new_tokens, result.run.repeats) == ("cpu", 3, 3)
    assert result.run.versions["ivcp"] == ivcp.__version__
    assert len(plain.runs) == len(row.runs) == 3
    # 38 tokens of a prompt, two copies, 128 numbers a layer and token, 8 layers, 4 bytes each
    assert row.counts.kv_cache_bytes.unpruned == 38 * 2 * 128 * 8 * 4
    assert (row.counts.visual_tokens.pruned, row.counts.visual_tokens.ratio) == (12, 0.5)
    screen = " ".join(capsys.readouterr().out.split())
    spread = row.prefill_ms.ratio
    assert f"{spread.median:.2f} [{spread.q1:.2f} {spread.q3:.2f}]" in screen
    assert f"{100 * row.counts.kv_cache_bytes.ratio:.1f}%" in screen
    assert result.verdicts == (f"ivcp 0.5: {row.verdict}.",)
    assert result.verdicts[0] in screen
    assert "Peak memory is measured on CUDA only." in screen
    assert str(folder / "bench.json") in screen
    with (folder / "bench.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["pruner"] for line in table] == ["unpruned", "ivcp"]
    assert float(table[1]["prefill_ms"]) == pytest.approx(row.prefill_ms.value.median, rel=1e-5)
    assert "| ivcp 0.5 | 4 |" in (folder / "bench.md").read_text()
    with Image.open(folder / "plot.png") as picture:
        assert picture.width > 1000


def test_ratios_are_taken_repeat_by_repeat() -> None:
    plain = [times(total_ms=a, prefill_ms=p) for a, p in ((1, 4), (10, 4), (4, 8))]
    short = [times(total_ms=a, pruning_overhead_ms=2) for a in (2, 5, 1)]
    rows = compared(short, plain, batch_size=3, new_tokens=2)
    assert (rows["total_ms"].value.median, rows["total_ms"].ratio.median) == (2, 0.5)
    assert rows["total_ms"].ratio == Quartiles(median=0.5, q1=0.375, q3=1.25)
    assert rows["pruning_overhead_ms"].ratio.median == 2 / 4  # of the unpruned prefill
    assert rows["samples_per_second"].value.median == 1500
    assert rows["tokens_per_second"].ratio.median == 2
    assert rows["peak_memory_bytes"].ratio == Quartiles()
    alone = compared(short, [None] * 3, batch_size=1, new_tokens=2)["total_ms"]
    assert (alone.value.median, alone.ratio) == (2, Quartiles())


def test_groups_are_prompts_times_batch_sizes_and_a_second_call_goes_on(
    arguments, monkeypatch
) -> None:
    few = {**arguments, "repeats": 1, "tokens": [16, 36], "batch_size": [1, 2]}
    first = bench(**few)
    assert [(g.visual_tokens, g.batch_size) for g in first.groups] == [
        (16, 1), (16, 2), (36, 1), (36, 2),
    ]  # fmt: skip
    with pytest.raises(UserError, match="holds a benchmark already: resume=true goes on"):
        bench(**few)
    with pytest.raises(UserError, match="new_tokens was 3, now it is 4"):
        bench(**{**few, "new_tokens": 4}, resume=True)
    more = {**few, "subjects": [subject(IVCP, FASTV)], "tokens": [16, 64], "batch_size": 1}
    second = bench(**more, resume=True)
    assert second.groups[:4] == first.groups
    added = [[row.info.pruner for row in group.methods] for group in second.groups[4:]]
    assert added == [["unpruned", "fastv"], ["unpruned", "ivcp", "fastv"]]
    eager = Subject("tiny", Qwen25VL(path=None, dtype="float32", attention="eager"), (IVCP,))
    third = bench(**{**more, "subjects": [eager], "tokens": 16}, resume=True)
    assert [group.attention for group in third.groups[6:]] == ["eager"]
    monkeypatch.setattr(LoadedModel, "__init__", None)
    assert bench(**more, resume=True) == third  # nothing is left to do


def test_a_damaged_file_is_one_sentence(arguments) -> None:
    arguments["folder"].mkdir(parents=True)
    (arguments["folder"] / "bench.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="is no benchmark of this version"):
        bench(**arguments, resume=True)


def test_a_model_of_one_size_has_one_group_for_all_numbers_of_tokens(arguments, capsys) -> None:
    llava = random_weights(Llava15(dtype="float32"), reduced=True)
    few = {"subjects": [Subject("llava15", llava, (IVCP,))], "repeats": 1, "new_tokens": 1}
    (group,) = bench(**{**arguments, **few}, tokens=[400, 1600]).groups
    assert (group.visual_tokens, group.wanted_tokens) == (576, (400, 1600))
    screen = " ".join(capsys.readouterr().out.split())
    assert "for 400, 1600 visual tokens, the nearest prompt has 576." in screen


@pytest.mark.parametrize(
    ("family", "tokens", "expected"),
    [
        (Qwen25VL(), 400, (560, 560)), (Qwen25VL(), 4096, (1792, 1792)),
        (Qwen3VL(), 1600, (1280, 1280)), (Qwen25VL(), 1, (28, 28)),
        (InternVL(), 400, (448, 448)), (InternVL(max_tiles=12), 1600, (5 * 448, 448)),
        (InternVL(), 4096, (3 * 448, 2 * 448)),
    ],
    ids=str,
)  # fmt: skip
def test_the_image_has_the_nearest_number_of_tokens(family, tokens, expected) -> None:
    made = random_weights(family, reduced=True)
    width, height = image_size(tokens, made, made.processor())
    assert sorted((width, height)) == sorted(expected)


def test_the_users_own_image_is_taken(arguments, tmp_path) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "photo.png")
    images = (str(tmp_path / "photo.png"), tmp_path / "photo.png", Image.new("RGBA", (40, 30)))
    for number, image in enumerate(images):
        folder = tmp_path / str(number)
        result = bench(**{**arguments, "image": image, "repeats": 1, "folder": folder})
        assert result.groups[0].image == (40, 30)


def test_what_is_not_measured_is_said(arguments, capsys) -> None:
    result = bench(**{**arguments, "new_tokens": 1, "repeats": 1})
    assert result.groups[0].methods[1].decode_ms_per_token.ratio == Quartiles()
    assert "Decoding was not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("repeats", 0, "repeats must be a whole number of at least 1; got 0"),
        ("repeats", True, "repeats must be a whole number"),
        ("warmup", -1, "warmup must be a whole number of at least 0; got -1"),
        ("new_tokens", 0, "new_tokens must be a whole number of at least 1; got 0"),
        ("batch_size", 1.5, "batch_size must be a whole number of at least 1; got 1.5"),
        ("batch_size", [], "batch_size must be one or more whole numbers"),
        ("tokens", [16, 0], "tokens must be a whole number of at least 1; got 0"),
        ("syncs", True, "syncs=true counts how often the host waits for a GPU"),
        ("device", "tpu", "device must be one of auto, cpu.*; got 'tpu'"),
        ("device", "cuda:64", "device must be one of auto, cpu.*; got 'cuda:64'"),
        ("image", "absent.png", "path of an image file; got 'absent.png': No such file"),
        ("image", __file__, "Expected an image in the format PNG"),
        ("image", (0, 64), r"image must be a width and a height .*; got \(0, 64\)"),
        ("image", 448, "image must be a width and a height .*; got 448"),
        ("image", (448,), "image must be a width and a height"),
        ("image", (64.0, 64.0), "image must be a width and a height"),
        ("image", (MAX_PIXELS, 2), "of at most 100,000,000 pixels"),
        (
            "image",
            (1, 300),
            "cannot be resized for the model: absolute aspect ratio",
        ),
        (
            "subjects",
            [subject(IVCP, Method("late", IVCPrune(keep_ratio=0.5, layer=8)))],
            r"layer must lie in 1 \.\. 7 for tiny",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence(arguments, name, value, message) -> None:
    with pytest.raises(UserError, match=message):
        bench(**{**arguments, name: value})
    assert not (arguments["folder"] / "bench.json").exists()


@pytest.mark.parametrize("victim", [0, 2])
def test_who_runs_out_of_memory_is_a_row_and_the_others_go_on(
    arguments, monkeypatch, victim
) -> None:
    real = RotatedRuns._time

    def overflow(self: RotatedRuns, number: int, turn: int) -> Times:
        if number == victim:
            raise torch.OutOfMemoryError
        return real(self, number, turn)

    monkeypatch.setattr(RotatedRuns, "_time", overflow)
    result = bench(**{**arguments, "subjects": [subject(IVCP, FASTV)]})
    rows = result.groups[0].methods
    assert [row.status for row in rows].count("ok") == 2
    assert rows[victim].status == "out of memory"
    assert len(rows[1].runs) == 3
    assert (rows[1].prefill_ms.ratio.median is None) == (victim == 0)
    assert rows[1].flops_ratio < 1


def test_without_memory_for_anything_all_are_rows(arguments, monkeypatch) -> None:
    def overflow(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(RotatedRuns, "_generate", overflow)
    rows = bench(**arguments).groups[0].methods
    assert {row.status for row in rows} == {"out of memory"}


def test_a_method_that_cannot_serve_a_prompt_is_a_row_with_its_reason(arguments) -> None:
    many = Method("ivcp", IVCPrune(keep_ratio=0.5), tokens=30)
    rows = bench(**{**arguments, "subjects": [subject(many, FASTV)]}).groups[0].methods
    assert rows[1].status.startswith("tokens=30 were asked for, but an image has 24 visual tokens")
    assert (rows[2].status, rows[2].info.pruner) == ("ok", "fastv")


def test_a_slow_backend_of_the_baseline_is_a_warning(arguments, capsys, monkeypatch) -> None:
    slow = Qwen25VL(path=None, dtype="float32", attention="eager")
    result = bench(**{**arguments, "subjects": [Subject("tiny", slow, (IVCP,))], "repeats": 1})
    warning = "ran with attention=eager, though sdpa is available"
    assert warning in result.groups[0].warning
    assert warning in " ".join(capsys.readouterr().out.split())
    model, _ = Qwen25VL(path=None, dtype="bfloat16").load()
    cuda = torch.device("cuda")
    assert slower_backend(model, cuda) == ""  # nothing faster is installed
    monkeypatch.setattr("ivcp.bench.backend.find_spec", lambda _: object())
    assert "flash_attention_2 is available" in slower_backend(model, cuda)
    assert slower_backend(model, torch.device("cpu")) == ""
    assert slower_backend(model.float(), cuda) == ""  # FlashAttention needs half precision


def test_a_session_that_prunes_nothing_saves_nothing(arguments) -> None:
    nothing = subject(Method("none", NoPruning()))
    row = bench(**{**arguments, "subjects": [nothing], "repeats": 1}).groups[0].methods[1]
    assert (row.info.label, row.flops_ratio, row.decode_bytes_ratio) == ("none", 1, 1)


def test_the_configuration_has_every_argument() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("bench", overrides=["pruner=fastv", "ratio=0.3"])
    of_methods = {"model", "pruner", "ratio", "keep_tokens", "budget", "compared"}
    parameters = inspect.signature(bench).parameters
    assert config.keys() - of_methods == parameters.keys() - {"subjects", "folder", "command"}
    for name in config.keys() - of_methods:
        assert config[name] == parameters[name].default or name == "image"
    assert tuple(config.image) == parameters["image"].default
