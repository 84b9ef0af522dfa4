"""Training batches: one image and several independent questions behind it in one sequence.

Each question attends to the image and to itself only and continues the image's position numbering,
so that it is trained as it is evaluated later: alone, right after the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

from ivcp.core.types import Sample, Task
from ivcp.datasets.scenes import COLORS, SHAPES, SIDE, SIZES, Scene, make_scene
from ivcp.datasets.shapes import draw_question
from ivcp.models.qwen25vl import Qwen25VL
from recipes.tiny.build import answer_text

CELL = 16  # pixels of a visual token
GRID = SIDE // CELL
VISUAL = GRID * GRID
PREFIX = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * VISUAL + "<|vision_end|>"
TASKS: tuple[Task, ...] = ("grounding", "yes_no", "multiple_choice")
INPUTS = ("input_ids", "pixel_values", "image_grid_thw", "attention_mask", "position_ids")
"""Parts of a batch that are inputs of the model."""


@dataclass
class Packed:
    """One image with its questions, as arrays (`Q` questions, `N` sequence length)."""

    pixels: torch.Tensor  # (4V, 384)
    ids: np.ndarray  # (N,)
    labels: np.ndarray  # (N,) the next token to predict, -100 where there is none
    segment: np.ndarray  # (N,) 0 for the image part, then 1..Q
    positions: np.ndarray  # (3, N)
    last: np.ndarray  # (Q,) index of each prompt's last token
    pointer: np.ndarray  # (Q, V) fraction of each visual token covered by the targets
    boxes: np.ndarray  # (Q, 4) in [0, 1]; NaN where the question is not about one box
    counts: np.ndarray  # (Q,) number of targets
    dense: np.ndarray  # (V, 8): foreground, color, shape, size, box in [0, 1]


class PackedScenes(Dataset[Packed]):
    """Scenes of the training split with several questions each.

    Attributes:
        tokenizer: The model's tokenizer.
        processor: The model's image processor.
        start: Index of the first scene; a resumed run continues with new ones.
        size: Number of scenes.
        referring: Referring expressions an image.
        counting: Counts an image; one yes/no question is added.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        processor: Qwen2VLImageProcessorPil,
        *,
        start: int = 0,
        size: int,
        referring: int = 4,
        counting: int = 1,
        seed: int = 0,
    ) -> None:
        self.tokenizer, self.processor = tokenizer, processor
        self.start = start
        self.size, self.referring, self.counting, self.seed = size, referring, counting, seed
        self.prefix = tokenizer(PREFIX)["input_ids"]
        self.image_start = self.prefix.index(tokenizer.convert_tokens_to_ids("<|image_pad|>"))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Packed:
        scene = make_scene(self.seed, "train", self.start + index)
        rng = np.random.default_rng((*scene.pixel_seed, 3))
        pixels = self.processor(scene.render(), return_tensors="pt")["pixel_values"]
        cover = _cover(scene)  # (objects, V)
        start, rows = self.image_start, len(self.prefix)
        row, column = np.divmod(np.arange(VISUAL), GRID)
        image_positions = start + np.stack([np.zeros(VISUAL, dtype=int), row, column])
        after = start + GRID  # text goes on behind the largest image position
        head, tail = np.arange(start), after + np.arange(rows - start - VISUAL)
        positions = [np.tile(head, (3, 1)), image_positions, np.tile(tail, (3, 1))]
        ids, labels = [*self.prefix], [-100] * rows
        segment, last, pointer, boxes, counts = [0] * rows, [], [], [], []
        text_start = after + rows - start - VISUAL
        tasks: list[Task] = ["yes_no"]
        tasks += ["grounding"] * self.referring + ["multiple_choice"] * self.counting
        for number, task in enumerate(tasks, start=1):
            question = draw_question(scene, task, rng)
            sample = Sample(
                id="", task=question.task, images=(), question=question.text, answer="",
                options=question.options,
            )  # fmt: skip
            label = scene.objects[question.targets[0]].shape if question.targets else ""
            text = f"{Qwen25VL().format_question(sample)}<|im_end|>\n<|im_start|>assistant\n"
            prompt = self.tokenizer(text)["input_ids"]
            answer = self.tokenizer(answer_text(question.answer, label) + "<|im_end|>")["input_ids"]
            piece = [*prompt, *answer[:-1]]
            last.append(len(ids) + len(prompt) - 1)
            ids += piece
            labels += [-100] * (len(prompt) - 1) + answer
            segment += [number] * len(piece)
            positions.append(np.tile(text_start + np.arange(len(piece)), (3, 1)))
            pointer.append(cover[list(question.targets)].sum(0))
            box = np.array(question.answer) / SIDE if question.task == "grounding" else [np.nan] * 4
            boxes.append(box)
            counts.append(len(question.targets))
        return Packed(
            pixels, np.array(ids), np.array(labels), np.array(segment),
            np.concatenate(positions, 1), np.array(last), np.stack(pointer), np.stack(boxes),
            np.array(counts), _dense(scene, cover),
        )  # fmt: skip


