"""The hooks of a session: they follow each forward pass from pixels to the last decoder layer.

    model.generate        refused settings are named             check_generation
    get_image_features    arguments, tower blocks, features      -> Encoding
    entry                 ids, masks, grids, fetched once        -> Prompt, or Chunk of text
    language model        cache, positions, embeddings           -> Prefill, or Continuation
      layer 0 ..          tokens leave, masks and rotary follow     before_layer
    language model ends   results go to the session              Session.record
    model                 labels follow the tokens that are left with_loss

What runs is known by thread until the language model is called, and travels as an argument from
there on; so passes of several threads do not meet.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn

from ivcp.core.errors import UserError
from ivcp.core.layout import PromptLayout
from ivcp.core.view import TOWER_SIGNALS
from ivcp.engine.cache import PrunedLayer, SlotMask
from ivcp.engine.checks import backend_of
from ivcp.engine.continuation import Continuation
from ivcp.engine.deepstack import DeepStack
from ivcp.engine.layer_inputs import LayerInputs
from ivcp.engine.loss import check_kept_logits, vocabulary_head, with_loss
from ivcp.engine.parts import ModelParts
from ivcp.engine.prefill import Prefill
from ivcp.engine.prompt import Chunk, Prompt, check_prompt, check_text, read_prompt
from ivcp.engine.session import Session
from ivcp.engine.wrappers import (
    Running,
    guarded_generate,
    guarded_numbering,
    guarded_settings,
    noted_encoder,
)

Args: TypeAlias = tuple[Any, ...]
Kwargs: TypeAlias = dict[str, Any]

ENCODERS = {"get_image_features": "image", "get_video_features": "video"}
RUNNING = "ivcp_running"
"""Keyword argument by which a forward pass travels through the language model's layers."""


