"""What a benchmark says in words, what hardware allows, and the plot."""

from __future__ import annotations

import pytest
from torch import nn

from ivcp.bench.limits import decode_limit, step_bytes
from ivcp.bench.result import Compared, Counted, Counts, Group, Measured, MethodInfo
from ivcp.bench.verdict import verdict, verdicts
from ivcp.results.schema import Quartiles
from ivcp.testing import model_of


def row(pruner: str = "ivcp", prefill: float = 0.8, decode: float = 0.5, **changed) -> Measured:
    def near(ratio: float) -> Compared:
        return Compared(ratio=Quartiles(median=ratio, q1=ratio - 0.01, q3=ratio + 0.01))

    flops, cache = Counted.of(100, 75), Counted.of(100, 50)
    counts = dict.fromkeys(Counts.model_fields, cache) | {"prefill_flops_formula": flops}
    values = {
        "info": MethodInfo(pruner=pruner, ratio=0.5), "counts": Counts(**counts),
        "decode_bytes_ratio": 0.4, "prefill_ms": near(prefill), "decode_ms_per_token": near(decode),
        "pruning_overhead_ms": near(0.011), **changed,
    }  # fmt: skip
    measured = Measured(**values)
    return measured.model_copy(update={"verdict": verdict(measured)})


def group(*rows: Measured, model: str = "tiny") -> Group:
    plain = Measured(info=MethodInfo(pruner="unpruned"))
    return Group(
        model=model, weights="", dtype="float32", attention="sdpa", image=(1, 1), visual_tokens=4,
        prompt_tokens=5, batch_size=1, methods=(plain, *rows), date="",
    )  # fmt: skip


def test_gains_stand_beside_what_is_possible() -> None:
    assert row().verdict == (
        "prefill 1.25 x faster; FLOPs allow 1.33 x; decoding 2.00 x faster; bytes allow 2.50 x; "
        "KV cache 50.0 %; overhead 1.1 % of the unpruned prefill"
    )
    assert "prefill 1.20 x slower" in row(prefill=1.2).verdict
    assert "decoding as fast as unpruned" in row(decode=1.005).verdict
    assert "decoding" not in row(decode_ms_per_token=Compared()).verdict
    assert row(status="out of memory").verdict == "out of memory"


def test_a_method_has_one_sentence_over_all_groups() -> None:
    slow = row(prefill=1.25, decode=1.1)
    lost = row(status="out of memory")
    (text,) = verdicts([group(row()), group(slow), group(lost)])
    assert text == (
        "ivcp 0.5: prefill 0.80 to 1.25 x as fast as unpruned, where FLOPs allow 1.33 x; decoding "
        "0.91 to 2.00 x, where bytes allow 2.50 x, slower than unpruned in 1 of 2; overhead 1.10 % "
        "of the unpruned prefill; 1 of 3 not measured (out of memory)."
    )
    names = verdicts([group(row(), row("fastv")), group(row(), model="big")])
    assert [name.split(":")[0] for name in names] == [
        "tiny, ivcp 0.5", "tiny, fastv 0.5", "big, ivcp 0.5",
    ]  # fmt: skip


def test_a_step_reads_weights_and_cache() -> None:
    model = model_of("qwen25vl")
    decoder, head = model.model.language_model, model.get_output_embeddings()
    # attention 64 x (64 + 2 x 32 + 64) with biases, MLP 3 x 64 x 96, two norms; 6 layers
    layer = 64 * 192 + (64 + 32 + 32) + 3 * 64 * 96 + 2 * 64
    assert step_bytes(decoder, head, 1) == 4 * (6 * layer + 96 * 64)
    assert step_bytes(decoder, None, 8) == 4 * 6 * layer
    assert decode_limit(60, 40, 20) == 0.8


@pytest.mark.parametrize(("batch", "read"), [(1, 2), (2, 4), (8, 4)])
def test_experts_are_read_as_far_as_samples_go_to_them(batch, read) -> None:
    decoder = model_of("deepseekvl2").model.language_model  # 2 of 4 experts for a token
    experts = [w for w in decoder.layers.parameters() if w.ndim == 3]
    others = [w for w in decoder.layers.parameters() if w.ndim != 3]
    expected = sum(w.nbytes for w in others) + sum(w.nbytes for w in experts) * read / 4
    assert experts
    assert step_bytes(decoder, nn.Identity(), batch) == expected
