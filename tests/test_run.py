import json
import subprocess
import sys

import pytest
from command import RUN, run_py
from untrained import save_untrained

from ivcp import load_runs

QUICK = ("trainer=cpu", "logger=none", "workers=0", "limit=2", "generation.max_new_tokens=3")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = save_untrained(tmp_path_factory.mktemp("run") / "model", layers=6)
    return f"model.path={folder}"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Calls run.py as a script in this process: exit code, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        code = run_py(*words)
        out, err = capsys.readouterr()
        return code, out, err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return call


def test_a_run_from_the_command_line(model, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, RUN, model, "pruner=random", "ratio=0.25", *QUICK],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("outputs/*/*/metrics.json")
    report = json.loads(path.read_text())
    assert report["run"]["pruner"] == "random"
    assert report["run"]["overrides"][:3] == [model, "pruner=random", "ratio=0.25"]
    assert report["tokens"]["keep_ratio"] == 0.25
    assert report["run"]["layers"] == [report["run"]["config"]["pruner"]["layer"]]
    assert "acc@0.5" in done.stdout
    assert "Tip" not in done.stdout + done.stderr
    assert "GPU available" not in done.stdout + done.stderr


def test_a_sweep_names_its_folders_and_finds_its_baseline(model, run, tmp_path) -> None:
    paths = ("data.root=/no/where", "resume=true")  # name no folder
    code, out, _ = run("-m", "pruner=none,random", model, *paths, *QUICK)
    assert code == 0
    folders = [path.parent.name for path in sorted(tmp_path.glob("multirun/*/*/*/metrics.json"))]
    assert ["pruner=none" in name for name in folders] == [True, False]
    assert "pruner=random" in folders[1]
    assert "unpruned" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ratio=0"], "keep_ratio must be a number in (0, 1]"),
        (["ratio=1.5"], "keep_ratio must be a number in (0, 1]"),
        (["ratio=abc"], "got 'abc'"),
        (["tokens=9", "ratio=0.5"], "ratio and tokens are two ways to give one budget"),
        (["tokens=0"], "tokens must be a whole number of at least 1; got 0"),
        (["tokens=x"], "tokens must be a whole number or null; got 'x'"),
        (["budget=layer_avrage"], "no budget=layer_avrage; did you mean layer_average?"),
        (["budget_over=frames"], "budget_over must be video or frame or sample; got 'frames'"),
        (["budget.count=layers", "tokens=9"], "count must be final or layer_average or flops"),
        (["pruner.layer=3", "ratio=0.2", "budget=layer_average"], "lets 50.0 % of the visual tok"),
        (["pruner=pyramiddrop", "pruner.ratios=[0.5,0.4,0.3]", "tokens=9"], "numbers of tokens of"),
        (
            ["pruner=cdpruner", "pruner.relevance=encoder"],
            "CDPruner needs the signal text_encoder, but",
        ),
        (["pruner=nothing"], "There is no pruner=nothing; choose from "),
        (["model=nothing"], "There is no model=nothing; choose from "),
        (["dataset=nothing"], "There is no dataset=nothing; choose from "),
        (["logger=nothing"], "There is no logger=nothing; choose from "),
        (["pruner.layer=99"], "layer must lie in 1 .. 5"),
        (["pruner.layer=x"], "layer must be a whole number or auto; got 'x'"),
        (["dataset.split=dev"], "split must be one of train, val, test; got 'dev'"),
        (["model.path=/no/such/folder"], "model.path must be an existing folder"),
        (["dataset.size=0"], "The dataset is empty"),
        (["tuned=typo"], "tuned must be one of "),
        (["seed=99999999999"], "seed must be at most 4294967295; got 99999999999"),
        (["generation.max_new_tokens=0"], "max_new_tokens must be a whole number of at least 1"),
        (["generation.max_new_tokens=many"], "at least 1; got 'many'"),
        (["+generation.no_such_argument=1"], "generate takes no argument 'no_such_argument'"),
        (["+generation.return_dict_in_generate=true"], "return_dict_in_generate must be false"),
        (["+generation.stop_strings=[x]"], "stop_strings needs a tokenizer"),
        (["pruner=sparsevlm", "pruner.layers=4"], "layers must be a list"),
        (["logger=wandb", "logger.project=team/pruning"], "logger.project must be a name"),
        (["limit=0"], "limit must be a whole number of at least 1"),
        (["nonsense=1"], "There is no setting 'nonsense'; choose from model, pruner"),
        (["ratoi=0.3"], "There is no setting 'ratoi'; did you mean ratio?"),
        (["+ratoi=0.3"], "There is no setting 'ratoi'; did you mean ratio?"),
        (["+data.rot=x"], "There is no setting 'rot'; did you mean root?"),
        (["pruner.kep_ratio=1"], "no setting 'kep_ratio' of pruner; did you mean keep_ratio"),
        (["pruner=ivpc"], "There is no pruner=ivpc; did you mean ivc or ivcp?"),
        (["metric=pope"], "metric must be a mapping with a _target_; got 'pope'"),
        (["pruner._target_=ivcp.pruners.fastv.FastW"], "did you mean FastV?"),
        (
            ["pruner._target_=ivcp.pruners.fastw.FastV"],
            "exists; got ivcp.pruners.fastw",
        ),
        (["hydra.run.dir=/dev/null/run"], "The folder of the run cannot be written (/dev/null/run"),
        (["-m", "ratio=1", "hydra.sweep.dir=/dev/null/run"], "cannot be written (/dev/null/run"),
        (["~metric"], "There is no block 'metric'"),
        (["data=3"], "data must be settings by name, such as data.root=DIR; got 3"),
        (["~ratio"], "Interpolation key 'ratio' not found"),
        (["ratio=[1"], "[1"),
        (["logger=null"], "Config group override must be a string"),
        (["-m", "pruner=none,nothing"], "There is no pruner=nothing"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words, sentence, model, run) -> None:
    code, _, err = run(*words, *([] if "model" in words[0] else [model]), "trainer=cpu")
    lines = [line for line in err.splitlines() if "Loading weights" not in line]
    assert code == 2
    assert len(lines) == 1, err
    assert sentence in lines[0]