class Hook:
    """One hook: it runs as it is between the parts of a compiled model, and is not copied."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = torch.compiler.disable(call)  # type: ignore[no-untyped-call]

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UserError(
            "A model cannot be copied or saved whole inside pruned(): do it outside of the block."
        )


class Hooks:
    """The hooks of one session.

    Args:
        model: The model.
        parts: What stays the same in all its forward passes.
        session: Takes the results.
    """

    def __init__(self, model: nn.Module, parts: ModelParts, session: Session) -> None:
        self.model, self.parts, self.session = model, parts, session
        self.entry = parts.adapter.entry(model)
        self.running = Running()
        self.signatures = {
            module: inspect.signature(module.forward) for module in {model, self.entry}
        }
        self.removers: list[Callable[[], None]] = []
        self.tower, self.blocks = None, frozenset[int]()
        stages = [s for s in parts.pruner.stages() if s.needs & (TOWER_SIGNALS | {"text_encoder"})]
        if stages:
            self.tower = parts.adapter.tower(model)
            read = [s for s in stages if s.needs & {"tower_attention", "tower_keys"}]
            self.blocks = frozenset(
                self._tower_block(layer) for stage in read for layer in stage.tower_layers
            )

    def _tower_block(self, layer: int) -> int:
        """Index of a block of the vision tower.

        Raises:
            UserError: The tower has none of that number.
        """
        count = 0 if self.tower is None else len(self.tower.blocks)
        if not -count <= layer < count:
            raise UserError(
                f"{type(self.parts.pruner).__name__} looks at layer {layer} of the vision tower, "
                f"but that of {type(self.model).__name__} has {count} layers: give a number in "
                f"{-count} .. {count - 1}."
            )
        return layer % count

    def attach(self) -> None:
        """Put all hooks on."""
        try:
            self._attach()
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Take all hooks off, and give back what they replaced."""
        while self.removers:
            self.removers.pop()()

    def _attach(self) -> None:
        decoder = self.parts.decoder
        if self.parts.pruner.stages() and callable(getattr(self.model, "generate", None)):
            self._replace(self.model, "generate", partial(guarded_generate, running=self.running))
        if self.parts.pruner.stages() and hasattr(self.model, "_prepare_generation_config"):
            self._replace(self.model, "_prepare_generation_config", guarded_settings)
        for name, kind in ENCODERS.items():
            if hasattr(self.entry, name):
                wrap = partial(noted_encoder, kind=kind, tower=self.tower, running=self.running)
                self._replace(self.entry, name, wrap)
        if hasattr(self.entry, "get_rope_index"):
            self._replace(self.entry, "get_rope_index", guarded_numbering)
        if vocabulary_head(self.model):
            self._before(self.model, self._called)
            self._after(self.model, self._ended)
        self._before(self.entry, self._entered)
        self._before(decoder, self._language_model)
        for index, layer in enumerate(decoder.layers):  # type: ignore[arg-type]
            self._before(layer, partial(self._before_layer, index))
        self._after(decoder, self._finished)
        if self.tower is not None:
            for index in sorted(self.blocks):
                self._before(self.tower.blocks[index], partial(self._block, index))
            module, site = self.tower.feature_site
            if site == "input":
                self._before(module, self._features_in)
            else:
                self._after(module, self._features_out)

    def _before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        self.removers.append(module.register_forward_pre_hook(Hook(hook), with_kwargs=True).remove)

    def _after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        self.removers.append(module.register_forward_hook(Hook(hook), with_kwargs=True).remove)

    def _replace(self, module: nn.Module, name: str, wrap: Callable[..., Any]) -> None:
        """Put a wrapper before a method, and later what was there."""
        instance_attribute = vars(module).get(name)
        setattr(module, name, wrap(getattr(module, name)))

        def restore() -> None:
            if instance_attribute is None:
                vars(module).pop(name, None)
            else:
                setattr(module, name, instance_attribute)

        self.removers.append(restore)

    def _named(self, module: nn.Module, args: Args, kwargs: Kwargs) -> Kwargs:
        """All arguments of a forward pass by name."""
        if not args:
            return kwargs
        bound = dict(self.signatures[module].bind_partial(*args, **kwargs).arguments)
        return {**bound.pop("kwargs", {}), **bound}

    def _block(self, index: int, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Note what enters a block of the vision tower."""
        if (encoding := self.running.encoding) is not None:
            hidden = args[0] if args else kwargs["hidden_states"]
            encoding.blocks[index] = hidden.flatten(0, -2), kwargs

    def _features_in(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if (encoding := self.running.encoding) is not None:
            states = args[0] if args else next(iter(kwargs.values()))
            encoding.features = states.flatten(0, -2)

    def _features_out(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> None:
        if (encoding := self.running.encoding) is not None:
            encoding.features = output.flatten(0, -2)

    def _called(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        """Take labels over: they are scored once it is known which tokens are left."""
        named = self._named(module, args, kwargs)
        running = self.running
        running.kept_logits = named.get("logits_to_keep", 0)
        running.labels, running.prefill = None, None
        if named.get("labels") is None or not self.parts.pruner.stages():
            return None
        if named.get("shift_labels") is not None:
            raise UserError("shift_labels cannot be used inside pruned(): pass labels alone.")
        running.labels = named["labels"]
        return (), {**named, "labels": None}

    def _ended(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        """Add the loss, where labels were given."""
        running = self.running
        labels, prefill = running.labels, running.prefill
        running.labels = running.prefill = None
        running.kept_logits = 0
        if labels is None:
            return None
        return with_loss(module, output, labels, self._named(module, args, kwargs), prefill)

    def _entered(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Find the visual tokens of this forward pass."""
        running = self.running
        running.entered = running.prefill = None
        named = self._named(module, args, kwargs)
        running.entered = read_prompt(
            self.parts.adapter,
            self.model,
            named,
            running.encodings,
            self.session.id_of,
            self.session.questions_of,
        )
        running.encodings = []
        layers = getattr(named.get("past_key_values"), "layers", ())
        pruned = any(isinstance(layer, PrunedLayer) and layer.stored for layer in layers)
        if pruned or (isinstance(running.entered, Prompt) and self.parts.pruner.stages()):
            check_prompt(named)

    def _language_model(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Begin to follow a pass through the layers."""
        running = self.running
        entered, running.entered = running.entered, None
        backend = backend_of(module)
        cache = kwargs.get("past_key_values")
        if entered is None and self.parts.adapter.needs_ids:  # nothing else has called it
            given = kwargs.get("inputs_embeds")
            if given is not None and given.shape[1] > 1:
                check_text(self.model, given, False)
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:
            embeds = args[0] if args else module.get_input_embeddings()(kwargs["input_ids"])  # type: ignore[operator]
        if not isinstance(entered, Prompt):
            chunk = entered or Chunk(0)
            past = None if chunk.past is None else SlotMask(chunk.past)
            inputs = LayerInputs(module, self.parts.axes, backend, chunk.real, past)
            if cache is None or not cache.get_seq_length():
                text = [PromptLayout(embeds.shape[1], ())] * len(embeds)
                self.session.clear(list(chunk.layouts) or text)
            return args, {**kwargs, RUNNING: Continuation(inputs)}
        deepstack = None
        if kwargs.get("deepstack_visual_embeds") is not None:
            # the language model would look for its visual tokens where they stood before the cut
            deepstack = DeepStack(kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"])
            kwargs = {**kwargs, "visual_pos_masks": None, "deepstack_visual_embeds": None}
        for encoding in running.encodings:
            entered.take(encoding)
        running.encodings = []
        prefill = Prefill(
            self.parts, entered, backend, embeds, kwargs.get("position_ids"), cache, deepstack
        )
        return args, {**kwargs, RUNNING: prefill}

    def _before_layer(
        self, index: int, layer: nn.Module, args: Args, kwargs: Kwargs
    ) -> tuple[Args, Kwargs] | None:
        running = kwargs.pop(RUNNING, None)
        if running is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden, kwargs = running.before_layer(index, layer, hidden, kwargs)
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def _finished(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> None:
        """Hand the results to the session."""
        prefill = kwargs.get(RUNNING)
        if not isinstance(prefill, Prefill):
            return
        if len(prefill.lengths.layer_tokens) < self.parts.depth:
            raise UserError(
                "The language model ran without calling its layers' hooks, so nothing was pruned: "
                "is it compiled? Prune the model as it was before torch.compile."
            )
        prefill.finish()
        running = self.running
        kept_logits, running.kept_logits = running.kept_logits, 0
        check_kept_logits(kept_logits, prefill)
        self.session.record(prefill)
        if running.labels is not None:
            running.prefill = prefill
