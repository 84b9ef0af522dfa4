"""An instrument: a small model with its tokenizer and processor, read by a family of `ivcp`."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from ivcp.core.types import Sample
from ivcp.datasets.scenes import SHAPES, SIDE, make_scene
from ivcp.datasets.shapes import TASKS, draw_question
from ivcp.models.hub import HubFamily
from ivcp.models.processor import Processor

CELL = 16
"""Pixels of a visual token."""
GRID = SIDE // CELL
VISUAL = GRID * GRID
WORDS = (r"\n", r" ?[A-Za-z_]+", r"[^\sA-Za-z0-9]+", r"\s")
"""What is a token beside the pieces of an instrument."""


@dataclass(frozen=True, kw_only=True)
class Instrument(ABC):
    """What the recipe asks of a small model.

    Attributes:
        layers: Layers of the language model.
        hidden: Its width.
        vision_layers: Layers of the vision tower.
        vision_hidden: Its width.
        sigma: Width of the soft target of a coordinate, in steps of the answer's numbers.
    """

    layers: int
    hidden: int
    vision_layers: int
    vision_hidden: int
    sigma: float

    family: ClassVar[HubFamily]
    special: ClassVar[tuple[str, ...]]
    """Special tokens, of which the first pads."""
    end: ClassVar[str]
    """The special token that closes an answer."""
    bos: ClassVar[str | None] = None
    pieces: ClassVar[tuple[str, ...]]
    """Patterns that are one token each, since sequences must be short to train on two cores."""
    coordinates: ClassVar[tuple[str, ...]]
    """Every number that an answer can hold, in order; one token each."""
    template: ClassVar[str | None] = None

    @abstractmethod
    def image_processor(self) -> Any:
        """An untrained image processor, which makes `GRID` x `GRID` visual tokens of a scene."""

    @abstractmethod
    def model(self) -> Any:
        """The untrained model."""

    @abstractmethod
    def box_text(self, box: tuple[int, ...], label: str) -> str:
        """A box in pixels of a scene, as the model answers it."""

    @abstractmethod
    def image_positions(self, start: int) -> tuple[np.ndarray, int]:
        """(A, V) rotary positions on each axis of an image at `start`, and the one behind it."""

    def corpus(self) -> Iterator[str]:
        """Texts beside those of scenes that the tokenizer must cover."""
        yield from itertools.chain.from_iterable(itertools.repeat(self.coordinates, 4))

    def answer_text(self, answer: Any, label: str) -> str:
        """A word, or a box about an object of a shape."""
        if isinstance(answer, str):
            return answer
        return self.box_text(tuple(np.asarray(answer).tolist()), label)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A byte-level BPE tokenizer whose merges cover the scenes' language."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex("|".join(self.pieces + WORDS)), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=4096,
            min_frequency=2,
            special_tokens=list(self.special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(itertools.chain(self._scenes(), self.corpus()), trainer)
        named = {self.special[0], self.end, self.bos}
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=self.bos,
            eos_token=self.end,
            pad_token=self.special[0],
            padding_side="left",
            extra_special_tokens=[token for token in self.special if token not in named],
            chat_template=self.template,
        )

    def _scenes(self) -> Iterator[str]:
        """Questions and answers of the training split."""
        for index in range(600):
            scene = make_scene(0, "train", index)
            rng = np.random.default_rng(index)
            for task in TASKS:
                question = draw_question(scene, task, rng)
                yield self.family.format_question(
                    Sample(id="", task=task, images=(), question=question.text, answer="",
                           options=question.options)
                )  # fmt: skip
                yield self.answer_text(question.answer, SHAPES[index % len(SHAPES)])

    def processor(self, config: Any) -> Processor:
        """Tokenizer and image processor of a model."""
        return Processor(self.tokenizer, self.image_processor(), config, self.family)

    def save(self, folder: Path, model: nn.Module) -> None:
        """Write an ordinary Hugging Face folder: config, weights, tokenizer, image processor."""
        folder.mkdir(parents=True, exist_ok=True)
        generation: Any = model.generation_config
        generation.do_sample = False
        generation.bos_token_id = self.tokenizer.bos_token_id
        generation.eos_token_id = self.tokenizer.eos_token_id
        generation.pad_token_id = self.tokenizer.pad_token_id
        model.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)
        self.image_processor().save_pretrained(folder)

    def vocabulary(self) -> int:
        """Rows of the embedding: the tokens, rounded up."""
        return 8 * -(-len(self.tokenizer) // 8)
