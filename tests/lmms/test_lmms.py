"""lmms-eval runs its tasks on a pruned model; needs lmms-eval, but no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.datasets.shapes import Shapes
from ivcp.engine.attach import open_session
from ivcp.integrations.lmms.arguments import Arguments
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.random import RandomPruning

pytest.importorskip("lmms_eval")

import datasets
from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import simple_parse_args_string
from loguru import logger

from ivcp.integrations.lmms.model import PrunedModel

SIZE = 4
TINY = "model=qwen25vl,path=null,dtype=float32,max_new_tokens=40"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
TASK = """
task: shapes_{name}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {name}.parquet}}}}
test_split: test
output_type: generate_until
doc_to_visual: image
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{do_sample: false, max_new_tokens: 40}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def model(words: str) -> PrunedModel:
    return PrunedModel.create_from_arg_string(f"{TINY},{words}")


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return [Shapes(task="grounding", size=SIZE)[number] for number in range(SIZE)]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, scenes) -> Path:
    """A folder with two tasks: yes or no, and boxes (whose exact match means nothing)."""
    folder = tmp_path_factory.mktemp("tasks")
    questions = [Shapes(task="yes_no", size=SIZE)[number] for number in range(SIZE)]
    for name, samples in (("yes_no", questions), ("grounding", scenes)):
        rows = [
            {
                "image": one.images[0],
                "question": Qwen25VL().format_question(one),
                "answer": str(one.answer),
            }
            for one in samples
        ]
        table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
        table.to_parquet(str(folder / f"{name}.parquet"))
        (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    return folder


@pytest.fixture
def evaluate(tasks, tmp_path, monkeypatch) -> Callable[..., Any]:
    """Evaluates as the command line does; returns results, and how many requests were answered."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    manager = TaskManager("WARNING", include_path=str(tasks), include_defaults=False)
    asked = []
    answer = PrunedModel.generate_until

    def count(self: PrunedModel, requests: list[Instance]) -> list[str]:
        asked.append(len(requests))
        return answer(self, requests)

    def run(words: Any, task: str = "shapes_yes_no", **options: Any) -> tuple[Any, int]:
        asked.clear()
        named = {"model": "ivcp", "model_args": f"{TINY},{words}"}
        if isinstance(words, PrunedModel):
            named = {"model": words}
        found = simple_evaluate(
            **named, tasks=[task], task_manager=manager, batch_size="4", **options
        )
        return found, sum(asked)

    monkeypatch.setattr(PrunedModel, "generate_until", count)
    return run


def texts(found: Any) -> list[str]:
    (samples,) = found["samples"].values()
    return [sample["resps"][0][0] for sample in samples]


def reference(samples: list[Sample], pruner: Any) -> list[str]:
    """Answers to the samples one by one, put by the family itself."""
    family = Qwen25VL(path=None, dtype="float32")
    network, processor = family.load()
    answers = []
    with open_session(network, family, pruner) as session:
        for number, sample in enumerate(samples):
            session.sample_ids = [f"shapes_grounding-{number}"]
            inputs = family.encode(processor, [sample]).inputs
            output = network.generate(**inputs, max_new_tokens=40, do_sample=False)
            answers += family.decode(processor, output[:, inputs["input_ids"].shape[1] :])
    return answers


def request(document: int = 0, context: str = "", task: str = "t", **options: Any) -> Instance:
    return Instance(
        request_type="generate_until",
        arguments=(context, options, lambda doc: doc["visuals"], document, task, "test"),
        idx=0,
        metadata={"task": task, "doc_id": document, "repeats": 1},
    )


def test_the_plugin_is_found() -> None:
    assert get_model("ivcp") is PrunedModel


@pytest.mark.parametrize(
    "words",
    ["pruner=none", "pruner=ivcp,keep_ratio=0.3,layer=4", "pruner=sparsevlm,layers=[2,4,6]"],
)
def test_the_whole_record_reads_back_through_the_parser_of_lmms_eval(words) -> None:
    given = Arguments.parse(simple_parse_args_string(f'model=qwen25vl,path="/a b,c",{words}'))
    assert Arguments.parse(simple_parse_args_string(str(given))) == given
    assert given.model.path == "/a b,c"


def test_the_packaged_model_answers_a_task(evaluate) -> None:
    found, _ = evaluate("pruner=none")
    assert found["results"]["shapes_yes_no"]["exact_match,none"] == 1.0
    assert set(texts(found)) == {"Yes", "No"}


@pytest.mark.parametrize(
    ("words", "pruner"),
    [
        ("pruner=none", NoPruning()),
        ("pruner=ivcp,keep_ratio=0.1,layer=4", IVCPrune(keep_ratio=0.1, layer=4)),
        ("pruner=random,keep_ratio=0.3,layer=4", RandomPruning(keep_ratio=0.3, layer=4)),
    ],
)
def test_answers_are_those_of_the_family_under_the_pruner(words, pruner, evaluate, scenes) -> None:
    found, _ = evaluate(words, "shapes_grounding")
    assert texts(found) == reference(scenes, pruner)


def test_the_response_cache_tells_settings_apart(evaluate, tmp_path) -> None:
    cached = {"use_cache": str(tmp_path / "cache")}
    half, asked = evaluate("pruner=ivcp,layer=4,keep_ratio=0.5", **cached)
    assert asked == SIZE
    for words in ("layer=4,keep_ratio=0.1", "layer=3,keep_ratio=0.5", "layer=4"):
        assert evaluate(f"pruner=ivcp,{words}", **cached)[1] == SIZE, words
    again, asked = evaluate("keep_ratio=0.5,pruner=ivcp,layer=4", **cached)
    assert asked == 0
    assert texts(again) == texts(half)


def test_the_response_cache_knows_the_defaults_of_a_model_object(evaluate, tmp_path) -> None:
    cached = {"use_cache": str(tmp_path / "cache")}
    assert evaluate(model("pruner=ivcp,layer=4"), **cached)[1] == SIZE
    assert evaluate(model("pruner=ivcp,layer=4,keep_ratio=0.5"), **cached)[1] == 0
    assert evaluate(model("pruner=ivcp,layer=4,keep_ratio=0.4"), **cached)[1] == SIZE


def test_batches_of_mixed_requests_are_answered_in_order(scenes) -> None:
    documents = [{"visuals": list(one.images)} for one in scenes]
    documents += [{"visuals": None}, {"visuals": [scenes[0].images[0], scenes[1].images[0]]}]
    requests = [
        request(number, Qwen25VL().format_question(scenes[0]), max_new_tokens=4 + number % 3)
        for number in range(len(documents))
    ]
    answered = {}
    for size in (1, 3):
        asked = model(f"pruner=ivcp,keep_ratio=0.5,layer=4,batch_size={size}")
        asked.task_dict = {"t": {"test": documents}}
        answered[size] = asked.generate_until(requests)
    assert answered[1] == answered[3]
    assert len(set(answered[1])) > 1


def test_a_context_is_put_verbatim_and_images_in_rgb(monkeypatch) -> None:
    seen = []
    encode = Qwen25VL.encode

    def watch(self: Qwen25VL, processor: Any, samples: list[Sample]) -> Any:
        seen.extend(samples)
        return encode(self, processor, samples)

    monkeypatch.setattr(Qwen25VL, "encode", watch)
    asked = model("pruner=none")
    image = Image.new("RGBA", (56, 56), (255, 0, 0, 128))
    asked.task_dict = {"t": {"test": [{"visuals": [image, image.convert("P")]}]}}
    asked.generate_until([request(context="<image>What is  this?\nA. x", max_new_tokens=1)])
    (sample,) = seen
    assert sample.question == "What is  this?\nA. x"
    prompt = asked.family.encode(asked.processor, [sample]).prompts[0]
    assert f"{sample.question}<|im_end|>" in prompt
    assert [one.mode for one in sample.images] == ["RGB", "RGB"]
    assert sample.images[0].getpixel((0, 0)) == (255, 0, 0)


def test_answers_end_where_the_task_says(scenes) -> None:
    asked = model("pruner=none")
    asked.task_dict = {"t": {"test": [{"visuals": list(scenes[0].images)}]}}
    words = Qwen25VL().format_question(scenes[0])
    whole, short, cut = asked.generate_until(
        [
            request(context=words),
            request(context=words, max_new_tokens=3),
            request(context=words, until=["label", "]"]),
        ]
    )
    assert whole.startswith(short)
    assert len(short) < len(cut) < len(whole)
    assert cut == whole.partition("]")[0]


@pytest.mark.parametrize(
    ("visual", "told"),
    [("clip.mp4", "'clip.mp4'"), ({"array": 1}, "a dict"), (torch.zeros(2), "a Tensor")],
)
def test_other_visuals_than_images_are_refused(visual, told) -> None:
    asked = model("pruner=none")
    asked.task_dict = {"clips": {"test": [{"visuals": [visual]}]}}
    with pytest.raises(UserError, match=f"clips-0 has {told}: choose a task about images"):
        asked.generate_until([request(task="clips")])


@pytest.fixture
def logged():
    """Messages of the log."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize("size", [1, 3])
def test_a_request_that_fails_is_counted_and_ends_nothing(size, tmp_path, scenes, logged) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    good = list(scenes[0].images)
    visuals = [good, [str(tmp_path / "torn.png")], good, [Image.new("RGB", (1, 300))], good, good]
    asked = model(f"pruner=none,batch_size={size}")
    asked.task_dict = {"t": {"test": [{"visuals": images} for images in visuals]}}
    contexts = ["Is it?"] * 5 + ["Is it half \ud83d?"]
    requests = [request(number, context) for number, context in enumerate(contexts)]
    answers = asked.generate_until(requests)
    assert answers[0] == answers[2] == answers[4] != ""
    assert [answers[number] for number in (1, 3, 5)] == [""] * 3
    for name in ("t-1: OSError", "t-3: UserError", "t-5: UserError"):
        assert any(name in line for line in logged), name
    assert any("3 of 6 requests have no prompt" in line for line in logged)


def test_a_run_of_failures_is_no_success() -> None:
    asked = model("pruner=none")
    asked.task_dict = {"t": {"test": [{"visuals": ["absent.png"]}]}}
    with pytest.raises(UserError, match=r"1 of 1 requests .* t-0: FileNotFoundError"):
        asked.generate_until([request(0, "Is it?")])


def test_an_image_file_is_opened(tmp_path, scenes) -> None:
    scenes[0].images[0].save(tmp_path / "scene.png")
    asked = model("pruner=none")
    documents = [{"visuals": [str(tmp_path / "scene.png")]}, {"visuals": list(scenes[0].images)}]
    asked.task_dict = {"t": {"test": documents}}
    first, second = asked.generate_until([request(0, "Is it?"), request(1, "Is it?")])
    assert first == second


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until_multi_round"])
def test_other_requests_are_refused(kind) -> None:
    with pytest.raises(NotImplementedError, match="output_type generate_until"):
        getattr(model("pruner=none"), kind)([])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pruner=ivcp,layer=9", "layer must lie in 1 .. 7 for Qwen25VL with its 8 decoder layers"),
        ("pruner", "must read name=value,name=value; got"),
        ("pruner=none,path=/no/such/folder", "must be an existing folder"),
    ],
)
def test_a_mistake_is_told_before_weights_load(words, sentence, monkeypatch) -> None:
    monkeypatch.setattr(Qwen25VL, "load", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match=sentence):
        model(words)


