"""The signals of vLLM's vision towers: queries, keys and features, recorded while they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from vllm.distributed import tensor_model_parallel_all_gather as gathered

from ivcp.core.tower import layer_index
from ivcp.engine.tower_signals import TowerSignals
from ivcp.models.towers_qwen import Qwen25Tower, QwenTower

Layer = int | float


class Captured:
    """Put before a tower of this package: the queries and keys that vLLM's attention is given."""

    def queries(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Tensor]
    ) -> Tensor:
        """(H, R', D)."""
        return context["query"][rows].transpose(0, 1)

    def keys(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Tensor]
    ) -> Tensor:
        """(H, R', D)."""
        return context["key"][rows].transpose(0, 1)

    def scale(self, block: Any) -> float:
        """Factor on products of queries and keys."""
        return float(block.attn.hidden_size_per_attention_head**-0.5)


class CapturedQwen(Captured, QwenTower):
    """Qwen2-VL and Qwen3-VL."""


class CapturedQwen25(Captured, Qwen25Tower):
    """Qwen2.5-VL, with its windows."""


class TowerRun:
    """One call of a tower, for all images of a batch.

    Args:
        tower: The tower.
        blocks: Indices of the blocks whose attention or keys are read.
    """

    def __init__(self, tower: QwenTower, blocks: Sequence[int]) -> None:
        self.tower, self.blocks = tower, blocks
        self.contexts: dict[int, tuple[Tensor, dict[str, Any]]] = {}
        self.features = torch.empty(0)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what the tower does inside the block."""
        merger: Any = self.tower.feature_site[0]
        # its norm: vLLM calls modules that it may compile without their hooks
        norm = getattr(merger, "ln_q", None) or merger.norm
        handles = [norm.register_forward_pre_hook(self._note_features)]
        for index in self.blocks:
            attention: Any = self.tower.blocks[index].attn.attn  # type: ignore[union-attr]

            note = partial(self._note_block, index)
            handles.append(attention.register_forward_pre_hook(note, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note_block(self, index: int, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        # (1, R, H, D) each; a rank of tensor parallelism has a part of the heads
        query, key = (gathered(kwargs[name][0], 1) for name in ("query", "key"))
        self.contexts[index] = query.flatten(1), {"query": query, "key": key}

    def _note_features(self, module: Any, args: Any) -> None:
        self.features = args[0].flatten(0, -2)

    def signals(self, sizes: Tensor) -> TowerSignals:
        """What was recorded.

        Args:
            sizes: (N, 3) times, rows and columns of patches of the images.
        """
        return TowerSignals(self.tower, {"image_grid_thw": sizes}, self.contexts, self.features)


def tower_view(signals: TowerSignals, number: int) -> dict[str, Any]:
    """Signals of one image, as `View` has them.

    Args:
        signals: Those of the call.
        number: Index of the image among those of the call.
    """
    tower, patches = signals.tower, signals.tower.patches(signals.call)[number]

    def block(layer: Layer) -> int:
        index = layer_index(layer, len(tower.blocks))
        if index is None:
            raise RuntimeError(f"the vision tower has no layer {layer}")
        return index

    def attention(
        layer: Layer = -2,
        queries: Literal["auto", "cls", "all"] = "auto",
        heads: Literal["mean", "joined"] = "mean",
    ) -> Tensor:
        received = signals.attention(block(layer), signals.queries(queries), heads)
        return signals.token_mean(received, patches)

    def keys(layer: Layer = -2) -> Tensor:
        mean = signals.token_mean(signals.keys(block(layer)).transpose(1, 2), patches)
        return mean.transpose(1, 2)

    return {
        "tower_attention": attention,
        "tower_keys": keys,
        "tower_features": lambda: signals.token_features(patches),
        "tower_cls": lambda: None,  # Qwen's towers have no [CLS]
        "project": tower.project,
    }
