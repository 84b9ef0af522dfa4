"""One line of `predictions.jsonl`: a question, its answer, and what answering it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.metric import ScoredAnswer
from ivcp.core.printable import whole
from ivcp.core.types import Answer, Sample, Task
from ivcp.results.schema import Amount, Finite, Fraction, Schema

TIMES = (
    "vision_ms", "language_prefill_ms", "pruning_overhead_ms", "time_to_first_token_ms",
    "decode_ms_per_token",
)  # fmt: skip
"""Fields of `Prediction` in milliseconds: the batch's time divided by its size."""

QUESTION = ("id", "task", "question", "answer", "options", "hint", "benchmark")
"""Fields that `Prediction` and `Sample` share, beside labels."""

LONGEST = 16_000_000
"""Most bytes of a line; more is no prediction of ours."""


def _printable(value: Any) -> Any:
    """`whole` of all texts in a value."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list | tuple):
        return tuple(map(_printable, value))
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value


def _writable(value: Any, info: ValidationInfo) -> Any:
    """`_printable` of what did not come from a file, which cannot hold anything else."""
    if info.mode == "json":  # a list would be tried as numbers before it is tried as texts
        return tuple(value) if isinstance(value, list) else value
    return _printable(value)


Text = Annotated[str, BeforeValidator(_writable)]
Answered = Annotated[Answer | None, BeforeValidator(_writable)]


class Prediction(Schema):
    """One line of `predictions.jsonl`.

    Attributes:
        index: Index into the dataset.
        id: The sample's id; `index-<n>` if not even that could be read.
        task: What was asked for; None if that could not be read.
        question: The referring expression or bare question.
        options: Texts of the options A, B, C, ...
        hint: What the question tells beforehand.
        benchmark: Published name of the dataset.
        labels: What results are broken down by.
        prompt: The prompt's text, each image one placeholder.
        answer: Ground truth; None if it could not be read.
        prediction: The model's text.
        parsed: What the metric read from it; a box is in pixels of the original image.
        score: How right it is, in [0, 1].
        judge_reply: What a judging model replied about it; None if none was asked.
        by_rule: Parsed and score as the metric's rule has them, where a judge's stand above.
        failed: Why the sample could not be evaluated, or None.
        image_size: Width and height in pixels of the last original image.
        prompt_tokens: `S`, padding not counted; with images of their original sizes.
        visual_tokens: `V`, over all images of the prompt; likewise.
        kept_tokens: `K`, after the last stage.
        generated_tokens: Tokens of the answer, the closing one included.
        resized: Whether the pruner resized images; `images` and `kept` then tell of the tokens of
            the resized ones.
        images: The visual tokens of each image, areas in fractions of the original image.
        kept: (K,) ascending indices into the prompt; empty where a server does not tell.
        reasons: Why tokens were kept: for each word, indices into the prompt.
        kept_in_box: Behind each stage, which part of the visual tokens inside the true box remains;
            one value, 1, without stages; empty where there is no true box, where the image was
            resized, and where a server does not tell.
        coverage: Behind each stage, the largest distance from a visual token to the nearest
            remaining one, in diagonals of its image; likewise, 0 without stages.
        layer_tokens: (L,) tokens that each decoder layer processed in prefill.
        first_pass_tokens: Tokens that each of the first layers processed before, to choose tokens;
            empty for methods without a first pass.
        kv_cache_bytes: Bytes really allocated after prefill: the batch's, divided by its size; of
            a server by formula, without padding.
        kv_cache_bytes_unpruned: The same for the same batch without pruning.
        prefill_flops: By formula, language model only; a first pass is part of it.
        prefill_flops_counted: As PyTorch dispatched them; of one sample of a run, else None.
        prefill_flops_unpruned: The same without pruning.
        vision_ms: Vision tower; Qwen's holds its projector, others' stands beside it.
        language_prefill_ms: Decoder layers in prefill, a first pass included, without pruning
            overhead.
        pruning_overhead_ms: Choosing tokens and compacting states, without a first pass.
        time_to_first_token_ms: From the call to the first token's logits; of a server the prompt's
            own, from when it is taken up among others.
        decode_ms_per_token: Each further token; None if there is none.
    """

    index: Amount
    id: Text
    task: Task | None = None
    question: Text = ""
    options: tuple[Text, ...] = ()
    hint: Text = ""
    benchmark: Text = ""
    labels: Annotated[dict[str, str], BeforeValidator(_writable)] = Field(default={})
    prompt: Text = ""
    answer: Answered = None
    prediction: Text = ""
    parsed: Answered = None
    score: Annotated[float, Field(ge=0, le=1)]
    judge_reply: Text | None = None
    by_rule: tuple[Answered, Finite] | None = None
    failed: Text | None = None
    image_size: tuple[int, int] | None = None
    prompt_tokens: Amount = 0
    visual_tokens: Amount = 0
    kept_tokens: Amount = 0
    generated_tokens: Amount = 0
    resized: bool = False
    images: tuple[ImageLayout, ...] = ()
    kept: tuple[Amount, ...] = ()
    reasons: dict[str, tuple[Amount, ...]] = Field(default={})
    kept_in_box: tuple[Fraction, ...] = ()
    coverage: tuple[Fraction, ...] = ()
    layer_tokens: tuple[Amount, ...] = ()
    first_pass_tokens: tuple[Amount, ...] = ()
    kv_cache_bytes: Finite = 0.0
    kv_cache_bytes_unpruned: Finite = 0.0
    prefill_flops: int = 0
    prefill_flops_counted: int | None = None
    prefill_flops_unpruned: int = 0
    vision_ms: Finite | None = None
    language_prefill_ms: Finite | None = None
    pruning_overhead_ms: Finite | None = None
    time_to_first_token_ms: Finite | None = None
    decode_ms_per_token: Finite | None = None

    @model_validator(mode="after")
    def _layouts_agree(self) -> Prediction:
        """Refuse layouts that no prompt of so many tokens has, before anything is drawn of them."""
        expected = self.kept_tokens if self.resized else self.visual_tokens
        if self.images and sum(image.length for image in self.images) != expected:
            raise ValueError("the images' layouts must hold the visual tokens")
        return self

    @classmethod
    def of(cls, index: int, sample: Sample, **results: Any) -> Prediction:
        """The prediction for a sample."""
        question = {name: getattr(sample, name) for name in QUESTION}
        return cls(index=index, **question, labels=dict(sample.labels), **results)

    def sample(self) -> Sample:
        """The sample without its images.

        Raises:
            ValueError: It could not be read.
        """
        if self.task is None or self.answer is None:
            raise ValueError(f"Expected the prediction of a readable sample, but got {self.id}.")
        question = {name: getattr(self, name) for name in QUESTION}
        return Sample(images=(), labels=self.labels, **question)

    def scored(self) -> ScoredAnswer:
        """What counts for the metric."""
        return ScoredAnswer(self.parsed, self.answer, self.score, self.labels)

    def with_rule_score(self) -> Prediction:
        """The prediction as it was before a judge scored it."""
        parsed, score = self.by_rule or (self.parsed, self.score)
        changes = {"parsed": parsed, "score": score, "judge_reply": None, "by_rule": None}
        return self.model_copy(update=changes)

    def line(self) -> str:
        """One line of JSON."""
        return self.model_dump_json() + "\n"


def read_predictions(path: Path) -> Iterator[Prediction | bytes]:
    """The predictions of a file, line by line; a line that is none as it stands there.

    A last line without its end is what a kill, a full disk or a loss of power leaves.

    Raises:
        UserError: The file is missing, is no regular file, or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing or is no file.")
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST):
                yield _prediction(line)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _prediction(line: bytes) -> Prediction | bytes:
    if not line.endswith(b"\n"):
        return line
    try:
        return Prediction.model_validate_json(line)
    except ValidationError:
        return line
