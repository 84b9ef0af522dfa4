"""The hooks of a session: they follow each forward pass from pixels to the last decoder layer.

    generate             refuse settings that cannot be pruned
       |
    vision tower         record arguments, inputs of blocks, features  -> EncoderCall
       |                   (`generate` encodes images first, a plain forward inside the entry)
    model, its entry     take labels out; find images and padding      -> Prompt | Chunk
       |                   (the only point at which the host waits for the device)
    language model       images begin a prefill, text continues        -> Prefill | Continuation
       |- layers 0..k-1    run on all tokens, which their caches hold
       |- before layer k   views -> select -> drop: from the hidden states and, with
       |                     prune_earlier_kv, from the caches of layers 0..k-1
       |- layers k..L-1    rotary rows and masks of the kept tokens, which their caches hold
    after it             mark what the cache may be used for; results  -> Session
    after the model      loss of the remaining tokens
    decoding             nothing, if the library's masks fit the cache; else the language model gets
                         masks, and the layers their own where they hold different tokens

A thread's state is in `ThreadState` until the language model is called. From there on, the pass
travels through the layers as a keyword argument, so passes of several threads do not meet. Layers
have hooks only while a pass needs them (`LayerHooks`), since even an idle hook costs time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ivcp.core.errors import UserError
from ivcp.core.layout import PromptLayout
from ivcp.core.tower import tower_block
from ivcp.core.view import TOWER_BLOCK_SIGNALS, TOWER_SIGNALS
from ivcp.engine.cache import PrunedLayer, SlotMask, cache_of
from ivcp.engine.checks import backend_of, check_checkpointing
from ivcp.engine.context import SessionContext
from ivcp.engine.continuation import (
    Continuation,
    is_plain_decoding,
    is_plain_entry,
    is_plain_step,
)
from ivcp.engine.deepstack import DeepStack
from ivcp.engine.hook import PASS, Args, Hook, Hooked, Idle, Kwargs, has_no_pass
from ivcp.engine.layer_hooks import LayerHooks
from ivcp.engine.layer_inputs import LayerInputs
from ivcp.engine.loss import check_kept_logits, vocabulary_head, with_loss
from ivcp.engine.prefill import Prefill
from ivcp.engine.prompt import Chunk, Prompt, check_prompt, check_text, read_prompt
from ivcp.engine.session import Session
from ivcp.engine.static_cache import StaticPrefill
from ivcp.engine.wrappers import (
    ThreadState,
    guarded_generate,
    guarded_numbering,
    guarded_settings,
    recorded_encoder,
)

ENCODERS = {"get_image_features": "image", "get_video_features": "video"}


class Hooks:
    """The hooks of one session.

    Args:
        model: The model.
        context: What all its forward passes have in common.
        session: Receives the results.
    """

    def __init__(self, model: nn.Module, context: SessionContext, session: Session) -> None:
        self.model, self.context, self.session = model, context, session
        self.entry = context.adapter.entry(model)
        self.state = ThreadState()
        self.signatures = {
            module: inspect.signature(module.forward) for module in {model, self.entry}
        }
        self.removers: list[Callable[[], None]] = []
        self.layer_hooks = LayerHooks(
            list(context.decoder.layers),  # type: ignore[arg-type]
            lambda index: Hook(partial(self._before_layer, index), has_no_pass),
        )
        self.tower, self.blocks = None, frozenset[int]()
        of_tower = TOWER_SIGNALS | {"text_encoder"}
        stages = [stage for stage in context.pruner.stages() if stage.needs & of_tower]
        if stages:
            self.tower = context.adapter.tower(model)
            names = context.pruner.name, type(model).__name__
            self.blocks = frozenset(
                tower_block(layer, len(self.tower.blocks), *names)
                for stage in stages
                if stage.needs & TOWER_BLOCK_SIGNALS
                for layer in stage.tower_layers
            )

    def attach(self) -> None:
        """Put all hooks on the model."""
        try:
            self._attach()
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Remove all hooks, and restore the methods that were wrapped."""
        while self.removers:  # in reverse order, as wrappers may be nested
            self.removers.pop()()

    def _attach(self) -> None:
        decoder, prunes = self.context.decoder, bool(self.context.pruner.stages())
        if prunes and callable(getattr(self.model, "generate", None)):
            self._wrap(self.model, "generate", partial(guarded_generate, state=self.state))
        if prunes and hasattr(self.model, "_prepare_generation_config"):
            self._wrap(self.model, "_prepare_generation_config", guarded_settings)
        for name, kind in ENCODERS.items():
            if hasattr(self.entry, name):
                wrap = partial(recorded_encoder, kind=kind, tower=self.tower, state=self.state)
                self._wrap(self.entry, name, wrap)
        if hasattr(self.entry, "get_rope_index"):
            self._wrap(self.entry, "get_rope_index", guarded_numbering)
        if prunes and hasattr(self.model, "_prefill"):
            static = StaticPrefill(self.model, self.context.pruner)
            self._wrap(
                self.model, "_prefill", partial(static.wrap, running=lambda: self.state.ending)
            )
        if vocabulary_head(self.model):
            self._before(self.model, self._before_model, is_plain_decoding)
            self._after(self.model, self._after_model, is_plain_decoding)
        # entry and decoder may be one module; its hooks run in the order of these lines
        self._before(self.entry, self._before_entry, is_plain_entry)
        self._before(decoder, self._before_language_model, is_plain_step)
        self._after(decoder, self._after_language_model, has_no_pass)
        self.removers.append(self.layer_hooks.remove)
        if self.tower is not None:
            for index in sorted(self.blocks):
                self._before(self.tower.blocks[index], partial(self._before_block, index))
            module, site = self.tower.feature_site
            if site == "input":
                self._before(module, self._before_features)
            else:
                self._after(module, self._after_features)

    def _before(self, module: nn.Module, call: Hooked, idle: Idle | None = None) -> None:
        handle = module.register_forward_pre_hook(Hook(call, idle), with_kwargs=True)
        self.removers.append(handle.remove)

    def _after(self, module: nn.Module, call: Hooked, idle: Idle | None = None) -> None:
        """Put a hook behind a module; it runs behind errors, too, then with no output."""
        hook = Hook(call, idle)
        handle = module.register_forward_hook(hook, with_kwargs=True, always_call=True)
        self.removers.append(handle.remove)

    def _wrap(self, module: nn.Module, name: str, wrap: Callable[..., Any]) -> None:
        """Put a wrapper before a method until `detach`."""
        # only what stood on the instance itself is put back; a method of the class reappears
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

    def _before_block(self, index: int, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Record the input of a block of the vision tower."""
        if (call := self.state.encoder_call) is not None:
            hidden = args[0] if args else kwargs["hidden_states"]
            call.blocks[index] = hidden.flatten(0, -2), kwargs

    def _before_features(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if (call := self.state.encoder_call) is not None:
            states = args[0] if args else next(iter(kwargs.values()))
            call.features = states.flatten(0, -2)

    def _after_features(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> None:
        if output is not None and (call := self.state.encoder_call) is not None:
            call.features = output.flatten(0, -2)

    def _before_model(
        self, module: nn.Module, args: Args, kwargs: Kwargs
    ) -> tuple[Args, Kwargs] | None:
        """Take the labels out: they have a loss only when the remaining tokens are known."""
        named = self._named(module, args, kwargs)
        state = self.state
        state.kept_logits = named.get("logits_to_keep", 0)
        state.labels, state.prefill = None, None
        if named.get("labels") is None or not self.context.pruner.stages():
            return None
        if named.get("shift_labels") is not None:
            raise UserError("shift_labels cannot be used inside pruned(): pass labels alone.")
        state.labels = named["labels"]
        return (), {**named, "labels": None}

    def _after_model(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        """Add the loss, if labels were passed."""
        state = self.state
        labels, prefill = state.labels, state.prefill
        state.labels = state.prefill = None
        state.kept_logits = 0
        if labels is None or output is None:
            return None
        return with_loss(module, output, labels, self._named(module, args, kwargs), prefill)

    def _before_entry(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Find the visual tokens of this forward pass."""
        state = self.state
        state.chunk = state.prefill = None  # an earlier pass may have ended in an error
        named = self._named(module, args, kwargs)
        state.chunk = read_prompt(
            self.context.adapter,
            self.model,
            named,
            state.encoder_calls,
            self.session.id_of,
            self.session.questions_of,
        )
        state.encoder_calls = []
        layers = getattr(cache_of(named), "layers", ())
        pruned = any(isinstance(layer, PrunedLayer) and layer.stored for layer in layers)
        prunes = isinstance(state.chunk, Prompt) and bool(self.context.pruner.stages())
        if prunes:
            check_checkpointing(self.context.adapter.decoder(self.model))
        if pruned or prunes:
            check_prompt(named)

    def _before_language_model(
        self, module: nn.Module, args: Args, kwargs: Kwargs
    ) -> tuple[Args, Kwargs]:
        """Begin to follow a forward pass through the layers."""
        state = self.state
        chunk, state.chunk = state.chunk, None
        backend = backend_of(module)
        cache = cache_of(kwargs)
        embeds = kwargs.get("inputs_embeds")
        # without a chunk, the caller has called the language model itself, past the entry
        unread = chunk is None and self.context.adapter.needs_ids
        if unread and embeds is not None and embeds.shape[1] > 1:
            check_text(self.model, embeds, False)
        if embeds is None:
            embeds = args[0] if args else module.get_input_embeddings()(kwargs["input_ids"])  # type: ignore[operator]
        width = embeds.shape[1]
        if not isinstance(chunk, Prompt) or chunk.width != width:  # or of a pass that has failed
            chunk = chunk if chunk is not None and chunk.width == width else Chunk(width)
            past = None if chunk.past is None else SlotMask(chunk.past)
            continuation = Continuation(LayerInputs(self.context, backend, chunk.real, past))
            if cache is None or not cache.get_seq_length():
                text = [PromptLayout(embeds.shape[1], ())] * len(embeds)
                self.session.clear(list(chunk.layouts) or text)
            changed = continuation.language_model_inputs(cache, embeds)
            if changed is None:
                self.layer_hooks.attach(continuation)
                changed = {PASS: continuation}
            return args, {**kwargs, **changed}
        deepstack = None
        if kwargs.get("deepstack_visual_embeds") is not None:
            # the library adds these features at the original columns, which pruning changes
            deepstack = DeepStack(kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"])
            kwargs = {**kwargs, "visual_pos_masks": None, "deepstack_visual_embeds": None}
        for call in state.encoder_calls:  # images that the entry encoded by itself
            chunk.add(call)
        state.encoder_calls = []
        prefill = Prefill(
            self.context, chunk, backend, embeds, kwargs.get("position_ids"), cache, deepstack
        )
        self.layer_hooks.attach(prefill)
        return args, {**kwargs, PASS: prefill}

    def _before_layer(
        self, index: int, layer: nn.Module, args: Args, kwargs: Kwargs
    ) -> tuple[Args, Kwargs] | None:
        forward_pass = kwargs.pop(PASS)
        hidden = args[0] if args else kwargs["hidden_states"]
        hidden, kwargs = forward_pass.before_layer(index, layer, hidden, kwargs)
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def _after_language_model(
        self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any
    ) -> None:
        """Check the forward pass, and hand its results to the session."""
        prefill = kwargs[PASS]
        self.layer_hooks.release(prefill)
        if output is None or not isinstance(prefill, Prefill):
            return
        if len(prefill.counts.layer_tokens) < self.context.depth:
            raise UserError(
                "The language model ran without calling its layers' hooks, so nothing was pruned: "
                "is it compiled? Prune the model as it was before torch.compile."
            )
        prefill.finish()  # before anything that may raise: the cache must refuse wrong use
        state = self.state
        kept_logits, state.kept_logits = state.kept_logits, 0
        check_kept_logits(kept_logits, prefill)
        self.session.record(prefill)
        if state.labels is not None:
            state.prefill = prefill
