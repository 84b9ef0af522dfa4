"""The contents of `bench.json`: what was measured with and without pruning, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import Field

from ivcp.results.schema import Finite, GitState, Number, Quartiles, Schema


class Times(Schema):
    """One call of `generate`, of the complete batch; times in milliseconds.

    Attributes:
        turn: How many other calls came before it in its repeat.
        vision_ms: Vision tower.
        prefill_ms: Decoder layers in prefill, pruning overhead included.
        pruning_overhead_ms: Choosing tokens and compacting states.
        time_to_first_token_ms: From the call to the first token's logits.
        decode_ms_per_token: Each further step, one token a sample; None where there is none.
        total_ms: From the call to its end.
        peak_memory_bytes: At the peak of the CUDA allocator, weights included; None on a CPU.
    """

    turn: int = 0
    vision_ms: Finite
    prefill_ms: Finite
    pruning_overhead_ms: Finite
    time_to_first_token_ms: Finite
    decode_ms_per_token: Number
    total_ms: Finite
    peak_memory_bytes: int | None


QUANTITIES = tuple(name for name in Times.model_fields if name != "turn")


class Compared(Schema):
    """A quantity that differs from run to run.

    Attributes:
        value: Of the method.
        ratio: The method's over that of the unpruned model in the same repeat; of the pruning
            overhead, over the unpruned prefill.
    """

    value: Quartiles = Quartiles()
    ratio: Quartiles = Quartiles()


class Counted(Schema):
    """A quantity that is the same in every run."""

    unpruned: Number
    pruned: Number
    ratio: Number

    @classmethod
    def of(cls, unpruned: float | None, pruned: float | None) -> Counted:
        """Both numbers, and pruned over unpruned."""
        ratio = pruned / unpruned if unpruned and pruned is not None else None
        return cls(unpruned=unpruned, pruned=pruned, ratio=ratio)


class Counts(Schema):
    """What pruning saves, whatever the machine; tokens of one prompt, the rest of the batch.

    Attributes:
        visual_tokens: Visual tokens; those that survive the last stage.
        layer_average_tokens: Visual tokens that a decoder layer processes, mean over the layers.
        prompt_tokens: All tokens of the prompt; those that the last layer processes.
        kv_cache_bytes: Of the real KV cache, right after prefill.
        prefill_flops_counted: Of the decoder layers, as PyTorch dispatched them.
        prefill_flops_formula: The same by formula; its ratio is the limit of the prefill's.
    """

    visual_tokens: Counted
    layer_average_tokens: Counted
    prompt_tokens: Counted
    kv_cache_bytes: Counted
    prefill_flops_counted: Counted
    prefill_flops_formula: Counted


class MethodInfo(Schema):
    """What a row is about; the unpruned model is "unpruned".

    Attributes:
        pruner: Name of the pruner, as chosen.
        variant: Other settings of the pruner, as typed.
        method: The pruner with all its settings.
        ratio: Keep ratio that it prunes to; None if it has none, or prunes nothing.
        layers: Decoder layers before which tokens are pruned.
    """

    pruner: str
    variant: str = ""
    method: str = ""
    ratio: Number = None
    layers: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Name, settings and ratio.

        >>> MethodInfo(pruner="fastv", variant="layer=3", ratio=0.5).label
        'fastv layer=3 0.5'
        """
        ratio = "" if self.ratio is None else f"{self.ratio:g}"
        return " ".join(filter(None, (self.pruner, self.variant, ratio)))


class Measured(Schema):
    """One method in one group.

    Attributes:
        info: The method.
        status: "ok", "out of memory", or why the method cannot serve this prompt.
        counts: What it saves; None for the unpruned model, and without memory.
        decode_bytes_ratio: Bytes that a decoding step reads, over those unpruned: weights and the
            cache right after prefill. It is the limit of the decoding time's ratio.
        synchronisations: Host-device synchronisations inside the decoder layers in prefill.
        samples_per_second: Of the batch, from the call to its end.
        tokens_per_second: New tokens likewise.
        verdict: In words what was gained, and what could have been.
        runs: Every call that was measured.
    """

    info: MethodInfo
    status: str = "ok"
    counts: Counts | None = None
    decode_bytes_ratio: Number = None
    synchronisations: int | None = None
    vision_ms: Compared = Compared()
    prefill_ms: Compared = Compared()
    pruning_overhead_ms: Compared = Compared()
    time_to_first_token_ms: Compared = Compared()
    decode_ms_per_token: Compared = Compared()
    total_ms: Compared = Compared()
    peak_memory_bytes: Compared = Compared()
    samples_per_second: Compared = Compared()
    tokens_per_second: Compared = Compared()
    verdict: str = ""
    runs: tuple[Times, ...] = ()

    @property
    def flops_ratio(self) -> float | None:
        """Prefill FLOPs over those unpruned, by formula."""
        return None if self.counts is None else self.counts.prefill_flops_formula.ratio


