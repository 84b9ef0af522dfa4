import pytest

from ivcp.core.budgeted import Budgeted
from ivcp.core.layout import Grid, ImageLayout
from ivcp.evaluation.accounting import budget_of, efficiency_of, failure_notes, tokens_of
from ivcp.pruners.fastv import FastV
from ivcp.pruners.pyramiddrop import PyramidDrop
from ivcp.results.prediction import Prediction
from ivcp.results.schema import Efficiency, Quartiles, Tokens

PREDICTIONS = [
    Prediction(
        index=0, id="a", score=0, prompt_tokens=110, visual_tokens=100, kept_tokens=50,
        layer_tokens=(110, 60), generated_tokens=4, kv_cache_bytes=60, kv_cache_bytes_unpruned=110,
        prefill_flops=10, prefill_flops_counted=11, prefill_flops_unpruned=20, vision_ms=1.0,
    ),
    Prediction(
        index=1, id="b", score=0, prompt_tokens=320, visual_tokens=300, kept_tokens=30,
        layer_tokens=(320, 50), generated_tokens=8, kv_cache_bytes=50, kv_cache_bytes_unpruned=330,
        prefill_flops=30, prefill_flops_unpruned=60, vision_ms=3.0, decode_ms_per_token=5.0,
    ),
]  # fmt: skip
PROCESSES = [
    {
        "seconds": 2.0, "generating_seconds": 1.0, "peak_memory_bytes": 7, "generated_tokens": 4,
        "samples": 1, "halvings": 1,
    },
    {
        "seconds": 4.0, "generating_seconds": 3.0, "peak_memory_bytes": 9, "generated_tokens": 8,
        "samples": 1, "halvings": 2,
    },
]  # fmt: skip


def test_tokens() -> None:
    assert tokens_of(PREDICTIONS) == Tokens(
        visual=200,
        kept=40,
        keep_ratio=80 / 400,
        layer_average_ratio=(100 + 50 + 300 + 30) / 800,
        prompt=215,
    )


def test_a_first_pass_counts_in_the_layer_average() -> None:
    twice = Prediction(
        index=0, id="a", score=0, prompt_tokens=110, visual_tokens=100, kept_tokens=50,
        layer_tokens=(60, 60), first_pass_tokens=(110,),
    )  # fmt: skip
    assert tokens_of([twice]).layer_average_ratio == (50 + 50 + 100) / 200


def test_efficiency() -> None:
    block = efficiency_of(PREDICTIONS, PROCESSES)
    assert block.kv_cache_bytes == 55
    assert block.kv_cache_ratio == pytest.approx(110 / 440)
    assert block.prefill_flops_counted == 11
    assert block.prefill_flops_counted_to_formula == pytest.approx(1.1)
    assert block.prefill_flops_formula == 20
    assert block.prefill_flops_ratio == 0.5
    assert block.vision_ms == Quartiles(median=2.0, q1=1.5, q3=2.5)
    assert block.decode_ms_per_token == Quartiles(median=5.0, q1=5.0, q3=5.0)
    assert block.pruning_overhead_ms == Quartiles()
    assert block.tokens_per_second == 12 / 3
    assert block.samples_per_second == 2 / 4
    assert block.peak_memory_bytes == 9
    assert (block.halved_batches, block.seconds_by_process) == (3, (2.0, 4.0))


def test_a_run_without_answers_has_no_numbers() -> None:
    assert tokens_of([]) == Tokens()
    assert efficiency_of([], PROCESSES).kv_cache_ratio is None


def test_the_most_common_reason_of_failures_is_a_note() -> None:
    reasons = [None, "OSError: gone", "NaN", "OSError: gone"]
    failures = [
        Prediction(index=number, id="f", score=0, failed=reason)
        for number, reason in enumerate(reasons)
    ]
    assert failure_notes(failures) == ["2 of 4 samples failed with: OSError: gone."]
    assert failure_notes(failures[:1]) == []


def test_prompts_without_images_have_no_ratio() -> None:
    text = Prediction(index=0, id="t", score=0, prompt_tokens=9, layer_tokens=(9, 9))
    assert tokens_of([text]).keep_ratio is None


@pytest.mark.parametrize(
    ("pruner", "asked", "obtained"),
    [
        (FastV(keep_ratio=0.5), "50 %", 0.25),
        (PyramidDrop(ratios=(0.5, 0.25, 0.2)), "own settings", 0.25),
        (Budgeted(method=FastV(), tokens=50), "50 tokens", 50),
        (Budgeted(method=FastV(), tokens=50, solved=False), "50 tokens, own settings", 50),
        (
            Budgeted(method=FastV(), tokens=90, count="layer_average"),
            "90 tokens, layer average",
            90,
        ),
        (Budgeted(method=FastV(), keep_ratio=0.4, count="flops"), "40 %, FLOPs", 0.41),
        (Budgeted(method=FastV(), tokens=90, count="flops"), "90 tokens, FLOPs", 0.41),
        (Budgeted(method=FastV(), tokens=20, budget_over="frame"), "20 tokens, per frame", 20),
        (Budgeted(method=FastV(), tokens=100, budget_over="sample"), "100 tokens, per sample", 100),
        (Budgeted(method=FastV(), budget_over="frame"), "50 %, per frame", 0.25),
    ],
)
def test_what_was_asked_for_and_what_came_out(pruner, asked: str, obtained: float) -> None:
    """An image of 200 tokens and a video of 4 frames of 50 tokens a sample."""
    image = ImageLayout((Grid(0, 10, 20),))
    video = ImageLayout(tuple(Grid(200 + 50 * n, 5, 10, "frame") for n in range(4)))
    samples = [
        Prediction(index=n, id="s", score=0, visual_tokens=400, images=(image, video))
        for n in range(3)
    ]
    tokens = Tokens(visual=400, keep_ratio=0.25, layer_average_ratio=0.45)
    budget = budget_of(pruner, tokens, Efficiency(prefill_flops_ratio=0.41), samples)
    assert (budget.asked, budget.obtained) == (asked, pytest.approx(obtained))
    assert budget.unit == ("" if budget.tokens and budget.count != "flops" else "%")
