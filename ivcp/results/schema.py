"""The contents of `metrics.json`: what a finished run measured, and what it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ivcp.core.budget import Count, Over, in_words

Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Number = Finite | None
"""None where a value is undefined, e.g. the mean of no samples."""
Amount = Annotated[int, Field(ge=0, le=10**18)]
"""What is counted; a bound keeps every reader's arithmetic in range."""
Name = Annotated[str, Field(max_length=10_000)]
Unit = Literal["%", ""]
"""Of a value: "%" for a fraction, "" for points."""


class Schema(BaseModel):
    """Base of all that is written: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Quartiles(Schema):
    """Median and quartiles of a measurement over samples or repeats."""

    median: Number = None
    q1: Number = None
    q3: Number = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Quartiles:
        """Median and quartiles of the values that are not None.

        >>> Quartiles.of([1.0, None, 3.0])
        Quartiles(median=2.0, q1=1.5, q3=2.5)
        """
        numbers = [value for value in values if value is not None]
        if not numbers:
            return cls()
        low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75)).tolist()
        return cls(median=middle, q1=low, q3=high)


class Tokens(Schema):
    """Tokens, over all answered samples.

    Attributes:
        visual: Visual tokens of a sample, mean.
        kept: Those that survive the last stage, mean.
        keep_ratio: Visual tokens that survive the last stage, over all.
        layer_average_ratio: Visual tokens that a decoder layer processed on average, over all.
        prompt: Tokens of a prompt, mean.
        kept_in_box: Visual tokens inside the true box that remain behind each stage, over those
            there, mean; empty without true boxes.
        coverage: The largest distance from a visual token to the nearest remaining one behind each
            stage, in diagonals of its image, mean.
    """

    visual: Number = None
    kept: Number = None
    keep_ratio: Number = None
    layer_average_ratio: Number = None
    prompt: Number = None
    kept_in_box: tuple[Finite, ...] = ()
    coverage: tuple[Finite, ...] = ()


class Efficiency(Schema):
    """Memory, operations and times of the answered samples; times of a sample in milliseconds.

    Attributes:
        kv_cache_bytes: Bytes of the KV cache after prefill, mean per sample.
        kv_cache_ratio: The same over those of the unpruned prompts.
        prefill_flops_counted: Of one sample's prefill, as PyTorch dispatched them.
        prefill_flops_counted_sample: Id of that sample.
        prefill_flops_counted_to_formula: Counted over the formula's, for that sample.
        prefill_flops_formula: Of the language model's prefill by formula, mean per sample.
        prefill_flops_ratio: The same over those of the unpruned prompts.
        vision_ms: Vision tower.
        language_prefill_ms: Decoder layers in prefill, a first pass included, without pruning
            overhead.
        pruning_overhead_ms: Choosing tokens and compacting states, without a first pass.
        time_to_first_token_ms: From the call to the first token's logits.
        decode_ms_per_token: Each further token.
        tokens_per_second: Inside `generate`, added up over processes.
        samples_per_second: All of the time but the warm-up, likewise.
        seconds_by_process: How long each process predicted.
        halved_batches: How often memory ran out.
        peak_memory_bytes: Of the process that needed most.
    """

    kv_cache_bytes: Number = None
    kv_cache_ratio: Number = None
    prefill_flops_counted: Number = None
    prefill_flops_counted_sample: str | None = None
    prefill_flops_counted_to_formula: Number = None
    prefill_flops_formula: Number = None
    prefill_flops_ratio: Number = None
    vision_ms: Quartiles = Quartiles()
    language_prefill_ms: Quartiles = Quartiles()
    pruning_overhead_ms: Quartiles = Quartiles()
    time_to_first_token_ms: Quartiles = Quartiles()
    decode_ms_per_token: Quartiles = Quartiles()
    tokens_per_second: Number = None
    samples_per_second: Number = None
    seconds_by_process: tuple[Finite, ...] = ()
    halved_batches: Amount = 0
    peak_memory_bytes: Number = None


class MetricInfo(Schema):
    """The primary metric of a dataset.

    Attributes:
        name: Its key in `metrics`; of a task of a group, behind the task's name and a slash.
        unit: Of its value.
        metric: Dotted path of the class that scored; empty for a group, whose tasks have theirs.
    """

    name: Name
    unit: Unit = "%"
    metric: Name = ""


class PrimaryMetric(MetricInfo):
    """The value that stands for a run."""

    value: Number = None


class Judging(Schema):
    """What a judging model had to do with the scores.

    Attributes:
        by: "model" if it scored any answer, else "rule".
        reason: Why rules scored where a model should have; None if they did not.
        wanted: Answers that the metric would have judged.
        judged: Those that were.
        unreadable: Those without a reply, or without a score in it.
        account: The judge's own: calls, tokens, cost.
    """

    by: Literal["rule", "model"] = "rule"
    reason: str | None = None
    wanted: Amount = 0
    judged: Amount = 0
    unreadable: Amount = 0
    account: dict[str, Any] = Field(default={})


class BudgetInfo(Schema):
    """How many visual tokens a run was to keep, and how many it did keep.

    Attributes:
        count: What is counted: "final", "layer_average" or "flops".
        over: What the budget holds for: each "video" or image, each "frame", or all of a "sample".
        ratio: What was asked for, as a fraction; None if tokens were.
        tokens: What was asked for, as visual tokens of one of these; None if a fraction was.
        solved: Whether the method's keep ratio was solved for; if not, its own settings stand.
        obtained: What came out, in the unit of what was asked for; for FLOPs always a fraction.
    """

    count: Count = "final"
    over: Over = "video"
    ratio: Number = None
    tokens: Amount | None = None
    solved: bool = True
    obtained: Number = None

    @property
    def asked(self) -> str:
        """What was asked for, in words.

        >>> BudgetInfo(tokens=192, count="layer_average").asked, BudgetInfo(ratio=0.333).asked
        ('192 tokens, layer average', '33.3 %')
        """
        words = in_words(self.ratio, self.tokens, self.count, self.over)
        return words if self.solved else ", ".join(filter(None, (words, "own settings")))

    @property
    def unit(self) -> Unit:
        """Of what came out."""
        return "%" if self.tokens is None or self.count == "flops" else ""


class Rotary(Schema):
    """Rotary position embeddings of the decoder: inverse frequencies, and axes of positions."""

    inverse_frequencies: tuple[Finite, ...]
    axes: Amount


class GitState(Schema):
    """Commit of the package's repository, and whether tracked files differ from it."""

    commit: str
    dirty: bool


