"""CLIP's text tower, for methods that compare patches with the question."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ivcp.core.errors import UserError
from ivcp.core.text_encoder import TextEncoder
from ivcp.core.view import Signal
from ivcp.models.hub import HubFamily
from ivcp.models.hub_access import cache_only


class ClipText:
    """Cosines between patches of a CLIP vision tower and a text.

    CLIP's last norm and projection are applied to each patch. A text that is too long for the tower
    is cut into segments, whose cosines are averaged.

    Args:
        clip: `CLIPModel` with the vision tower of the model.
        tokenizer: Its tokenizer.
    """

    def __init__(self, clip: nn.Module, tokenizer: Any) -> None:
        self.clip: Any = clip
        self.tokenizer = tokenizer
        self._last: tuple[str, Tensor] | None = None

    @classmethod
    def load(cls, source: str, tower: nn.Module) -> ClipText:
        """The text tower of a checkpoint, with the dtype and on the device of the vision tower.

        Args:
            source: Hub id or folder of a `CLIPModel`.
            tower: The model's vision tower.

        Raises:
            UserError: It cannot be loaded, or belongs to another vision tower.
        """
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, CLIPModel

        loaded = _loaded.setdefault(tower, {})
        if source in loaded:
            return loaded[source]
        weight = next(tower.parameters())
        local = cache_only(source)
        try:
            clip = CLIPModel.from_pretrained(source, dtype=weight.dtype, local_files_only=local)
            clip = clip.to(weight.device).eval()
            tokenizer = AutoTokenizer.from_pretrained(
                source, trust_remote_code=False, local_files_only=local
            )
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            advice = (
                "download it where the hub can be reached and point model.text_tower at the folder"
            )
            if Path(source).is_dir():
                advice = "copy or download it again, or set model.text_tower to another one"
            raise UserError(
                f"The text encoder {source!r} could not be loaded ({reason}); {advice}."
            ) from error
        width, wanted = clip.config.vision_config.hidden_size, tower.config.hidden_size  # type: ignore[union-attr]
        if width != wanted:
            raise UserError(
                f"The text encoder {source!r} belongs to a vision tower of width {width}; the "
                f"model's has {wanted}: set model.text_tower to the one it was trained with."
            )
        del clip.vision_model.encoder, clip.vision_model.embeddings  # the model has them itself
        loaded[source] = cls(clip, tokenizer)
        return loaded[source]

    @torch.no_grad()
    def embeddings(self, text: str) -> Tensor:
        """(segments, E) embeddings of a text; the last text is remembered."""
        previous = self._last
        if previous is None or previous[0] != text:
            config: Any = self.clip.config.text_config
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            room = config.max_position_embeddings - 2
            pieces = [ids[start : start + room] for start in range(0, len(ids), room)] or [[]]
            start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
            device = self.clip.visual_projection.weight.device
            rows = []
            for piece in pieces:
                row = torch.tensor([[start, *piece, end]], device=device)
                rows.append(self.clip.get_text_features(row, return_dict=True).pooler_output)
            self._last = previous = text, torch.cat(rows)
        return previous[1]

    @torch.no_grad()
    def relevance(self, features: Tensor, text: str) -> Tensor:
        """(V,) float32 cosine of each token with the text, mean over its segments."""
        features = features.to(self.clip.visual_projection.weight)  # the model may have moved
        normed = self.clip.vision_model.post_layernorm(features)
        patches = self.clip.visual_projection(normed).float()  # (V, E)
        words = self.embeddings(text).float()
        return cosine_similarity(patches[:, None], words[None], -1).mean(1)


_loaded: weakref.WeakKeyDictionary[nn.Module, dict[str, ClipText]] = weakref.WeakKeyDictionary()
"""Text towers by vision tower and source, loaded once for all sessions."""


@dataclass(frozen=True, kw_only=True)
class ClipFamily(HubFamily):
    """A family whose vision tower is CLIP's, so that CLIP's text tower belongs to it.

    Attributes, beside those of every family (`HubFamily`):
        text_tower: Hub id or folder of the CLIP model with the same vision tower, for methods that
            compare patches with the question; None if there is none.
    """

    text_tower: str | None = "openai/clip-vit-large-patch14-336"

    def provides(self, config: Any) -> frozenset[Signal]:
        text: frozenset[Signal] = frozenset({"text_encoder"} if self.text_tower else ())
        return super().provides(config) | text

    def text_encoder(self, model: nn.Module) -> Callable[[], TextEncoder] | None:
        if self.text_tower is None:
            return None
        return partial(ClipText.load, self.text_tower, self.vision(model))
