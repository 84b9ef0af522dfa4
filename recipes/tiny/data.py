"""Training batches: one image and several independent questions behind it in one sequence.

Each question attends to the image and to itself only and continues the image's position numbering,
so that it is trained as it is evaluated later: alone, right after the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ivcp.core.types import Sample, Task
from ivcp.datasets.scenes import COLORS, SHAPES, SIDE, SIZES, Scene, make_scene
from ivcp.datasets.shapes import Shapes, draw_question
from recipes.tiny.instrument import CELL, GRID, VISUAL, Instrument

NO_INPUTS = ("labels", "last", "pointer", "boxes", "counts", "dense")
"""Parts of a batch that are no inputs of the model."""


@dataclass
class Packed:
    """One image with its questions, as arrays (`Q` questions, `N` sequence length)."""

    pixels: dict[str, torch.Tensor]  # model inputs that hold the image
    ids: np.ndarray  # (N,)
    labels: np.ndarray  # (N,) the next token to predict, -100 where there is none
    segment: np.ndarray  # (N,) 0 for the image part, then 1..Q
    positions: np.ndarray  # (A, N), of each rotary axis
    last: np.ndarray  # (Q,) index of each prompt's last token
    pointer: np.ndarray  # (Q, V) fraction of each visual token covered by the targets
    boxes: np.ndarray  # (Q, 4) in [0, 1]; NaN where the question is not about one box
    counts: np.ndarray  # (Q,) number of targets
    dense: np.ndarray  # (V, 8): foreground, color, shape, size, box in [0, 1]


class PackedScenes(Dataset[Packed]):
    """Scenes of the training split with several questions each.

    Attributes:
        instrument: Words, encodes and numbers prompts.
        start: Index of the first scene; a resumed run continues with new ones.
        size: Number of scenes.
        referring: Referring expressions an image.
        counting: Counts an image; one yes/no question is added.
    """

    def __init__(
        self,
        instrument: Instrument,
        config: Any,
        *,
        start: int = 0,
        size: int,
        referring: int = 4,
        counting: int = 1,
        seed: int = 0,
    ) -> None:
        self.instrument, self.processor = instrument, instrument.processor(config)
        self.start = start
        self.size, self.referring, self.counting, self.seed = size, referring, counting, seed
        first = Shapes(task="grounding", split="train", size=1)[0]
        prompt = instrument.family.encode(self.processor, [first]).inputs["input_ids"][0].tolist()
        token = instrument.tokenizer.convert_tokens_to_ids(instrument.family.image_token)
        self.image_start = prompt.index(token)
        self.prefix = prompt[: self.image_start + VISUAL]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Packed:
        instrument, tokenizer = self.instrument, self.instrument.tokenizer
        scene = make_scene(self.seed, "train", self.start + index)
        rng = np.random.default_rng((*scene.pixel_seed, 3))
        image = scene.render()
        cover = _cover(scene)  # (objects, V)
        start, rows = self.image_start, len(self.prefix)
        image_positions, text_start = instrument.image_positions(start)
        axes = len(image_positions)
        positions = [np.tile(np.arange(start), (axes, 1)), image_positions]
        ids, labels = [*self.prefix], [-100] * rows
        segment, last, pointer, boxes, counts = [0] * rows, [], [], [], []
        tasks: list[Task] = ["yes_no"]
        tasks += ["grounding"] * self.referring + ["multiple_choice"] * self.counting
        for number, task in enumerate(tasks, start=1):
            question = draw_question(scene, task, rng)
            sample = Sample(
                id="", task=question.task, images=(image,), question=question.text, answer="",
                options=question.options,
            )  # fmt: skip
            label = scene.objects[question.targets[0]].shape if question.targets else ""
            text = instrument.family.prompt(tokenizer, sample)
            behind = text.rpartition(instrument.family.image_token)[2]
            prompt = tokenizer(behind)["input_ids"]
            answer = instrument.answer_text(question.answer, label) + instrument.end
            target = tokenizer(answer)["input_ids"]
            piece = [*prompt, *target[:-1]]
            last.append(len(ids) + len(prompt) - 1)
            ids += piece
            labels += [-100] * (len(prompt) - 1) + target
            segment += [number] * len(piece)
            positions.append(np.tile(text_start + np.arange(len(piece)), (axes, 1)))
            pointer.append(cover[list(question.targets)].sum(0))
            box = np.array(question.answer) / SIDE if question.task == "grounding" else [np.nan] * 4
            boxes.append(box)
            counts.append(len(question.targets))
        return Packed(
            instrument.family.process_images(self.processor, [sample]).inputs, np.array(ids),
            np.array(labels), np.array(segment), np.concatenate(positions, 1), np.array(last),
            np.stack(pointer), np.stack(boxes), np.array(counts), _dense(scene, cover),
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
    axes = len(rows[0].positions)
    positions = np.zeros((axes, len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        positions[:, number, : row.positions.shape[1]] = row.positions
    order = torch.arange(longest)
    visible = (segment[:, None, :] == 0) | (segment[:, :, None] == segment[:, None, :])
    mask = (visible & (order[None, :] <= order[:, None]))[:, None]
    batch = {
        "input_ids": ids,
        "labels": padded("labels", -100),
        "attention_mask": mask,
        "position_ids": torch.from_numpy(positions if axes > 1 else positions[0]),
        **{name: torch.cat([row.pixels[name] for row in rows]) for name in rows[0].pixels},
    }
    for name in ("last", "pointer", "boxes", "counts", "dense"):
        values = torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
        batch[name] = values.float() if values.is_floating_point() else values
    return batch
