"""Static caches: decoding attends to tensors of a fixed size, which compiled code needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import __version__
from transformers.cache_utils import Cache, DynamicCache, StaticCache, StaticLayer

from ivcp.core.errors import LibraryTooOldError, UserError
from ivcp.core.pruner import Pruner
from ivcp.engine.cache import PrunedLayer
from ivcp.engine.linear_state import is_linear, with_slots
from ivcp.engine.prompt import has_images


class PrunedStaticLayer(StaticLayer):  # type: ignore[misc]
    """A `StaticLayer` with the logical length of a `PrunedLayer`, and its mask offset.

    Attributes:
        dropped: Logical minus stored length.
        offset: The same as a tensor, so that compiled code does not depend on its value.
        needs_session: Whether nothing may be stored any more, as the library's masks would be
            wrong; outside of the `generate` that made it, this is so where rows differ.
    """

    def __init__(self, max_cache_len: int) -> None:
        super().__init__(max_cache_len)
        self.dropped, self.needs_session = 0, False
        self.offset = torch.tensor(0)

    @classmethod
    def of(cls, layer: Any, slots: int) -> PrunedStaticLayer:
        """A static layer of `slots` slots that holds what a dynamic layer holds.

        Args:
            layer: The dynamic layer.
            slots: Number of slots, at least those that the layer stores.
        """
        new = cls(slots)
        new.lazy_initialization(layer.keys, layer.values)
        stored = layer.keys.shape[-2]
        # in place: compiled code knows the addresses of these tensors
        new.keys[..., :stored, :] = layer.keys
        new.values[..., :stored, :] = layer.values
        new.cumulative_length.fill_(stored)
        new.dropped = getattr(layer, "dropped", 0)
        new.offset = torch.tensor(new.dropped, device=layer.keys.device)
        torch._dynamo.mark_static_address(new.offset)
        return new

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.needs_session:
            raise UserError(
                "This static KV cache was pruned so that its rows differ, and can only be used by "
                "the generate that made it: go on with a dynamic cache."
            )
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return keys, values

    def get_seq_length(self) -> Any:
        return self.cumulative_length + self.offset if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.max_cache_len, self.dropped

    def reset(self) -> None:
        super().reset()
        self.offset.zero_()
        self.dropped, self.needs_session = 0, False


class StaticPrefill:
    """Runs prefills of `generate` on a dynamic cache, and moves what they keep into a static one.

    Args:
        model: The model that generates.
        pruner: The method.
    """

    def __init__(self, model: nn.Module, pruner: Pruner) -> None:
        self.model, self.pruner = model, pruner
        self.slots = 0  # of the longest cache so far: equal sizes are compiled once

    def wrap(
        self, method: Callable[..., Any], running: Callable[[], list[Cache] | None]
    ) -> Callable[..., Any]:
        """`_prefill` of the library for static caches, too.

        Args:
            method: The library's method.
            running: Returns the list of caches that end with the running `generate`, if any.
        """

        @functools.wraps(method)
        def prefill(
            input_ids: Tensor, config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
        ) -> Any:
            name = "past_key_values" if "past_key_values" in model_kwargs else "cache"
            static: Any = model_kwargs.get(name)
            if not isinstance(static, StaticCache) or not has_images(model_kwargs):
                return method(input_ids, config, model_kwargs, *args, **kwargs)
            if getattr(self.model, "_cache", None) is static:
                del self.model._cache  # by which older versions would take it for the next call
            check_static(static, self.pruner)
            hybrid = any(map(is_linear, static.layers))
            dynamic = DynamicCache(config=self.model.config if hybrid else None)
            model_kwargs[name] = dynamic
            try:
                outputs = method(input_ids, config, model_kwargs, *args, **kwargs)
            finally:
                model_kwargs[name] = static
            layers: Sequence[Any] = dynamic.layers
            first, *_ = pruned = with_slots(dynamic)
            stored = check_alike(pruned)
            ends = any(getattr(layer, "needs_session", False) for layer in pruned)
            if ends:
                self._mask_padding(first, model_kwargs, dynamic.get_seq_length())
                if (caches := running()) is None:
                    raise UserError(
                        "A static KV cache whose rows are padded needs a generate that is looked "
                        "up inside pruned(): call model.generate there."
                    )
                caches.append(static)
            to_come = config.max_length - input_ids.shape[1] - 1  # the last one is never stored
            slots = self._slots(static, stored, to_come, config)
            for index, layer in enumerate(layers):
                if is_linear(layer):  # of a constant size anyway
                    layer.needs_session = False  # until this `generate` ends
                    static.layers[index] = layer
                    continue
                static.layers[index] = PrunedStaticLayer.of(layer, slots)
                layer.keys = layer.values = None  # only one layer is held twice
            outputs[next(key for key in ("past_key_values", "cache") if key in outputs)] = static
            return outputs

        return prefill

    def _slots(self, static: StaticCache, stored: int, to_come: int, config: Any) -> int:
        """Slots of a layer; a cache that the user made keeps its size."""
        if config.cache_implementation is None:
            slots = int(with_slots(static)[0].max_cache_len)
            if stored > slots:
                raise UserError(
                    f"The static KV cache has {slots} slots, and {stored} tokens of the prompt "
                    "are kept: make a larger one."
                )
            return slots
        longest = getattr(config, "max_cache_len", None) or 0
        self.slots = max(self.slots, stored + to_come, longest)
        return self.slots

    @staticmethod
    def _mask_padding(layer: PrunedLayer, model_kwargs: dict[str, Any], length: int) -> None:
        """Make the mask of the prompt that of the kept tokens.

        The library cuts the columns of the first `dropped` tokens off, so that the others stand for
        the slots of the cache.
        """
        if model_kwargs.get("position_ids") is None:
            raise LibraryTooOldError(
                "A static KV cache whose rows are padded needs transformers>=5.23, which numbers "
                f"tokens before it prunes; {__version__} is installed."
            )
        mask = torch.ones(len(layer.keys), length, dtype=torch.long, device=layer.keys.device)
        if layer.mask is not None:
            real = layer.mask.real
            mask[:, layer.dropped : layer.dropped + real.shape[1]] = real
        model_kwargs["attention_mask"] = mask


def check_static(cache: StaticCache, pruner: Pruner) -> None:
    """Refuse a static cache, or a method, with which decoding would not be exact.

    Raises:
        UserError: The cache is not an empty one of full attention on the device, or as
            `check_static_method`.
        LibraryTooOldError: Static layers of this version of the library are made differently.
    """
    kinds = {type(layer) for layer in with_slots(cache)} - {StaticLayer, PrunedStaticLayer}
    offloaded = bool(getattr(cache, "offloading", False))
    if kinds or offloaded:
        named = ", ".join(sorted(kind.__name__ for kind in kinds)) or "offloading"
        raise UserError(
            f"Pruning needs a dynamic KV cache, or a static one without {named}: call generate "
            "with cache_implementation 'dynamic' or 'static'."
        )
    if not isinstance(getattr(StaticLayer(1), "cumulative_length", None), Tensor):
        raise LibraryTooOldError(
            f"A static KV cache inside pruned() needs transformers>=5.23; {__version__} is "
            "installed: call generate without cache_implementation."
        )
    if int(cache.get_seq_length()):
        raise UserError(
            "A static KV cache that holds tokens cannot take an image inside pruned(): begin with "
            "an empty one, or use a dynamic cache."
        )
    check_static_method(pruner)


def check_static_method(pruner: Pruner) -> None:
    """Refuse a method, with its layers filled in, that a static cache cannot hold.

    Raises:
        UserError: It leaves layers that differ, or renumbers tokens.
    """
    early = [stage.layer for stage in pruner.stages() if stage.layer and not stage.prune_earlier_kv]
    if early or pruner.renumbers():
        _refuse(
            f"{pruner.name} renumbers tokens"
            if pruner.renumbers()
            else f"{pruner.name} leaves the layers before {early[0]} with more tokens than others"
        )


def check_alike(layers: Sequence[Any]) -> int:
    """Slots that each of the layers stores.

    Raises:
        UserError: They store different tokens, or renumbered ones.
    """
    kinds = {(layer.keys.shape[-2], getattr(layer, "dropped", 0)) for layer in layers}
    masks = {getattr(layer, "mask", None) for layer in layers}
    if len(kinds) > 1 or len(masks) > 1 or any(getattr(x, "renumbered", False) for x in layers):
        _refuse("the layers of this prompt store different tokens")
    return int(layers[0].keys.shape[-2])


def _refuse(reason: str) -> None:
    raise UserError(
        f"A static KV cache needs all layers to store the same tokens in their original positions, "
        f"but {reason}: use prune_earlier_kv=true and renumber=false, or generate without "
        "cache_implementation."
    )
