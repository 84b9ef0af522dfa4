import json
import math
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch
from PIL import Image
from wandb_files import forget_credentials, read_runs

from ivcp.core.errors import UserError
from ivcp.datasets.shapes import Shapes
from ivcp.evaluation.evaluate import evaluate
from ivcp.evaluation.wandb_logger import UnattendedWandbLogger
from ivcp.metrics.yes_no import YesNoMetrics
from ivcp.pruners.fastv import FastV
from ivcp.pruners.none import NoPruning


def results(parts) -> tuple[dict, list[dict]]:
    folder = Path(parts["folder"])
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((folder / "metrics.json").read_text()), [json.loads(line) for line in lines]


class Broken(Shapes):
    """Scenes of which the second cannot be decoded."""

    def __getitem__(self, index: int):
        if index == 1:
            raise OSError("image file is truncated")
        return super().__getitem__(index)


class Wordy(Shapes):
    """Scenes with longer and longer questions."""

    def __getitem__(self, index: int):
        sample = super().__getitem__(index)
        return replace(sample, question=sample.question + " again" * index)


def test_a_run_leaves_the_files_that_are_promised(parts, capsys) -> None:
    primary_metric = evaluate(**parts).value
    report, lines = results(parts)
    assert [line["id"] for line in lines] == ["test-0-0", "test-0-1", "test-0-2"]
    assert report["run"]["primary_metric"] == {
        "name": "acc@0.5",
        "value": primary_metric,
        "unit": "%",
        "metric": "ivcp.metrics.grounding.GroundingMetrics",
    }
    assert report["metrics"]["acc@0.5"] == primary_metric
    assert report["tokens"]["keep_ratio"] == 0.5
    assert report["tokens"]["layer_average_ratio"] == 0.75  # 2 of 4 layers see half
    assert report["efficiency"]["prefill_flops_counted_to_formula"] == pytest.approx(1, rel=0.05)
    assert 0 < report["efficiency"]["kv_cache_ratio"] < 0.6
    assert all(line["kept_tokens"] == len(line["kept"]) for line in lines)
    for line in lines:
        assert sorted(chain.from_iterable(line["reasons"].values())) == line["kept"]
    assert all(len(line["kept_in_box"]) == len(line["coverage"]) == 1 for line in lines)
    mean = sum(line["kept_in_box"][0] for line in lines) / 3
    assert report["tokens"]["kept_in_box"] == [pytest.approx(mean)]
    assert 0 < report["tokens"]["coverage"][0] < 0.5
    assert all(line["time_to_first_token_ms"] > line["language_prefill_ms"] for line in lines)
    for key in ("ratio", "layers", "versions", "git", "device", "dtype", "attention", "date"):
        assert key in report["run"], key
    (picture,) = (Path(parts["folder"]) / "pictures").iterdir()
    assert picture.name == "000_test-0-0.png"
    assert Image.open(picture).size[0] > 100
    assert "acc@0.5" in capsys.readouterr().out
    names = {path.name for path in Path(parts["folder"]).iterdir()}
    assert names == {"metrics.json", "predictions.jsonl", "run.json", "pictures"}


def test_unpruned_answers_are_those_of_plain_generate(parts) -> None:
    parts["config"]["batch_size"], parts["dataset"] = 3, Wordy(task="grounding", size=3)
    evaluate(**parts | {"pruner": NoPruning()})
    report, lines = results(parts)
    assert len({line["prompt_tokens"] for line in lines}) > 1  # a batch with padding
    family = parts["model"]
    model, processor = family.load()
    for index, line in enumerate(lines):
        encoded = family.encode(processor, [parts["dataset"][index]])
        with torch.inference_mode():
            tokens = model.generate(**encoded.inputs, max_new_tokens=4, do_sample=False)
        answer = tokens[:, encoded.inputs["input_ids"].shape[1] :]
        assert line["prediction"] == family.decode(processor, answer)[0]
    assert report["efficiency"]["kv_cache_ratio"] == 1
    assert report["efficiency"]["prefill_flops_ratio"] == 1
    assert all((line["kept_in_box"], line["coverage"]) == ([1], [0]) for line in lines)
    assert report["tokens"]["layer_average_ratio"] == 1


def test_a_corrupt_image_is_counted_and_the_run_goes_on(parts) -> None:
    parts["dataset"] = Broken(task="yes_no", size=3)
    evaluate(**parts | {"metric": YesNoMetrics()})
    report, lines = results(parts)
    assert (report["run"]["samples"], report["run"]["failed_samples"]) == (3, 1)
    assert [line["failed"] for line in lines] == [None, "OSError: image file is truncated", None]
    assert (lines[1]["id"], lines[1]["score"], lines[1]["parsed"]) == ("index-1", 0.0, None)
    assert report["metrics"]["unparsed_rate"] >= 1 / 3
    assert report["tokens"]["visual"] == 144  # the failed sample does not count as zero tokens


def test_a_dataset_of_failures_is_no_success(parts) -> None:
    class AllBroken(Shapes):
        def __getitem__(self, index: int):
            raise OSError("gone")

    parts["dataset"] = AllBroken(task="grounding", size=3)
    with pytest.raises(UserError, match=r"All 3 samples failed, .* the first: OSError: gone\."):
        evaluate(**parts)
    assert results(parts)[0]["run"]["failed_samples"] == 3