def test_a_temperature_of_0_is_greedy(model, run, tmp_path) -> None:
    words = ("generation.do_sample=true", "+generation.temperature=0", "hydra.run.dir=greedy")
    code, _, err = run(model, *QUICK, *words)
    assert code == 0, err


def test_a_sweep_over_the_ratio_of_the_pruner_has_a_point_a_run(model, run, tmp_path) -> None:
    """The command line's own `ratio` says nothing of what these runs prune to."""
    code, _, err = run("-m", "pruner=random", "pruner.keep_ratio=0.5,0.3,0.1", model, *QUICK)
    assert code == 0, err
    table = load_runs(tmp_path / "multirun")
    assert sorted(table["ratio"]) == [0.1, 0.3, 0.5]
    assert sorted(table["tokens.keep_ratio"].round(1)) == [0.1, 0.3, 0.5]


def test_a_budget_is_recorded_as_asked_and_as_it_came_out(model, run, tmp_path) -> None:
    words = ("-m", "pruner=none,fastv", "budget=layer_average", "tokens=60,90")
    code, out, err = run(*words, model, *QUICK)
    assert code == 0, err
    assert "budget (60 tokens, layer average)" in out
    table = load_runs(tmp_path / "multirun")
    pruned = table[table["pruner"] == "fastv"]
    assert sorted(pruned["tokens.layer_average_ratio"].round(3)) == [0.417, 0.625]
    records = [
        json.loads(path.read_text())["run"]["budget"]
        for path in tmp_path.glob("multirun/*/*/*/metrics.json")
    ]
    found = {record and round(record["obtained"], 3) for record in records}
    assert found == {None, 60, 90}