def _cover(scene: Scene) -> np.ndarray:
    """(objects, V): the fraction of each visual token's cell that an object's box covers."""
    edges = np.arange(GRID) * CELL
    boxes = np.array([item.box for item in scene.objects], dtype=float)
    low, high = edges, edges + CELL

    def overlap(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        return np.clip(np.minimum(high, stop[:, None]) - np.maximum(low, start[:, None]), 0, None)

    columns, rows = overlap(boxes[:, 0], boxes[:, 2]), overlap(boxes[:, 1], boxes[:, 3])
    return (rows[:, :, None] * columns[:, None, :]).reshape(len(boxes), -1) / CELL**2


def _dense(scene: Scene, cover: np.ndarray) -> np.ndarray:
    """(V, 8): what the object that covers most of each visual token is and where its box lies."""
    covering = cover.argmax(0)
    table = np.array(
        [
            [
                list(COLORS).index(item.color), SHAPES.index(item.shape),
                list(SIZES).index(item.size), *(np.array(item.box) / SIDE),
            ]
            for item in scene.objects
        ]
    )  # fmt: skip
    foreground = cover.max(0, keepdims=True).T > 0.15
    return np.concatenate([foreground.astype(float), table[covering]], 1)


def collate(rows: list[Packed], pad: int) -> dict[str, torch.Tensor]:
    """Pad on the right and build the attention mask (B, 1, N, N)."""
    longest = max(len(row.ids) for row in rows)

    def padded(name: str, fill: int) -> torch.Tensor:
        out = np.full((len(rows), longest), fill)
        for number, row in enumerate(rows):
            values = getattr(row, name)
            out[number, : len(values)] = values
        return torch.from_numpy(out)

    ids, segment = padded("ids", pad), padded("segment", -1)
    positions = np.zeros((3, len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        positions[:, number, : row.positions.shape[1]] = row.positions
    order = torch.arange(longest)
    visible = (segment[:, None, :] == 0) | (segment[:, :, None] == segment[:, None, :])
    mask = (visible & (order[None, :] <= order[:, None]))[:, None]
    batch = {
        "input_ids": ids,
        "labels": padded("labels", -100),
        "attention_mask": mask,
        "position_ids": torch.from_numpy(positions),
        "pixel_values": torch.cat([row.pixels for row in rows]),
        "image_grid_thw": torch.tensor([[1, 2 * GRID, 2 * GRID]] * len(rows)),
    }
    for name in ("last", "pointer", "boxes", "counts", "dense"):
        values = torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
        batch[name] = values.float() if values.is_floating_point() else values
    return batch


def validation_samples(size: int) -> Iterator[Sample]:
    """The first `size` validation samples of each task."""
    from ivcp.datasets.shapes import Shapes

    for task in TASKS:
        yield from (Shapes(task=task, split="val", size=size)[index] for index in range(size))