class RunInfo(Schema):
    """What a run was.

    Attributes:
        schema_version: Of this file.
        model: Name of the model, as chosen.
        pruner: Name of the pruner, as chosen.
        dataset: Name of the dataset, as chosen.
        variant: Other settings of the pruner, as typed.
        overrides: Everything that was typed, one override each; empty where nothing was.
        ratio: Ratio that was asked for; visual tokens that remained, over all, where none was.
        budget: What was asked for, and what came out; None for an unpruned run.
        layers: Decoder layers before which tokens are pruned.
        first_pass: Decoder layers that run once more, before the first of them, to choose tokens.
        unpruned: Whether the pruner prunes nowhere, so that the run is a baseline.
        config: The whole resolved configuration.
        versions: Of Python, the main libraries and this package.
        git: State of the package's repository; None outside of one.
        device: Name of the GPU, or "cpu".
        dtype: Of the weights.
        attention: Attention implementation.
        rotary: Of the decoder; None where it does not tell.
        processes: Number of processes that evaluated.
        seconds: How long the run took.
        batch_size: Samples a batch, or "auto".
        samples: Number of scored samples.
        failed_samples: Those that could not be run, and count as wrong.
        date: When the run ended, ISO 8601 with time zone.
        primary_metric: The value that stands for the run.
        points: Names of metrics that are points, not fractions.
        tasks: Primary metric of each task of a group, by the task's name.
        notes: What a reader must know, one sentence each.
        judge: What a judging model had to do with it.
    """

    schema_version: Literal[1] = 1
    model: Name
    pruner: Name
    dataset: Name
    variant: Name = ""
    overrides: tuple[Name, ...] = ()
    ratio: Number
    budget: BudgetInfo | None = None
    layers: tuple[Amount, ...]
    first_pass: Amount = 0
    unpruned: bool
    config: dict[str, Any]
    versions: dict[str, str | None] = Field(default={})
    git: GitState | None = None
    device: str = ""
    dtype: str = ""
    attention: str = ""
    rotary: Rotary | None = None
    processes: Amount = 1
    seconds: Number = None
    batch_size: Amount | Literal["auto"] = 1
    samples: Amount
    failed_samples: Amount = 0
    date: str = ""
    primary_metric: PrimaryMetric
    points: tuple[str, ...] = ()
    tasks: dict[Name, MetricInfo] = Field(default={})
    notes: tuple[str, ...] = ()
    judge: Judging = Judging()

    @property
    def layer_names(self) -> str:
        """The layers before which tokens are pruned, as "2+6", or "0 after 2" with a first pass."""
        layers = "+".join(map(str, self.layers))
        return f"{layers} after {self.first_pass}" if self.first_pass else layers


class Results(Schema):
    """A finished run: `metrics.json`."""

    metrics: dict[str, Number]
    efficiency: Efficiency = Efficiency()
    tokens: Tokens = Tokens()
    run: RunInfo

    def text(self) -> str:
        """The file's contents."""
        return self.model_dump_json(indent=2)
