"""`bench`: its file, its table, and the mistakes that it refuses."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from test_conf import CONF

import ivcp
from ivcp.bench.measure import bench
from ivcp.bench.pairs import PairedRuns
from ivcp.bench.report import bench_notes
from ivcp.bench.result import BenchResult, Compared, Pair, Times
from ivcp.core.errors import UserError
from ivcp.core.pixels import MAX_PIXELS
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.ivcp import IVCPrune
from ivcp.results.schema import Quartiles


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "model": Qwen25VL(path=None, dtype="float32"),
        "pruner": IVCPrune(keep_ratio=0.5),
        "names": {"model": "tiny", "pruner": "ivcp"},
        "image": (96, 64),
        "folder": tmp_path / "new" / "folder",
        "repeats": 3,
        "warmup": 0,
        "new_tokens": 3,
        "device": "cpu",
    }


def times(**changed: float | None) -> Times:
    return Times(**{**dict.fromkeys(Times.model_fields, 1.0), "peak_memory_bytes": None, **changed})


def test_the_file_holds_the_result_and_the_table_shows_it(arguments, capsys) -> None:
    result = bench(**arguments, batch_size=2, question="Where?")
    text = (arguments["folder"] / "bench.json").read_text()
    assert BenchResult.model_validate_json(text) == result
    run = result.run
    assert (run.model, run.pruner, run.ratio, run.layers) == ("tiny", "ivcp", 0.5, (4,))
    assert (run.image, run.batch_size, run.new_tokens, run.repeats) == ((96, 64), 2, 3, 3)
    assert (run.device, run.dtype, run.attention) == ("cpu", "float32", "sdpa")
    assert run.versions["ivcp"] == ivcp.__version__
    assert len(result.pairs) == 3
    # 38 tokens of a prompt, two copies, 128 numbers a layer and token, 8 layers, 4 bytes each
    assert result.counts.kv_cache_bytes.unpruned == 38 * 2 * 128 * 8 * 4
    screen = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in screen.splitlines() if "│" in line}
    assert "ratio [quartiles]" in screen
    assert [cell.strip() for cell in rows["visual tokens"].split("│")[2:5]] == ["24", "12", "0.500"]
    spread = result.time_to_first_token_ms.ratio
    shown = f"{spread.median:.3f} [{spread.q1:.3f}, {spread.q3:.3f}]"
    assert shown in rows["time to first token"]
    assert f"{result.counts.kv_cache_bytes.ratio:.3f}" in rows["KV cache"]
    assert result.peak_memory_bytes.pruned == Quartiles()
    assert "Peak memory is measured on CUDA only." in screen
    assert str(arguments["folder"] / "bench.json") in screen


def test_ratios_are_taken_pair_by_pair() -> None:
    pairs = [
        Pair(pruned_first=False, unpruned=times(total_ms=a), pruned=times(total_ms=b))
        for a, b in ((1, 2), (10, 5), (4, 1))
    ]
    total = Compared.of(pairs, "total_ms")
    assert (total.unpruned.median, total.pruned.median) == (4, 2)
    assert total.ratio == Quartiles(median=0.5, q1=0.375, q3=1.25)
    assert Compared.of(pairs, "peak_memory_bytes").ratio == Quartiles()


def test_overhead_is_compared_with_the_unpruned_prefill(arguments) -> None:
    result = bench(**arguments)
    shares = [
        pair.pruned.pruning_overhead_ms / pair.unpruned.language_prefill_ms for pair in result.pairs
    ]
    assert result.pruning_overhead_ms.ratio == Quartiles.of(shares)
    assert result.pruning_overhead_ms.unpruned == Quartiles()


def test_the_users_own_image_is_taken(arguments, tmp_path) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "photo.png")
    for image in (str(tmp_path / "photo.png"), tmp_path / "photo.png", Image.new("RGBA", (40, 30))):
        assert bench(**{**arguments, "image": image, "repeats": 1}).run.image == (40, 30)


def test_what_is_not_measured_is_said(arguments) -> None:
    result = bench(**{**arguments, "new_tokens": 1, "repeats": 1})
    assert result.decode_ms_per_token.ratio == Quartiles()
    assert any("Decoding was not measured" in note for note in bench_notes(result))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("repeats", 0, "repeats must be a whole number of at least 1; got 0"),
        ("repeats", True, "repeats must be a whole number"),
        ("warmup", -1, "warmup must be a whole number of at least 0; got -1"),
        ("new_tokens", 0, "new_tokens must be a whole number of at least 1; got 0"),
        ("batch_size", 1.5, "batch_size must be a whole number of at least 1; got 1.5"),
        ("device", "tpu", "device must be one of auto, cpu.*; got 'tpu'"),
        ("device", "cuda:64", "device must be one of auto, cpu.*; got 'cuda:64'"),
        ("image", "absent.png", "path of an image file; got 'absent.png': No such file"),
        ("image", __file__, "Expected an image in the format PNG"),
        ("image", (0, 64), r"image must be a width and a height .*; got \(0, 64\)"),
        ("image", 448, "image must be a width and a height .*; got 448"),
        ("image", (448,), "image must be a width and a height"),
        ("image", (64.0, 64.0), "image must be a width and a height"),
        ("image", (MAX_PIXELS, 2), "of at most 100,000,000 pixels"),
        ("image", (1, 300), "An image cannot be resized for the model: absolute aspect ratio"),
        ("pruner", IVCPrune(keep_ratio=0.5, layer=8), r"layer must lie in 1 \.\. 7 for tiny"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, name, value, message) -> None:
    with pytest.raises(UserError, match=message):
        bench(**{**arguments, name: value})
    assert not (arguments["folder"] / "bench.json").exists()


def test_too_little_memory_is_one_sentence(arguments, monkeypatch) -> None:
    def overflow(self: PairedRuns, pruned: bool) -> Times:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(PairedRuns, "_time", overflow)
    with pytest.raises(UserError, match="batch_size=1 with an image of 96 x 64 pixels does not"):
        bench(**arguments)


def test_the_configuration_has_every_argument() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("bench", overrides=["pruner=fastv", "ratio=0.3"])
    assert config.keys() - {"ratio"} == inspect.signature(bench).parameters.keys() - {
        "names", "folder",
    }  # fmt: skip
    assert instantiate(config.pruner).keep_ratio == 0.3
    for name, parameter in inspect.signature(bench).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            assert config[name] == parameter.default