def compared(
    times: Sequence[Times], plain: Sequence[Times | None], batch_size: int, new_tokens: int
) -> dict[str, Compared]:
    """The compared quantities of `Measured`.

    Args:
        times: Of a method, repeat by repeat.
        plain: Of the unpruned model in the same repeats; None where it failed.
        batch_size: Samples in a call.
        new_tokens: Tokens of an answer.
    """
    pairs = list(zip(times, plain, strict=True))

    def over(value: Callable[[Times], float | None], base: str | None = None) -> Compared:
        def ratio(run: Times, unpruned: Times | None) -> float | None:
            if unpruned is None:
                return None
            numerator = value(run)
            denominator = getattr(unpruned, base) if base else value(unpruned)
            return numerator / denominator if numerator is not None and denominator else None

        return Compared(
            value=Quartiles.of(value(run) for run in times),
            ratio=Quartiles.of(ratio(run, unpruned) for run, unpruned in pairs),
        )

    rows = {name: over(lambda run, name=name: getattr(run, name)) for name in QUANTITIES}  # type: ignore[misc]
    rows["pruning_overhead_ms"] = over(lambda run: run.pruning_overhead_ms, "prefill_ms")
    rows["samples_per_second"] = over(lambda run: 1000 * batch_size / run.total_ms)
    rows["tokens_per_second"] = over(lambda run: 1000 * batch_size * new_tokens / run.total_ms)
    return rows


class Group(Schema):
    """All methods on one prompt of one model, in one batch size.

    Attributes:
        model: Name of the model, as chosen.
        weights: Changes with the weights.
        dtype: Of the weights.
        attention: Attention implementation.
        image: Width and height in pixels, before the model's processor.
        wanted_tokens: Visual tokens of a prompt that were asked for, if any; a model may give the
            same image for several numbers.
        visual_tokens: Those that a prompt has.
        prompt_tokens: All tokens of a prompt.
        batch_size: Copies of the prompt in a call.
        methods: The unpruned model, then the methods.
        warning: What makes the comparison unfair; empty if nothing is known to.
        date: When it ended, ISO 8601 with time zone.
    """

    model: str
    weights: str
    dtype: str
    attention: str
    image: tuple[int, int]
    wanted_tokens: tuple[int, ...] = ()
    visual_tokens: int
    prompt_tokens: int
    batch_size: int
    methods: tuple[Measured, ...]
    warning: str = ""
    date: str

    @property
    def title(self) -> str:
        """Model, prompt and batch in a few words."""
        return f"{self.model}, {self.visual_tokens:,} visual tokens, batch {self.batch_size}"


class BenchInfo(Schema):
    """How everything was measured, and where.

    Attributes:
        command: What was typed; empty if it was called from Python.
        question: The text of the prompt.
        new_tokens: Tokens that every answer has.
        repeats: Repeats that were measured.
        warmup: Repeats that ran before them.
        machine: Operating system and processor.
        threads: Of PyTorch on the CPU.
        device: Name of the GPU, or "cpu".
        versions: Of Python, the main libraries and this package.
        git: State of the package's repository; None outside of one.
        notes: What a reader must know, one sentence each.
    """

    command: str = ""
    question: str
    new_tokens: int
    repeats: int
    warmup: int
    machine: str
    threads: int
    device: str
    versions: dict[str, str | None] = Field(default={})
    git: GitState | None = None
    notes: tuple[str, ...] = ()


class BenchResult(Schema):
    """`bench.json`."""

    schema_version: Literal[2] = 2
    verdicts: tuple[str, ...] = ()
    run: BenchInfo
    groups: tuple[Group, ...] = ()

    @property
    def rows(self) -> Iterable[tuple[Group, Measured]]:
        """Each method of each group."""
        return [(group, row) for group in self.groups for row in group.methods]
