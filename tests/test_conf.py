import re
from functools import cache
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ivcp.cli import composing
from ivcp.core.metric import AnswerMetric
from ivcp.core.types import Answer, Sample, Task

CONF = Path(__file__).parents[1] / "conf"
GROUPS = (
    "budget", "dataset", "judge", "backend", "trainer", "logger", "pruner", "model", "experiment",
)  # fmt: skip
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
BOX = (1.0, 2.0, 30.0, 40.0)
ANSWERS: dict[Task, tuple[Answer, str, str]] = {  # the answer, a right reply and a wrong one
    "grounding": (BOX, "there", "nowhere"), "yes_no": ("Yes", "Yes", "No"),
    "multiple_choice": ("B", "B", "A"), "open_ended": (("seven",) * 10, "seven", "eight"),
    "temporal_grounding": ((2.0, 4.5), "2.0 - 4.5 seconds", "7 - 9"),
}  # fmt: skip


composed = cache(composing.composed)  # several tests read the same one


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes(group, name) -> None:
    assert group == "experiment" or group in composed(f"{group}={name}")


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_opens_with_what_it_is_and_how_to_use_it(path) -> None:
    comments = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            comments.append(line)
    assert re.search("python run.py|ivcp bench", " ".join(comments))


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "dataset"])
def test_every_dataset_brings_metrics_of_its_task(name) -> None:
    cfg = composed(f"dataset={name}")
    dataset, metric = instantiate(cfg.dataset), instantiate(cfg.metric)
    assert isinstance(metric, AnswerMetric)
    tasks = getattr(metric, "tasks", {})
    pairs = [(dataset.tasks[own]["dataset"], tasks[own]) for own in tasks]
    for part, judge in pairs or [(dataset, metric)]:
        answer, *replies = ANSWERS[part.task]
        options = ("a dog", "a cat") if part.task == "multiple_choice" else ()
        asked = Sample(
            id="s", task=part.task, images=(), question="?", answer=answer, options=options
        )
        read = [judge.read(text, asked, {"there": BOX}.get) for text in replies]
        assert [judge.score(one, asked) for one in read] == [1, 0]


@pytest.mark.parametrize("group", ["grounding", "general_vqa", "video"])
def test_a_task_group_has_the_datasets_that_it_names(group) -> None:
    tasks = composed(f"dataset={group}").dataset.tasks
    assert len(tasks) > 7
    for name, task in tasks.items():
        assert task.dataset == composed(f"dataset={name}").dataset


def test_a_task_of_a_group_can_be_left_out() -> None:
    names = set(composed("dataset=general_vqa").dataset.tasks) - {"mmvet"}
    cfg = composed("dataset=general_vqa", "~tasks.mmvet")
    assert set(instantiate(cfg.metric).tasks) == set(instantiate(cfg.dataset).tasks) == names


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "trainer"])
def test_every_trainer_leaves_the_screen_to_the_run(name) -> None:
    build = instantiate(composed(f"trainer={name}").trainer)
    assert build.keywords["enable_progress_bar"] is False
    if "cpu" in name:
        assert build(logger=False).world_size == (2 if "ddp" in name else 1)


def test_top_level_ratio_reaches_the_pruner() -> None:
    assert composed("ratio=0.3").pruner.keep_ratio == 0.3


def test_tuned_values_follow_the_pair_and_the_command_line_wins() -> None:
    (pair,) = CONF.glob("tuned/sparsevlm__tiny.yaml")
    tuned = OmegaConf.load(pair).pruner.layers
    assert OmegaConf.load(CONF / "pruner" / "sparsevlm.yaml").layers != tuned
    assert composed("pruner=sparsevlm", "model=tiny").pruner.layers == tuned
    assert composed("pruner=sparsevlm", "model=tiny", "pruner.layers=[1]").pruner.layers == [1]


def test_an_overlay_can_choose_other_parts(tmp_path) -> None:
    cfg = composed("+experiment=compare")
    assert cfg.dataset.task == "grounding"


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "experiment"])
def test_an_experiment_that_sweeps_needs_no_flag(name) -> None:
    hydra = OmegaConf.load(CONF / "experiment" / f"{name}.yaml").get("hydra", {})
    assert ("sweeper" in hydra) == (hydra.get("mode") == "MULTIRUN")