def test_what_a_budget_holds_for_is_recorded_and_decides(model, run, tmp_path) -> None:
    folder = "hydra.run.dir=outputs/one"
    words = ("pruner=fastv", "tokens=60", model, *QUICK, folder)
    code, out, err = run(*words, "budget_over=sample")
    assert code == 0, err
    assert "budget (60 tokens, per sample)" in out
    results = json.loads((tmp_path / "outputs/one/metrics.json").read_text())
    assert (results["run"]["budget"]["over"], results["tokens"]["kept"]) == ("sample", 60)
    code, _, err = run(*words, "resume=true")
    assert code == 2
    assert "budget_over" in err


def test_answers_of_another_budget_are_not_reused(model, run, tmp_path) -> None:
    code, _, err = run(
        "-m", "pruner=random", "tokens=100,60", "resume=true", model, *QUICK,
        "hydra.sweep.dir=outputs/sweep",
    )  # fmt: skip
    assert code == 0, err
    kept = load_runs(tmp_path / "outputs")["tokens.kept"]
    assert sorted(kept) == [60, 100]
    folder = "hydra.run.dir=outputs/one"
    assert run("pruner=random", "tokens=100", model, *QUICK, folder)[0] == 0
    code, _, err = run("pruner=random", "tokens=60", "resume=true", model, *QUICK, folder)
    assert code == 2
    assert "tokens" in err


def test_a_row_is_one_of_its_own_models(model, run) -> None:
    code, _, err = run("pruner=random", "budget=llava15_64", model, *QUICK)
    assert code == 2
    assert "budget=llava15_64 is a row of tables of llava15; for tiny, give tokens=" in err


def test_a_sweep_goes_on_after_a_mistake(model, run, tmp_path) -> None:
    code, _, err = run("-m", "ratio=7,0.5", "pruner=random", model, *QUICK)
    assert code == 2
    assert "got 7" in err
    assert len(list(tmp_path.glob("multirun/*/*/*/metrics.json"))) == 1


def test_a_defect_keeps_its_traceback(model, run, monkeypatch) -> None:
    monkeypatch.setattr("ivcp.evaluation.evaluate.Evaluation", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(model, *QUICK)


def test_what_is_chosen_of_a_pruner_names_its_variant() -> None:
    from ivcp.cli.run import variant

    chosen = ["ratio=0.3", "pruner=plus_ivc", "pruner@pruner.base=fastv", "pruner.base.layer=4"]
    chosen += [
        "pruner.seed=1",
        "+pruner.prune_earlier_kv=false",
        "pruner.share=0.2",
        "model.dtype=x",
    ]
    assert variant(chosen) == "base=fastv prune_earlier_kv=false share=0.2"


def test_a_setting_that_a_pruner_lacks_is_one_sentence(model, run) -> None:
    code, _, err = run("pruner=none", "+pruner.prune_earlier_kv=true", model, *QUICK)
    assert code == 2
    assert err.strip() == "pruner has no setting 'prune_earlier_kv' (NoPruning does not take it)."


def test_composed_methods_are_recorded_with_their_layers(run, model, tmp_path) -> None:
    out = f"hydra.run.dir={tmp_path / 'composed'}"
    code, _, err = run("pruner=compose", "ratio=0.3", model, out, *QUICK)
    assert code == 0, err
    record = json.loads((tmp_path / "composed" / "metrics.json").read_text())["run"]
    assert record["config"]["pruner"]["parts"]["second"]["layer"] == 2
    assert record["layers"] == [0, 2]
    more = ["pruner@pruner.parts.second=pyramiddrop", f"hydra.run.dir={tmp_path / 'more'}"]
    code, _, err = run("pruner=compose", "ratio=0.1", model, *more, *QUICK)
    assert code == 0, err
    record = json.loads((tmp_path / "more" / "metrics.json").read_text())["run"]
    assert record["layers"] == [0, 2, 3, 4]