def test_an_empty_dataset_is_refused_before_weights_load(parts, monkeypatch) -> None:
    monkeypatch.setattr(type(parts["model"]), "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(UserError, match="The dataset is empty"):
        evaluate(**parts | {"dataset": Shapes(task="grounding", size=0)})


def test_a_metric_of_another_task_is_refused_before_weights_load(parts, monkeypatch) -> None:
    monkeypatch.setattr(type(parts["model"]), "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"^GroundingMetrics scores answers of the task groun"):
        evaluate(**parts | {"dataset": Shapes(task="yes_no", size=2)})


def test_a_method_that_a_static_cache_cannot_hold_is_refused_likewise(parts, monkeypatch) -> None:
    monkeypatch.setattr(type(parts["model"]), "load", lambda *_: pytest.fail("loaded"))
    parts["config"] |= {"generation": {"cache_implementation": "static"}}
    with pytest.raises(UserError, match=r"^A static KV cache needs all layers .*, but FastV leav"):
        evaluate(**parts | {"pruner": FastV(keep_ratio=0.5, layer=2)})


def test_what_is_no_metric_is_refused(parts) -> None:
    with pytest.raises(UserError, match="metric must be an instance of an AnswerMetric; got None"):
        evaluate(**parts | {"metric": None})


def test_pictures_need_something_that_draws(parts, monkeypatch) -> None:
    monkeypatch.setattr(type(parts["model"]), "load", lambda *_: pytest.fail("loaded"))
    parts["config"] |= {"pictures": 1}
    with pytest.raises(UserError, match=r"draw must be a function, .* or pictures=0; got None"):
        evaluate(**parts | {"draw": None})


def test_a_full_disk_keeps_what_was_written(parts, monkeypatch) -> None:
    from ivcp.results.files import LineFile

    append = LineFile.append

    with Path("/dev/full").open("wb", buffering=0) as full:

        def full_at_the_second_batch(self, lines) -> None:
            if self.size:
                self.file.close()
                self.file = full
            append(self, lines)

        monkeypatch.setattr(LineFile, "append", full_at_the_second_batch)
        with pytest.raises(UserError, match="The disk is full"):
            evaluate(**parts)
    folder = Path(parts["folder"])
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 2
    assert not (folder / "metrics.json").exists()


def test_two_processes_count_each_of_five_samples_once(parts) -> None:
    parts["dataset"] = Broken(task="grounding", size=5)
    spawn = {"devices": 2, "strategy": "ddp_spawn"}
    evaluate(**parts | {"trainer": partial(parts["trainer"], **spawn)}, sweep=True)
    report, lines = results(parts)
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert (report["run"]["processes"], report["run"]["failed_samples"]) == (2, 1)
    names = {path.name for path in Path(parts["folder"]).iterdir()}
    assert names == {"metrics.json", "predictions.jsonl", "run.json", "pictures"}
    single = parts | {"folder": parts["folder"] + "-single"}
    Path(single["folder"]).mkdir()
    evaluate(**single)
    alone, lines_alone = results(single)
    assert report["metrics"] == alone["metrics"]
    assert [line["kept"] for line in lines] == [line["kept"] for line in lines_alone]


def test_records_tell_what_each_grid_shows(parts, monkeypatch) -> None:
    half = (0.25, 0.0, 0.75, 1.0)  # as if the image processor cut off both sides
    encode = type(parts["model"]).encode

    def cropping(self, processor, samples):
        encoded = encode(self, processor, samples)
        return replace(encoded, visible_areas=[[half] for _ in samples])

    monkeypatch.setattr(type(parts["model"]), "encode", cropping)
    evaluate(**parts)
    _, lines = results(parts)
    (grid,) = lines[0]["images"][0]["grids"]
    assert (grid["rows"], grid["columns"], grid["area"]) == (12, 12, list(half))
    assert grid["start"] <= min(lines[0]["kept"]) <= max(lines[0]["kept"]) < grid["start"] + 144


def test_a_sweep_refuses_a_strategy_that_starts_itself_again(parts) -> None:
    ddp = partial(parts["trainer"], devices=2, strategy="ddp")
    with pytest.raises(UserError, match=r"A sweep \(-m\) cannot use trainer.strategy=ddp"):
        evaluate(**parts | {"trainer": ddp}, sweep=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_one_sentence(parts) -> None:
    with pytest.raises(UserError, match=r"The trainer cannot be used here .* trainer=cpu"):
        evaluate(**parts | {"trainer": partial(parts["trainer"], accelerator="gpu")})


def test_wandb_offline_run_can_be_read_back(parts, monkeypatch, tmp_path, caplog) -> None:
    pytest.importorskip("wandb")
    forget_credentials(monkeypatch, tmp_path)
    value = evaluate(**parts | {"logger": partial(UnattendedWandbLogger, project="test")}).value
    assert "logs offline, since no API key was found" in caplog.text
    (run,) = read_runs(Path(parts["folder"]))
    assert math.isclose(run.history["metrics/acc@0.5"], value)
    assert {"tokens/keep_ratio", "efficiency/kv_cache_bytes"} <= run.history.keys()
    assert run.config["ratio"] == 0.5
    assert len(run.table("predictions")["data"]) == 3
    assert len(list((run.folder / "files" / "media").glob("images/*.png"))) == 1
