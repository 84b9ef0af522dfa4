"""The contents of `bench.json`: what was measured with and without pruning, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ivcp.results.schema import Finite, GitState, Number, Quartiles, Schema


class Times(Schema):
    """One call of `generate`, of the complete batch; times in milliseconds.

    Attributes:
        vision_ms: Vision tower.
        language_prefill_ms: Decoder layers in prefill, without pruning overhead.
        pruning_overhead_ms: Choosing tokens and compacting states.
        time_to_first_token_ms: From the call to the first token's logits.
        decode_ms_per_token: Each further step, one token a sample; None where there is none.
        total_ms: From the call to its end.
        peak_memory_bytes: At the peak of the CUDA allocator, weights included; None on a CPU.
    """

    vision_ms: Finite
    language_prefill_ms: Finite
    pruning_overhead_ms: Finite
    time_to_first_token_ms: Finite
    decode_ms_per_token: Number
    total_ms: Finite
    peak_memory_bytes: int | None


class Pair(Schema):
    """Two calls on the same inputs, one right after the other.

    Attributes:
        pruned_first: Which one came first.
        unpruned: The model without hooks.
        pruned: The same model inside a session.
    """

    pruned_first: bool
    unpruned: Times
    pruned: Times


class Compared(Schema):
    """A quantity that differs from run to run; `ratio` is pruned over unpruned, pair by pair."""

    unpruned: Quartiles
    pruned: Quartiles
    ratio: Quartiles

    @classmethod
    def of(cls, pairs: Sequence[Pair], name: str) -> Compared:
        """The field `name` of `Times` over all pairs."""
        values = [(getattr(pair.unpruned, name), getattr(pair.pruned, name)) for pair in pairs]
        return cls(
            unpruned=Quartiles.of(unpruned for unpruned, _ in values),
            pruned=Quartiles.of(pruned for _, pruned in values),
            ratio=Quartiles.of(pruned / unpruned for unpruned, pruned in values if unpruned),
        )


class Counted(Schema):
    """A quantity that is the same in every run."""

    unpruned: Finite
    pruned: Finite
    ratio: Number

    @classmethod
    def of(cls, unpruned: float, pruned: float) -> Counted:
        """Both numbers, and pruned over unpruned."""
        ratio = pruned / unpruned if unpruned else None
        return cls(unpruned=unpruned, pruned=pruned, ratio=ratio)


class Counts(Schema):
    """What pruning saves, whatever the machine; tokens of one prompt, the rest of the batch.

    Attributes:
        visual_tokens: Visual tokens; those that survive the last stage.
        layer_average_tokens: Visual tokens that a decoder layer processes, mean over the layers.
        prompt_tokens: All tokens of the prompt; those that the last layer processes.
        kv_cache_bytes: Of the real KV cache, right after prefill.
        prefill_flops_counted: Of the decoder layers, as PyTorch dispatched them.
        prefill_flops_formula: The same by formula.
    """

    visual_tokens: Counted
    layer_average_tokens: Counted
    prompt_tokens: Counted
    kv_cache_bytes: Counted
    prefill_flops_counted: Counted
    prefill_flops_formula: Counted


class BenchInfo(Schema):
    """What was measured, and where.

    Attributes:
        model: Name of the model, as chosen.
        weights: Changes with the weights.
        pruner: Name of the pruner, as chosen.
        variant: Other settings of the pruner, as typed.
        method: The pruner with all its settings.
        ratio: Keep ratio that it prunes to; what was measured where it has none.
        layers: Decoder layers before which tokens are pruned.
        image: Width and height in pixels, before the model's processor.
        question: The text of the prompt.
        batch_size: Copies of the prompt in a call.
        new_tokens: Tokens that every answer has.
        repeats: Pairs that were measured.
        warmup: Pairs that ran before them.
        machine: Operating system and processor.
        threads: Of PyTorch on the CPU.
        device: Name of the GPU, or "cpu".
        dtype: Of the weights.
        attention: Attention implementation.
        versions: Of Python, the main libraries and this package.
        git: State of the package's repository; None outside of one.
        date: When it ended, ISO 8601 with time zone.
        notes: What a reader must know, one sentence each.
    """

    model: str
    weights: str
    pruner: str
    variant: str = ""
    method: str
    ratio: Number
    layers: tuple[int, ...]
    image: tuple[int, int]
    question: str
    batch_size: int
    new_tokens: int
    repeats: int
    warmup: int
    machine: str
    threads: int
    device: str
    dtype: str
    attention: str
    versions: dict[str, str | None] = Field(default={})
    git: GitState | None = None
    date: str
    notes: tuple[str, ...] = ()


class BenchResult(Schema):
    """`bench.json`; the quantities are those of `Times` over all pairs, and `Counts`.

    The ratio of `pruning_overhead_ms` is to the unpruned language prefill of the same pair.
    """

    schema_version: Literal[1] = 1
    vision_ms: Compared
    language_prefill_ms: Compared
    pruning_overhead_ms: Compared
    time_to_first_token_ms: Compared
    decode_ms_per_token: Compared
    total_ms: Compared
    peak_memory_bytes: Compared
    counts: Counts
    pairs: tuple[Pair, ...]
    run: BenchInfo

    @classmethod
    def of(cls, pairs: Sequence[Pair], counts: Counts, run: BenchInfo) -> BenchResult:
        """Medians, quartiles and ratios of the pairs."""
        compared = {name: Compared.of(pairs, name) for name in Times.model_fields}
        shares = [
            pair.pruned.pruning_overhead_ms / pair.unpruned.language_prefill_ms for pair in pairs
        ]
        overhead = Compared(
            unpruned=Quartiles(),
            pruned=compared["pruning_overhead_ms"].pruned,
            ratio=Quartiles.of(shares),
        )
        compared["pruning_overhead_ms"] = overhead
        return cls.model_validate({**compared, "counts": counts, "pairs": tuple(pairs), "run": run})
