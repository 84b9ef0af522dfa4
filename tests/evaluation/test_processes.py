"""Which GPUs a process takes, played on a machine without any."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import lightning
import pytest
import torch
from test_distributed import outcome, spawned

from ivcp.core.errors import UserError
from ivcp.datasets.shapes import Shapes
from ivcp.evaluation.evaluate import evaluate
from ivcp.evaluation.gpus import own_gpus
from ivcp.evaluation.trainer import make_trainer
from ivcp.measure.devices import peak_memory


@pytest.fixture
def eight_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return partial(lightning.Trainer, accelerator="gpu", strategy="ddp")


def groups(trainer, processes, device_map, monkeypatch) -> list[list[int] | None]:
    """GPUs of each process."""
    own = []
    for rank in range(processes):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        gpus = own_gpus(make_trainer(trainer, [], device_map=device_map))
        own.append(gpus and list(gpus))
    return own


@pytest.mark.parametrize(
    ("devices", "processes", "own"),
    [
        (4, 4, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (2, 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (3, 3, [[0, 1], [2, 3], [4, 5, 6, 7]]),
        (-1, 8, [[gpu] for gpu in range(8)]),
        ([0, 1], 2, [[0], [1]]),
        ([1, 4, 6], 3, [[1], [4], [6]]),
        ([2], 1, [[2]]),
        (1, 1, [None]),
    ],
)
def test_processes_share_the_gpus(eight_gpus, devices, processes, own, monkeypatch) -> None:
    trainer = partial(eight_gpus, devices=devices)
    assert groups(trainer, processes, "auto", monkeypatch) == own


def test_without_a_device_map_the_trainer_is_as_it_was_asked_for(eight_gpus) -> None:
    assert make_trainer(partial(eight_gpus, devices=4), []).device_ids == [0, 1, 2, 3]


def test_the_model_keeps_its_own_precision(eight_gpus) -> None:
    with pytest.raises(UserError, match=r"got bf16-mixed: choose model\.dtype"):
        make_trainer(partial(eight_gpus, devices=1, precision="bf16-mixed"), [])


CPU = partial(
    lightning.Trainer, accelerator="cpu", devices=1, enable_progress_bar=False,
    enable_model_summary=False, enable_checkpointing=False,
)  # fmt: skip


@pytest.mark.parametrize(
    "keywords",
    [{"devices": "many"}, {"devices": 1.5}, {"devices": None}, {"devices": -1}, {"devices": [0, 1]},
     {"devices": 0}, {"accelerator": "tpu"}, {"accelerator": "gpus"}, {"max_epoch": 3},
     {"strategy": "ddpp"}, {"num_nodes": 0}],
)  # fmt: skip
def test_a_trainer_that_cannot_be_made(keywords) -> None:
    with pytest.raises(UserError, match=r"The trainer cannot be used here \(.*\); choose another"):
        make_trainer(partial(CPU, **keywords), [])


def test_processes_that_would_bring_the_machine_down(monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    with pytest.raises(
        UserError, match=r"devices=7 would start .* with 6 CPU cores; use at most 6"
    ):
        make_trainer(partial(CPU, devices=7), [])
    assert make_trainer(partial(CPU, devices=6), []).num_devices == 6
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert make_trainer(partial(CPU, devices=2), []).num_devices == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("callbacks", 3, "has its own"), ("limit_predict_batches", 1, "use limit="),
     ("fast_dev_run", True, "use limit=")],
)  # fmt: skip
def test_keywords_that_would_be_passed_over(name, value, message) -> None:
    with pytest.raises(UserError, match=rf"^trainer\.{name} cannot be set: .*{message}"):
        make_trainer(partial(CPU, **{name: value}), [])


def test_processes_cannot_all_take_the_same_gpu(eight_gpus) -> None:
    with pytest.raises(UserError, match="must be auto or balanced or sequential where 4 processes"):
        make_trainer(partial(eight_gpus, devices=4), [], device_map="cuda:0")


def test_a_family_spreads_its_model_over_these_gpus_only(family, monkeypatch) -> None:
    """The library is told of their memory and of no other device's."""
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    told = {}

    def noted(path, **options):
        told.update(options)
        raise OSError("enough")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (1000 + gpu, 9999))
    monkeypatch.setattr(Model, "from_pretrained", noted)
    for device_map, gpus, memory in [
        ("auto", range(2, 4), {2: 1002, 3: 1003}),
        ("auto", None, None),
        (None, range(2, 4), None),
    ]:
        with pytest.raises(UserError, match="enough"):
            replace(family, device_map=device_map).load(gpus)
        assert (told["device_map"], told["max_memory"]) == (device_map, memory)


def test_a_placed_model_and_several_processes_in_one_configuration(parts, family) -> None:
    """On a CPU each process places the model there itself; answers stay what they were."""
    parts["dataset"] = Shapes(task="grounding", size=5)
    one = outcome(parts, "one")
    parts["model"] = replace(family, device_map="auto")
    assert outcome(parts, "spread", **spawned(parts, 2)) == one


@pytest.mark.parametrize("fails", [False, True])
def test_weights_are_freed_for_the_next_run_of_a_sweep(parts, monkeypatch, fails) -> None:
    load, loaded = type(parts["model"]).load, []

    def noted(self, gpus):
        loaded.append(load(self, gpus))
        return loaded[-1]

    monkeypatch.setattr(type(parts["model"]), "load", noted)
    if fails:
        monkeypatch.setattr(type(parts["model"]), "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(**parts)
    else:
        evaluate(**parts)
    ((model, _),) = loaded
    assert all(weight.is_meta for weight in model.parameters())


def test_peaks_of_all_gpus_of_a_process_add_up(monkeypatch) -> None:
    peaks = {torch.device("cuda", 0): 5, torch.device("cuda", 1): 7}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    assert peak_memory(peaks) == 12
    assert peak_memory([torch.device("cpu")]) > 2**20
