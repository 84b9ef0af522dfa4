"""The analysis of the studies: corrections, paired differences, rules, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_results import made_results, write_predictions, write_run
from scipy.optimize import minimize

from experiments.analysis.__main__ import ANALYSES, main
from experiments.analysis.differences import add_holm, compare, compare_boxes, holm
from experiments.analysis.equal_cost import agreement
from experiments.analysis.horizon import first_from
from experiments.analysis.logistic import explained, logistic
from experiments.analysis.samples import MODELS, Studies, arms
from experiments.analysis.two_stage import choose_layer
from ivcp.results.prediction import Prediction

BOX, ELSEWHERE = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
METRICS = {
    "shapes": ("acc@0.5", "ivcp.metrics.grounding.GroundingMetrics"),
    "shapes_pope": ("f1", "ivcp.metrics.yes_no.YesNoMetrics"),
}


def make_run(
    folder: Path,
    right: Sequence[bool],
    pruner: str = "fastv",
    dataset: str = "shapes",
    kept: Sequence[float] = (),
    settings: dict[str, Any] | None = None,
    split: str = "test",
    **run: Any,
) -> None:
    """A run folder with these answers; lines of the pruner "other" are in reverse order."""
    predictions = []
    for index, hit in enumerate(right):
        truth = ("Yes", "No")[index % 2]
        answer, wrong = (
            (BOX, ELSEWHERE) if dataset == "shapes" else (truth, ("No", "Yes")[index % 2])
        )
        prediction = Prediction(
            index=index,
            id=f"{split}-{index}",
            task="grounding" if dataset == "shapes" else "yes_no",
            answer=answer,
            parsed=answer if hit else wrong,
            score=float(hit),
            kept_in_box=(1.0, kept[index] if kept else 0.5) if dataset == "shapes" else (),
            coverage=(0.0, 0.1 + 0.001 * index),
            layer_tokens=(9,) * 8,
        )
        predictions.append(prediction)
    value = float(np.mean(right)) if dataset == "shapes" else f1(right)
    name, metric = METRICS[dataset]
    fields = {
        "pruner": pruner,
        "dataset": dataset,
        "model": folder.parts[-4],
        "samples": len(right),
        "layers": [4],
        "unpruned": pruner == "none",
        "primary_metric": {"name": name, "metric": metric, "value": value},
    }
    config = {"pruner": settings or {}, "dataset": {"split": split}}
    write_run(folder, made_results(value, config, **fields | run))
    write_predictions(folder, predictions[:: -1 if pruner == "other" else 1])


def f1(right: Sequence[bool]) -> float:
    """Of answers to questions of which every second one, from the first on, is a "Yes"."""
    true_positives = sum(right[::2])
    false_positives = sum(not hit for hit in right[1::2])
    return 2 * true_positives / (true_positives + false_positives + len(right[::2]))


def pattern(rights: int, size: int = 40) -> list[bool]:
    return [index < rights for index in range(size)]


def analysed(root: Path, study: str) -> pd.DataFrame:
    analysis = ANALYSES[study](Studies(root))
    assert analysis
    return analysis.rows


def test_holm_is_what_a_hand_computes() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


def test_holm_is_of_each_family_and_of_tests_alone() -> None:
    table = pd.DataFrame({"model": ["a", "a", "b", "a"], "p": [0.02, 0.04, 0.02, np.nan]})
    corrected = add_holm(table, "model")["p_holm"]
    assert corrected[:3].tolist() == pytest.approx([0.04, 0.04, 0.02])
    assert np.isnan(corrected[3])


def test_single_runs_are_paired_by_sample(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "positions" / "all"
    make_run(folder / "0", [True] * 18 + [False, True], "own")
    make_run(folder / "1", [False] * 7 + [True] * 13, "other")
    runs = Studies(tmp_path).runs("tiny", "positions")
    found = arms(runs, lambda run: (run.info.pruner,))
    pair = compare(found["own",], found["other",])
    assert (pair["value"], pair["against_value"]) == (0.95, 0.65)
    assert pair["difference"] == pytest.approx(0.3)
    assert (pair["p"], pair["test"]) == (0.0703125, "mcnemar")  # of 7 against 1
    assert 0 <= pair["low"] < 0.3 < pair["high"] < 0.6
    same = compare(found["own",], found["own",])
    assert (same["low"], same["high"], same["p"]) == (0, 0, 1)


@pytest.mark.parametrize("dataset", METRICS)
def test_draws_are_compared_by_their_mean(tmp_path: Path, dataset: str) -> None:
    folder, rng = tmp_path / "tiny" / "spread" / "random", np.random.default_rng(0)
    draws = [(rng.random(60) < 0.4).tolist() for _ in range(3)]
    for seed, right in enumerate(draws):
        make_run(folder / str(seed), right, "random", dataset, settings={"seed": seed})
    better = (rng.random(60) < 0.9).tolist()
    make_run(tmp_path / "tiny" / "spread" / "ivc" / "0", better, "ivc", dataset)
    found = arms(Studies(tmp_path).runs("tiny", "spread"), lambda run: (run.info.pruner,))
    pair = compare(found["ivc",], found["random",])
    value = np.mean if dataset == "shapes" else f1
    expected = value(better) - np.mean([value(right) for right in draws])
    assert pair["difference"] == pytest.approx(expected)
    assert pair["low"] < expected < pair["high"]
    assert pair["test"] == "bootstrap"
    assert pair["p"] < 0.001


def test_kept_parts_of_the_box_are_compared_behind_the_last_stage(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "two_stage" / "seeds"
    make_run(folder / "0", pattern(3, 4), "a", kept=[0.2, 0.4, 0.6, 0.8])
    make_run(folder / "1", pattern(3, 4), "b", kept=[0.1, 0.3, 0.5, 0.7])
    found = arms(Studies(tmp_path).runs("tiny", "two_stage"), lambda run: (run.info.pruner,))
    pair = compare_boxes(found["a",], found["b",])
    assert pair["value"] == pytest.approx(0.5)
    assert (pair["low"], pair["difference"], pair["high"]) == pytest.approx((0.1, 0.1, 0.1))


def test_a_horizon_has_nothing_behind_it() -> None:
    assert first_from({1: False, 2: True, 3: False, 4: True, 5: True}) == 4
    assert first_from({1: True, 2: True}) == 1
    assert first_from({1: True, 2: False}) is None


def test_horizon_is_where_no_method_beats_random_tokens(tmp_path: Path) -> None:
    make_run(tmp_path / "tiny" / "unpruned" / "test" / "0", pattern(38), "none")
    ivc, random = {1: 30, 2: 35, 3: 20}, {1: 5, 2: 34, 3: 37}  # right answers by layer
    for layer in (1, 2, 3):
        folder = tmp_path / "tiny" / "horizon"
        make_run(folder / "methods-boxes" / str(layer), pattern(ivc[layer]), "ivc", layers=[layer])
        for seed in range(3):
            name, settings = f"{layer}-{seed}", {"seed": seed}
            right = pattern(random[layer] + seed - 1)
            make_run(
                folder / "random-boxes" / name, right, "random", layers=[layer], settings=settings
            )
    rows = analysed(tmp_path, "horizon")
    layers = rows[rows["question"] == "horizon"].set_index("quantity")["value"]
    assert layers["horizon"] == 2  # ivc is far better at 1 and far worse at 3
    assert np.isnan(layers["no difference"])
    assert layers["random is level"] == 3
    draws = rows[(rows["method"] == "random") & (rows["layer"] == "1")].iloc[0]
    assert (draws["lowest"], draws["value"], draws["highest"]) == pytest.approx((0.1, 0.125, 0.15))
    assert draws["against"] == "unpruned"


def test_layer_is_the_earliest_level_one_else_the_best() -> None:
    scores = {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.8}
    assert choose_layer(scores, dict.fromkeys(scores, False) | {3: True, 4: True}) == 3
    assert choose_layer(scores, dict.fromkeys(scores, False)) == 2


def test_layers_are_chosen_on_validation_and_tested_once(tmp_path: Path) -> None:
    right = {"val": {2: 10, 3: 38, 4: 39}, "test": {2: 40, 3: 30, 4: 35}}
    for split, layers in right.items():
        folder = tmp_path / "tiny" / "unpruned" / split / "0"
        make_run(folder, pattern(39), "none", split=split)
        for layer, count in layers.items():
            folder = tmp_path / "tiny" / "two_stage" / split / str(layer)
            make_run(folder, pattern(count), "ivcp", split=split, layers=[layer])
    rows = analysed(tmp_path, "two_stage")
    chosen = rows[rows["question"] == "layers"].set_index("settings")["value"]
    assert chosen.to_dict() == {"layer": 3, "chosen layer": 0.75, "layer 4": 0.875}


def test_logistic_regression_finds_a_simulated_effect() -> None:
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(4000, 2)), np.array([0.5, 2.0, -1.0])
    right = rng.random(4000) < 1 / (1 + np.exp(-(truth[0] + x @ truth[1:])))
    beta, errors = logistic(x, right, np.arange(4000))
    assert (np.abs(beta - truth) < 3 * errors).all()

    def loss(each: np.ndarray) -> float:
        odds = each[0] + x @ each[1:]
        return float((np.logaddexp(0, odds) - right * odds).sum())

    assert beta == pytest.approx(minimize(loss, np.zeros(3)).x, abs=1e-3)
    ten = logistic(np.repeat(x, 10, 0), np.repeat(right, 10), np.repeat(np.arange(4000), 10))
    assert ten[1] == pytest.approx(errors)  # ten copies of a sample tell no more than one
    both = logistic(x, right, np.arange(4000), np.arange(4000))
    assert both[1] == pytest.approx(errors, rel=1e-3)


def test_explained_is_the_squared_correlation() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert explained(x[:, None], y) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert np.isnan(explained(x[:, None], np.ones(30)))


def test_lost_answers_are_those_whose_box_is_lost(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        kept = rng.random(80)
        right = (rng.random(80) < kept).tolist()
        folder, settings = (
            tmp_path / "tiny" / "positions" / "all" / str(number),
            {"renumber": False},
        )
        make_run(
            folder, right, f"m{number}", kept=kept.tolist(), settings=settings, layers=[number]
        )
    make_run(folder.with_name("4"), [False] * 80, "m0", settings={"renumber": "ranks"})
    make_run(tmp_path / "tiny" / "horizon" / "diagnose" / "0", [False] * 80, "m0")
    rows = analysed(tmp_path, "lost").set_index(["quantity", "settings"])
    odds = rows.loc[("log-odds", "kept_in_box")]
    assert odds["low"] > 2
    assert odds["samples"] == 320  # neither other positions nor one token of an answer
    assert rows.loc[("R²", "kept_in_box"), "samples"] == 4


def test_methods_before_the_language_model_meet_controls_there(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "equal_cost"
    make_run(folder / "boxes" / "0", pattern(30), "divprune", layers=[0])
    make_run(folder / "boxes" / "1", pattern(39), "random", layers=[4])
    make_run(folder / "early" / "0", pattern(20), "random", layers=[0])
    rows = analysed(tmp_path, "equal_cost")
    (pair,) = rows[rows["question"] == "before layer 0"].to_dict("records")
    assert (pair["method"], pair["against"], pair["difference"]) == ("divprune", "random", 0.25)
    assert pair["p_holm"] < 0.01


def test_agreement_is_of_methods_with_both_scores() -> None:
    names = {"model": "tiny", "dataset": "shapes", "ratio": 0.5}
    values = {"final": [1, 2, 3, 4], "flops": [1, 3, 2]}
    rows = [
        names | {"settings": count, "method": str(number), "value": value}
        for count, scores in values.items()
        for number, value in enumerate(scores)
    ]
    tau = agreement(pd.DataFrame(rows)).iloc[0]
    assert (tau["settings"], tau["samples"]) == ("final, flops", 3)
    assert tau["value"] == pytest.approx(1 / 3)  # two pairs agree, one does not


def test_what_is_missing_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "studies", tmp_path / "out"
    make_run(root / "tiny" / "unpruned" / "test" / "0", pattern(30), "none")
    for name, settings in enumerate(({}, {"offset": 37})):
        make_run(
            root / "tiny" / "spread" / "ivc" / str(name),
            pattern(20 + name),
            "ivc",
            settings=settings,
        )
    make_run(root / "tiny" / "spread" / "ivc" / "9", pattern(2, 3), "uniform")
    make_run(root / "tiny" / "spread" / "base" / "0", pattern(0), "ivc", failed_samples=40)
    arguments = ["spread", "two_stage", "--root", str(root), "--out", str(out)]
    main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert f"{root / 'tiny_llava'} does not exist; it is left out." in lines
    assert f"{root / 'tiny' / 'spread' / 'random'} does not exist; it is left out." in lines
    assert "two_stage: there are no runs, so nothing is written." in lines
    assert sum("1 runs are left out" in line for line in lines) == 1
    assert sum("all its samples failed" in line for line in lines) == 1
    files = {path.name: path.read_bytes() for path in (out / "spread").iterdir()}
    assert set(files) == {"table.csv", "table.md", "plot.png", "plot.pdf"}
    assert str(tmp_path).encode() not in files["table.csv"] + files["table.md"]
    table = pd.read_csv(out / "spread" / "table.csv")
    pair = table[table["against"].notna()].iloc[0]
    assert (pair["settings"], pair["against"]) == ("ivc", "ivc offset=37")
    assert pair["difference"] == -0.025
    main(arguments)
    assert {path.name: path.read_bytes() for path in (out / "spread").iterdir()} == files


def test_an_unknown_study_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["postions"])
    assert "got postions" in capsys.readouterr().err


def test_models_are_read_from_where_they_exist(tmp_path: Path) -> None:
    (tmp_path / MODELS[1]).mkdir()
    assert Studies(tmp_path).models == [MODELS[1]]
    (tmp_path / "qwen25vl").mkdir()
    assert Studies(tmp_path, ["qwen25vl"]).models == ["qwen25vl"]
