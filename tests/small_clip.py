"""A small CLIP on disk, whose text tower belongs to the small LLaVA's vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from ivcp.testing.small import CLIP

QUESTION = "is the red ball left of the blue box or right"


@dataclass
class SmallClip:
    """A CLIP that takes 6 tokens at a time.

    Attributes:
        folder: Where it is saved.
        model: The whole of it.
        tokenizer: It knows the words of `QUESTION`.
    """

    folder: Path
    model: Any
    tokenizer: Any

    @classmethod
    def save(cls, folder: Path) -> SmallClip:
        """Write a random one to a folder."""
        torch.manual_seed(1)
        text = {
            "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 6, "bos_token_id": 0,
            "eos_token_id": 1,
        }  # fmt: skip
        config = CLIPConfig(text_config=text, vision_config=CLIP, projection_dim=12)
        model = CLIPModel(config).eval()
        words = ["<s>", "</s>", "<unk>", *sorted(set(QUESTION.split()))]
        numbers = {word: number for number, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
        model.save_pretrained(folder)
        fast.save_pretrained(folder)
        return cls(folder, model, fast)

    @torch.no_grad()
    def relevance(self, pixels: Tensor) -> Tensor:
        """(N, V) mean cosine of each patch with the three segments of `QUESTION`."""
        whole = self.model
        states = whole.vision_model(pixels, output_hidden_states=True)
        patches = whole.visual_projection(
            whole.vision_model.post_layernorm(states.hidden_states[-2][:, 1:])
        )
        ids = self.tokenizer(QUESTION)["input_ids"]
        assert len(ids) == 11
        rows = [torch.tensor([[0, *ids[start : start + 4], 1]]) for start in (0, 4, 8)]
        words = torch.cat([whole.get_text_features(row).pooler_output for row in rows])
        patches = patches / patches.norm(dim=-1, keepdim=True)
        words = words / words.norm(dim=-1, keepdim=True)
        return (patches @ words.T).mean(-1)