def test_model_args_win_over_other_options() -> None:
    options = {"batch_size": "4", "max_batch_size": None, "device": None}
    made = PrunedModel.create_from_arg_string(f"{TINY},pruner=none,batch_size=2", options)
    assert made.requests.batch_size == 2
    assert (
        PrunedModel.create_from_arg_string(f"{TINY},pruner=none", options).requests.batch_size == 4
    )


def test_a_spread_model_needs_a_single_process(monkeypatch) -> None:
    two = SimpleNamespace(process_index=1, num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr("ivcp.integrations.lmms.model.Accelerator", lambda: two)
    made = model("pruner=none")
    assert (made.rank, made.world_size) == (1, 2)
    with pytest.raises(UserError, match="start one process instead of 2"):
        model("pruner=none,device_map=cpu")


def command(tasks: Path, folder: Path, words: str, processes: int) -> tuple[str, Any, int]:
    """What the command prints, the results that it writes, and how many samples it writes."""
    launch = ["-m", "lmms_eval"]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), *launch]
    done = subprocess.run(
        [
            sys.executable, *launch, "--model", "ivcp", "--model_args", f"{TINY},{words}",
            "--batch_size", "4", "--tasks", "shapes_yes_no", "--include_path", str(tasks),
            "--output_path", str(folder), "--log_samples",
        ],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, **OFFLINE, "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (results,) = folder.glob("*/*_results.json")
    (samples,) = folder.glob("*/*_samples_shapes_yes_no.jsonl")
    scores = json.loads(results.read_text())["results"]["shapes_yes_no"]
    return done.stdout, scores, len(samples.read_text().splitlines())


def test_the_command_line(tasks, tmp_path) -> None:
    words = "pruner=ivcp,keep_ratio=0.9,layer=4"
    told, scores, samples = command(tasks, tmp_path, words, processes=1)
    assert scores["exact_match,none"] == 1.0
    assert samples == SIZE
    (line,) = [line for line in told.splitlines() if "Answering with model_args" in line]
    assert "pruner=ivcp,keep_ratio=0.9,layer=4," in line
    assert "cos_share=0.2" in line
    assert "batch_size=4" in line


def test_two_processes_share_the_documents(tasks, tmp_path) -> None:
    told, scores, samples = command(tasks, tmp_path, "pruner=none", processes=2)
    assert scores["exact_match,none"] == 1.0
    assert samples == SIZE
    assert told.count("Answering with model_args") == 2
