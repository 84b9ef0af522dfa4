"""`ivcp bench`: commas compare in one run, and what cannot be measured is one sentence."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ivcp.bench.report import read_bench
from ivcp.bench.result import BenchResult
from ivcp.cli.bench_command import one_run
from ivcp.cli.main import main
from ivcp.core.errors import UserError

QUICK = ["new_tokens=2", "repeats=1", "warmup=0", "device=cpu"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys):
    """Call `ivcp bench`; gives the result, or the sentence."""
    monkeypatch.chdir(tmp_path)

    def call(words: str, folder: str = "out", *, fails: bool = False) -> BenchResult | str:
        line = ["bench", *shlex.split(words), *QUICK, f"hydra.run.dir={folder}"]
        if not fails:
            main(line)
            return read_bench(tmp_path / folder / "bench.json")
        with pytest.raises(SystemExit, match="2"):
            main(line)
        error: str = capsys.readouterr().err
        assert error.count("\n") == 1
        return error.strip()

    return call


def labels(result: BenchResult) -> list[list[str]]:
    return [[row.info.label for row in group.methods[1:]] for group in result.groups]


def test_commas_become_one_run() -> None:
    words = ["pruner=ivcp,fastv", "ratio=0.5", "batch_size=1,8", "image=a.jpg", "-c", "job"]
    assert one_run(words) == [
        "pruner=ivcp", "ratio=0.5", "batch_size=[1,8]", "image=a.jpg", "-c", "job",
        'compared=[["pruner=ivcp","pruner=fastv"]]',
    ]  # fmt: skip
    alone = ["image=[96,64]", "question='a, b'", "pruner=ivcp,", "x"]
    assert one_run(alone) == alone  # lists, quoted commas, and mistakes that Hydra explains


def test_methods_ratios_prompts_and_batches_are_one_result(run) -> None:
    command = "pruner=ivcp,fastv,none ratio=0.5,0.25 batch_size=1,2 tokens=16,36"
    result = run(command)
    methods = ["ivcp 0.5", "ivcp 0.25", "fastv 0.5", "fastv 0.25", "none"]
    assert labels(result) == [methods] * 4
    sizes = [(group.visual_tokens, group.batch_size) for group in result.groups]
    assert sizes == [(16, 1), (16, 2), (36, 1), (36, 2)]
    assert result.run.command.startswith(f"ivcp bench {command} new_tokens=2")
    kept = [row.counts.visual_tokens.pruned for row in result.groups[0].methods[1:]]
    assert kept == [8, 4, 8, 4, 16]
    again = run(f"{command} resume=true")
    assert again == result


def test_the_command_of_a_full_size_is_taken_as_it_is_typed(run, monkeypatch) -> None:
    called = {}

    def measure(subjects, **arguments) -> BenchResult:
        called.update(arguments, subjects=subjects)
        raise UserError("enough")

    monkeypatch.setattr("ivcp.bench.measure.bench", measure)
    command = "pruner=ivcp,fastv,none ratio=0.5 batch_size=1,8 tokens=400,1600,4096"
    assert run(f"model=qwen25vl model.random=true {command}", fails=True) == "enough"
    assert (called["tokens"], called["batch_size"]) == ([400, 1600, 4096], [1, 8])
    (subject,) = called["subjects"]
    assert subject.name == "qwen25vl (random weights)"
    assert subject.family.depth() == 28
    pruners = [method.fitted(subject.family, "").pruner for method in subject.methods]
    assert [[stage.layer for stage in pruner.stages()] for pruner in pruners] == [[16], [2], []]


def test_settings_of_a_method_are_compared_too(run) -> None:
    result = run("pruner=fastv pruner.layer=2,4 tokens=16")
    assert labels(result) == [["fastv layer=2 0.5", "fastv layer=4 0.5"]]
    assert [row.info.layers for row in result.groups[0].methods] == [(), (2,), (4,)]


def test_a_number_of_tokens_to_keep_is_no_prompt(run) -> None:
    result = run("pruner=ivcp,none keep_tokens=5,7 tokens=16")
    kept = [row.counts.visual_tokens.pruned for row in result.groups[0].methods[1:]]
    assert kept == [5, 7, 16]
    assert labels(result) == [["ivcp (5 tokens)", "ivcp (7 tokens)", "none"]]


def test_a_row_of_published_tables_keeps_its_number(run) -> None:
    words = "model=llava15 model.reduced=true model.dtype=float32 budget=llava15_192"
    (group,) = run(f"{words} pruner=visionzip,dart").groups
    assert group.visual_tokens == 576
    assert [row.counts.visual_tokens.pruned for row in group.methods[1:]] == [192, 196]


def test_models_are_compared_with_random_weights(run) -> None:
    words = "model=qwen25vl,internvl25 model.reduced=true model.dtype=float32 tokens=64"
    result = run(f"{words} pruner=ivcp,fastv,sparsevlm")
    assert [(group.model, group.visual_tokens) for group in result.groups] == [
        ("qwen25vl (reduced)", 64), ("internvl25 (reduced)", 256),
    ]  # fmt: skip
    assert [group.weights for group in result.groups] == [
        "random, reduced from Qwen/Qwen2.5-VL-7B-Instruct",
        "random, reduced from OpenGVLab/InternVL2_5-8B",
    ]
    assert {row.status for _, row in result.rows} == {"ok"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pruner=ivcp,fastvv", "There is no pruner=fastvv; did you mean fastv"),
        ("model=tinyy", "There is no model=tinyy; did you mean tiny?"),
        ("tokens=0", "tokens must be a whole number of at least 1; got 0."),
        ("batch_size=1,0", "batch_size must be a whole number of at least 1; got 0."),
        ("batch_size=x", "batch_size must be a whole number of at least 1; got 'x'."),
        ("ratio=0.5,2", "keep_ratio must be a number in (0, 1]"),
        ("keep_tokens=0", "keep_tokens must be a whole number of at least 1; got 0."),
        ("keep_tokens=4 ratio=0.5", "ratio and keep_tokens are two ways to give one budget"),
        ("tokens=16 image=[64,64]", "tokens and image are two ways to give one prompt"),
        ("model=internvl25", "or measure internvl25 without weights: model.random=true"),
        ("model.random=yes please", "model.random must be true or false; got 'yes please'."),
        ("model.reduced=true", "model.reduced=true makes published sizes smaller"),
        ("pruner.layer=4,9", "layer must lie in 1 .. 7 for tiny"),
        ("pruner.layr=4", "There is no setting 'layr' of pruner; did you mean layer?"),
        ("model=llava15 model.reduced=true budget=qwen25vl_33", "is a row of tables of qwen25vl"),
        ("model.attention=flash_attention_2", "model.attention=flash_attention_2 cannot be used"),
    ],
)
def test_a_mistake_is_one_sentence_before_weights_load(run, words, sentence, monkeypatch) -> None:
    from ivcp.bench.loaded_model import LoadedModel

    if "flash" not in words:
        monkeypatch.setattr(LoadedModel, "__init__", None)
    assert sentence in run(words if "yes" not in words else shlex.quote(words), fails=True)


def test_a_sweep_is_hydras(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["bench", "-m", "pruner=ivcp,none", "tokens=16", *QUICK, "hydra.sweep.dir=out"])
    results = [read_bench(path) for path in sorted(tmp_path.rglob("bench.json"))]
    assert [labels(result) for result in results] == [[["ivcp 0.5"]], [["none"]]]


def test_an_interrupted_run_says_how_to_go_on(run, monkeypatch, capsys) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    from ivcp.bench.loaded_model import LoadedModel

    monkeypatch.setattr(LoadedModel, "measure", interrupt)
    with pytest.raises(SystemExit, match="130"):
        run("tokens=16")
    assert "resume=true goes on" in capsys.readouterr().err
