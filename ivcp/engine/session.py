"""`pruned(model, pruner)`: hooks go on, generation runs, hooks come off."""

from __future__ import annotations

import functools
import inspect
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import Anatomy
from ivcp.core.layout import PromptLayout
from ivcp.core.pruner import Pruner, check_pair
from ivcp.engine.prefill import Prefill
from ivcp.engine.steps import follow_cache

PIXELS = ("pixel_values", "pixel_values_videos")
OVERHEARD = ("get_image_features", "get_video_features", "get_rope_index")
BACKENDS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")


class Session:
    """What happened in the last prefill; `sample_ids` may be set before each batch.

    Attributes:
        sample_ids: Ids of the rows of the next batch; None uses a digest of each prompt.
        layouts: Layout of each sample's prompt.
        kept: For each sample, ascending indices into its own prompt (padding not counted; the new
            text alone, where it follows on a cache) of the visual tokens that survived.
        roles: For each sample, why: indices into `ivcp.core.selection.ROLES`, aligned with `kept`.
        layer_tokens: [layer][sample] tokens that each layer processed.
        cache_lengths: [layer][sample] tokens in the KV cache after prefill, padding not counted;
            empty without a cache.
        cache_bytes: Bytes of the KV cache after prefill, whole batch.
        selector_seconds: Time spent choosing tokens and cutting, whole batch.
    """

    def __init__(self) -> None:
        self.sample_ids: list[str] | None = None
        self.layouts: list[PromptLayout] = []
        self.layer_tokens: list[list[int]] = []
        self.cache_lengths: list[list[int]] = []
        self.cache_bytes = 0
        self._kept: list[tuple[Tensor, Tensor]] | None = []
        self._rows: Callable[[], list[tuple[Tensor, Tensor]]] = list
        self._clock: Callable[[], float] = float

    @property
    def kept(self) -> list[Tensor]:
        return [kept for kept, _ in self._results()]

    @property
    def roles(self) -> list[Tensor]:
        return [roles for _, roles in self._results()]

    @property
    def selector_seconds(self) -> float:
        return self._clock()

    def _results(self) -> list[tuple[Tensor, Tensor]]:
        if self._kept is None:
            self._kept = self._rows()
        return self._kept

    def record(self, prefill: Prefill) -> None:
        """Take over the results of a finished prefill; tensors are fetched when asked for."""
        self.layouts = [row.layout for row in prefill.rows]
        self.layer_tokens = prefill.layer_tokens
        self.cache_lengths, self.cache_bytes = prefill.cache_lengths(), prefill.cache_bytes()
        rows = prefill.rows
        self._rows = lambda: [row.kept() for row in rows]
        self._kept, self._clock = None, prefill.clock.seconds

    def id_of(self, row: int, rows: int, tokens: Tensor) -> str:
        """Id of a batch row; rows that `generate` repeats (beams) share their sample's id."""
        if self.sample_ids is None:
            return format(zlib.crc32(tokens.numpy().tobytes()), "08x")
        if rows % len(self.sample_ids):
            raise UserError(
                f"sample_ids must name each sample of the batch; got {len(self.sample_ids)} ids "
                f"for {rows} rows."
            )
        return self.sample_ids[row * len(self.sample_ids) // rows]


@contextmanager
def open_session(model: nn.Module, family: Anatomy, pruner: Pruner) -> Iterator[Session]:
    """Prune every forward pass with visual tokens that runs inside the block.

    Args:
        model: An unmodified Hugging Face model that `family` knows.
        family: How to look inside it.
        pruner: The method.

    Raises:
        UserError: The model or its attention backend cannot serve the pruner.
    """
    decoder = family.decoder(model)
    layers: list[nn.Module] = list(decoder.layers)  # type: ignore[arg-type]
    check_pair(pruner, family.provides, type(model).__name__, len(layers))
    backend = str(decoder.config._attn_implementation)  # type: ignore[union-attr]
    if backend not in BACKENDS:
        raise UserError(
            f"Pruning supports the attention backends {', '.join(BACKENDS)}; the model uses "
            f"{backend!r}. Load it with attn_implementation='sdpa'."
        )
    if "sliding_attention" in (getattr(decoder.config, "layer_types", None) or ()):
        raise UserError("Pruning does not support models with sliding-window layers.")
    session, hooks = Session(), Hooks(model, family, pruner, backend)
    hooks.session = session
    handles: list[Any] = []
    entry = family.entry(model)
    overheard = [name for name in OVERHEARD if hasattr(entry, name)]
    try:
        for name in overheard:
            setattr(entry, name, hooks.overhear(getattr(entry, name)))
        handles.append(entry.register_forward_pre_hook(hooks.enter, with_kwargs=True))
        handles.append(decoder.register_forward_pre_hook(hooks.place, with_kwargs=True))
        for index, layer in enumerate(layers):
            handles.append(
                layer.register_forward_pre_hook(hooks.before_layer(index), with_kwargs=True)
            )
        handles.append(decoder.register_forward_hook(hooks.leave))
        yield session
    finally:
        for handle in handles:
            handle.remove()
        for name in overheard:
            vars(entry).pop(name, None)


class Hooks:
    """The hooks of one session. A forward pass is a prefill if visual tokens enter with it."""

    session: Session

    def __init__(self, model: nn.Module, family: Anatomy, pruner: Pruner, backend: str) -> None:
        self.model, self.family, self.pruner, self.backend = model, family, pruner, backend
        self.prefill: Prefill | None = None
        self.encoded: dict[str, Any] = {}
        self.overhearing = False
        self.chunk_valid: Tensor | None = None
        self.masks: dict[Any, Tensor | None] = {}

    def overhear(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, with a note of its arguments: `generate` hands them to no forward pass."""
        signature = inspect.signature(method)

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.overhearing:  # some encode videos as images
                return method(*args, **kwargs)
            self.encoded.update(signature.bind_partial(*args, **kwargs).arguments)
            self.overhearing = True
            try:
                return method(*args, **kwargs)
            except StopIteration as error:
                raise UserError(
                    "The prompts hold more images than the inputs: give one image for each "
                    "placeholder."
                ) from error
            finally:
                self.overhearing = False

        return wrapped

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the visual tokens of this forward pass."""
        self.prefill, self.chunk_valid, self.masks = None, None, {}
        if args:
            kwargs = dict(inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments)
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        if ids is None:
            if embeds is not None and embeds.shape[1] == 1:
                return  # a decoding step
            if embeds is None or self.family.needs_ids:
                raise UserError(
                    "pruned() finds visual tokens by their ids: pass input_ids, not inputs_embeds."
                )
            ids = torch.full(embeds.shape[:2], -1)
        if ids.shape[1] == 1:
            return  # a decoding step
        given = kwargs.get("attention_mask")
        valid = None
        if isinstance(given, Tensor) and given.ndim == 2:
            host = given[:, -ids.shape[1] :].bool().cpu()
            valid = None if host.all() else host
        tokens = ids.cpu()
        rows = [row if valid is None else row[valid[n]] for n, row in enumerate(tokens)]
        if kwargs.get("pixel_values_videos") is not None and not self.family.takes_videos:
            raise UserError(
                f"{type(self.model).__name__} takes images only, but pixel_values_videos were "
                "given: pass single frames as images."
            )
        inputs = kwargs
        if kwargs.get("mm_encoder_outputs"):  # `generate` has encoded the images before
            inputs = {**self.encoded, **{k: v for k, v in kwargs.items() if v is not None}}
        layouts = self.family.layouts(self.model, rows, _unpadded(kwargs, valid), inputs)
        if not any(layout.images for layout in layouts):
            self.chunk_valid = valid
            return
        shown = kwargs.get("mm_encoder_outputs") or any(kwargs.get(n) is not None for n in PIXELS)
        if embeds is None and not shown:
            raise UserError(
                "The prompt holds image tokens, but the inputs hold no image: pass what the "
                "processor made of it, or take the tokens out."
            )
        names = [
            functools.partial(self.session.id_of, number, len(rows), row)
            for number, row in enumerate(rows)
        ]
        mask = None if valid is None else given
        self.prefill = Prefill(self.family, self.pruner, self.backend, layouts, names, mask, valid)

    def place(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Note with what the language model is called."""
        return None if self.prefill is None else (args, self.prefill.begin(module, kwargs))

    def before_layer(self, index: int) -> Callable[..., Any]:
        """The hook of one decoder layer."""

        def hook(
            layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            hidden = args[0] if args else kwargs["hidden_states"]
            if self.prefill is None:
                changed = follow_cache(
                    index, hidden, kwargs, self.backend, self.chunk_valid, self.masks, self._decoder
                )
                return None if changed is None else (args, changed)
            hidden, kwargs = self.prefill.before_layer(index, layer, hidden, kwargs)
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    @property
    def _decoder(self) -> nn.Module:
        return self.family.decoder(self.model)

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Hand the results to the session."""
        if self.prefill is not None:
            self.session.record(self.prefill)
            self.prefill, self.encoded = None, {}


def _unpadded(kwargs: dict[str, Any], valid: Tensor | None) -> list[Tensor] | None:
    """(A, S) position ids of each sample on the CPU, padding removed; None if none were given."""
    given = kwargs.get("position_ids")
    if given is None:
        return None
    positions = (given if given.ndim == 3 else given[None])[-3:].cpu()  # (A, B, S)
    return [
        row if valid is None else row[:, valid[number]]
        for number, row in enumerate(positions.unbind(1))
    ]
