"""Small random models with the real architectures, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IMAGE, VIDEO, START, END, PAD, EOS = 90, 91, 92, 93, 0, 1


def random_qwen25vl(backend: str = "sdpa", layers: int = 6) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL with 6 layers, grouped queries, window and full attention in the tower."""
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 4096, "initializer_range": 0.25, "bos_token_id": 2,
            "eos_token_id": EOS, "pad_token_id": PAD, "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3],
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16,
            "fullatt_block_indexes": [1], "out_hidden_size": 64, "initializer_range": 0.25,
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START,
        vision_end_token_id=END, tie_word_embeddings=False,
        attn_implementation=backend,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config.pad_token_id = PAD
    return model


@dataclass
class Prompts:
    """A left-padded batch for the random model.

    Attributes:
        inputs: Keyword arguments of `generate`.
        lengths: Real length of each row.
        spans: For each row, (first token, number of tokens) of each image, padding not counted.
    """

    inputs: dict[str, Tensor]
    lengths: list[int]
    spans: list[list[tuple[int, int]]]


def prompts(*samples: list[Any], seed: int = 7) -> Prompts:
    """Build a batch; a sample is a list of text lengths (int) and image grids (rows, columns)."""
    generator = torch.Generator().manual_seed(seed)
    rows, spans, grids, pixels = [], [], [], []
    for sample in samples:
        ids: list[int] = []
        spans.append([])
        for part in sample:
            if isinstance(part, int):
                ids += torch.randint(3, 80, (part,), generator=generator).tolist()
            else:
                height, width = part
                spans[-1].append((len(ids) + 1, height * width))
                ids += [START, *[IMAGE] * (height * width), END]
                grids.append([1, 2 * height, 2 * width])
                pixels.append(torch.randn(4 * height * width, 96, generator=generator))
        rows.append(torch.tensor(ids))
    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), PAD)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        input_ids[number, longest - len(row) :] = row
        mask[number, longest - len(row) :] = 1
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    inputs["mm_token_type_ids"] = (input_ids == IMAGE).int()
    if grids:
        inputs |= {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.tensor(grids)}
    return Prompts(inputs, [len(row) for row in rows], spans)


def single(batch: Prompts, number: int) -> dict[str, Tensor]:
    """One row of a batch as a batch of its own, without padding."""
    length = batch.lengths[number]
    inputs = {
        name: batch.inputs[name][number : number + 1, -length:]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids")
    }
    before = sum(len(spans) for spans in batch.spans[:number])
    count = len(batch.spans[number])
    if count:
        grids = batch.inputs["image_grid_thw"]
        patches = grids.prod(1).tolist()
        start = sum(patches[:before])
        inputs["image_grid_thw"] = grids[before : before + count]
        stop = start + sum(patches[before : before + count])
        inputs["pixel_values"] = batch.inputs["pixel_values"][start:stop]
    return inputs
