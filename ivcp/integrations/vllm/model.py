"""The model's part: choose among the embeddings, and put the kept tokens at their positions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import vllm
from torch import Tensor
from vllm.config import CUDAGraphMode

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.plain_view import PlainView
from ivcp.core.pruner import Pruner
from ivcp.core.rope import default_frequencies
from ivcp.core.selection import Selection
from ivcp.core.tower import tower_block
from ivcp.core.transfer import to_device
from ivcp.core.view import TOWER_BLOCK_SIGNALS, TOWER_SIGNALS
from ivcp.integrations.vllm.first_pass import FirstPass
from ivcp.integrations.vllm.item import FIELD, Item, prompt_positions
from ivcp.integrations.vllm.settings import pruner_of
from ivcp.integrations.vllm.tower import CapturedQwen, TowerRun, tower_view
from ivcp.models import find_family

TESTED = "0.32."
AXES = 3
"""Channels behind an embedding: by how much its token's position ids exceed those of its slot."""


class PrunedVL:
    """Put before a Qwen-VL model of vLLM as a base class.

    The scheduler has as many slots as tokens remain, before it is known which ones these are. So a
    slot gets the position of the image's first token, the embedding carries the distance from
    there in three more channels, and `forward` adds it: prefix caching, chunks of the prompt and
    decoding need not know. Distances are at most 255, which bfloat16 holds exactly.
    """

    supports_encoder_cudagraph: ClassVar[bool] = False  # its graphs go past `embed_multimodal`
    tower_kind: ClassVar[Any] = CapturedQwen
    config: Any
    language_model: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        self.check_engine(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self._moved: tuple[Tensor, Tensor] | None = None
        self.selections: list[tuple[Item, Selection]] | None = None  # noted where it is a list

    @classmethod
    def check_engine(cls, vllm_config: Any) -> None:
        """Refuse an engine in which kept tokens could lose their places.

        Raises:
            UserError: A setting was not tested, or is known not to work.
        """
        if not vllm.__version__.startswith(TESTED):
            raise UserError(
                f"Pruning in vLLM was tested with {TESTED}x; {vllm.__version__} is installed: "
                f'install it with pip install "vllm=={TESTED}*".'
            )
        parallel, compilation = vllm_config.parallel_config, vllm_config.compilation_config
        if parallel.pipeline_parallel_size > 1:
            raise UserError(
                "Pruned prompts cannot be spread over a pipeline, whose later parts do not see the "
                "embeddings: use tensor_parallel_size."
            )
        if vllm_config.speculative_config is not None:
            raise UserError(
                "Speculative decoding was not tested with pruned prompts: leave it out."
            )
        multimodal = vllm_config.model_config.multimodal_config
        if compilation.compile_mm_encoder or multimodal.mm_encoder_tp_mode == "data":
            raise UserError(
                "Methods read the vision tower, which must run as it is: leave compile_mm_encoder "
                "and mm_encoder_tp_mode=data out."
            )
        if compilation.cudagraph_mode == CUDAGraphMode.FULL:
            raise UserError(
                "Full CUDA graphs of prefills would keep the positions of an earlier prompt: leave "
                "cudagraph_mode as it is, or use PIECEWISE."
            )

    @property
    def _text_config(self) -> Any:
        return self.config.get_text_config()

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[Any]
    ) -> tuple[Tensor, int]:
        """The family's positions, or those of a prompt with pruned images."""
        features = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        items = [
            Item.read(feature.data[FIELD].data) for feature in features if FIELD in feature.data
        ]
        if not any(item.pruned for item in items):
            return self.unpruned_positions(input_tokens, mm_features)
        offsets = [feature.mm_position.offset for feature in features]
        images = [
            (offset, item.kept, item.advance) for offset, item in zip(offsets, items, strict=True)
        ]
        return prompt_positions(len(input_tokens), images)

    def unpruned_positions(self, tokens: list[int], features: list[Any]) -> tuple[Tensor, int]:
        """Positions of a prompt whose images are complete."""
        return super().get_mrope_input_positions(tokens, features)  # type: ignore[misc]

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """(K, C + 3) embeddings of each image's kept tokens, and the distances of their places."""
        items = [Item.read(data) for data in kwargs.pop(FIELD, ())]
        run = self._tower_run(items)
        with run.recording() if run else nullcontext():
            embeddings = super().embed_multimodal(**kwargs)  # type: ignore[misc]
        if not items:  # videos are not pruned
            return tuple(_with_places(states, None) for states in embeddings or ())
        views: list[dict[str, Any]] = [{} for _ in items]
        if run:
            signals = run.signals(kwargs["image_grid_thw"])
            views = [tower_view(signals, number) for number in range(len(items))]
        parts = zip(embeddings, items, views, strict=True)
        return tuple(self._pruned(*part) for part in parts)

    def _pruner(self, item: Item) -> Pruner | None:
        layers = self._text_config.num_hidden_layers
        return pruner_of(item.settings, self.config.model_type, layers)

    def _tower_run(self, items: Sequence[Item]) -> TowerRun | None:
        """What has to be recorded of the vision tower, if a method of the batch reads it."""
        stages = [stage for item in items if (p := self._pruner(item)) for stage in p.stages()]
        if not any(stage.needs & TOWER_SIGNALS for stage in stages):
            return None
        tower = self.tower_kind(self)
        count, blocks = len(tower.blocks), set[int]()
        for stage in stages:
            if stage.needs & TOWER_BLOCK_SIGNALS:
                name = type(self).__name__
                blocks |= {tower_block(n, count, "the method", name) for n in stage.tower_layers}
        return TowerRun(tower, sorted(blocks))

    @staticmethod
    def encoded(distances: Tensor) -> Tensor:
        """(3, K) distances as channels, each exact in bfloat16."""
        return distances

    @staticmethod
    def decoded(channels: Tensor) -> Tensor:
        """(3, K) distances of such channels."""
        return channels.contiguous()

    def _pruned(self, states: Tensor, item: Item, of_tower: dict[str, Any]) -> Tensor:
        """(K, C + 3) what remains of the (V, C) embeddings of an image."""
        text_config, pruner = self._text_config, self._pruner(item)
        if pruner is None:
            return _with_places(states, None)
        (stage,) = pruner.stages()
        layout, image = _layouts(self.config, item)
        hidden = states[:, : text_config.hidden_size]  # more channels are for DeepStack
        positions = to_device(item.positions, states.device)
        signals: dict[str, Any] = {
            "positions": positions,
            "inverse_frequencies": to_device(default_frequencies(text_config), states.device),
            "hidden": hidden,
            "embeddings": hidden,
            "text_embeddings": partial(self._text_embeddings, item, layout, image),
            **of_tower,
        }
        if stage.first_pass:
            ids = torch.tensor(item.prompt, device=states.device)
            embeds = self.language_model.embed_input_ids(ids)
            first_pass = FirstPass(self.language_model.model, stage.first_pass)
            signals |= first_pass.signals(
                embeds, states, layout, image, positions_of(layout, item), text_config.hidden_size
            )
        selection = pruner.select(
            PlainView(
                image,
                signals,
                sample_id=item.sample_id,
                layers=text_config.num_hidden_layers,
                text_tokens=len(layout.text),
                device=states.device,
            ),
            0,
        )
        if len(selection) != item.kept:
            raise RuntimeError(
                f"{pruner.name} kept {len(selection)} tokens where {item.kept} were planned"
            )
        if self.selections is not None:
            self.selections.append((item, selection))
        kept = _order(selection)
        remaining = states[kept]
        for rows, new in _new_states(selection):
            remaining[rows, : new.shape[1]] = new.to(remaining)
        return _with_places(remaining, self.encoded((positions - item.position)[:, kept]))

    def _text_embeddings(self, item: Item, layout: PromptLayout, image: ImageLayout) -> Tensor:
        """(T, C) embeddings of the text queries."""
        queries = torch.tensor(item.prompt)[layout.text_queries(image)]
        table = self.language_model.model.embed_tokens.weight
        embedded: Tensor = self.language_model.embed_input_ids(to_device(queries, table.device))
        return embedded

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """The family's, and remember for `forward` which tokens move how far."""
        self._moved = None
        if multimodal_embeddings is not None and len(multimodal_embeddings):
            if is_multimodal is None:
                raise RuntimeError("vLLM did not say which tokens are visual")
            distances = torch.cat([states[:, -AXES:] for states in multimodal_embeddings])
            multimodal_embeddings = [states[:, :-AXES] for states in multimodal_embeddings]
            self._moved = is_multimodal, distances
        embeds: Tensor = super().embed_input_ids(  # type: ignore[misc]
            input_ids, multimodal_embeddings, is_multimodal=is_multimodal
        )
        return embeds

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The family's, with the kept tokens of images at their own positions."""
        if (moved := self._moved) is not None:
            self._moved = None
            mask, distances = moved
            shift = torch.zeros(AXES, len(mask), dtype=positions.dtype, device=positions.device)
            mask = mask.to(positions.device).expand(AXES, -1)
            # no index of True places, for which the host would wait
            shift = shift.masked_scatter(mask, self.decoded(distances.round().to(positions).T))
            positions = positions.clone()
            positions[:, : shift.shape[1]] += shift
        return super().forward(  # type: ignore[misc]
            input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs
        )


def positions_of(layout: PromptLayout, item: Item) -> Tensor:
    """(3, S) position ids of a prompt with one image and without pruning."""
    (image,) = layout.images
    before, behind = image.start, layout.length - image.stop
    text = torch.arange(before), torch.arange(behind) + before + item.advance
    return torch.cat([text[0].expand(3, -1), item.positions, text[1].expand(3, -1)], 1)


def _layouts(config: Any, item: Item) -> tuple[PromptLayout, ImageLayout]:
    """Layouts of the prompt, as far as the method reads it, and of the image."""
    if not item.prompt:
        image = ImageLayout((item.grid,))
        return PromptLayout(image.stop, (image,)), image
    model: Any = SimpleNamespace(config=config)
    merge = getattr(config.vision_config, "spatial_merge_size", 1)
    sizes = torch.tensor([[1, rows * merge, columns * merge] for rows, columns in item.grids])
    ids = torch.tensor(item.prompt)
    inputs = {"image_grid_thw": sizes, "mm_token_type_ids": ids == config.image_token_id}
    (layout,) = find_family(model).layouts(model, [ids], None, inputs)
    return layout, layout.images[item.number]


def _order(selection: Selection) -> Tensor:
    """(K,) indices into the image of all remaining tokens, in the order in which they stand."""
    if selection.merged_at is None:
        return selection.keep
    before, merged = selection.merged_before, selection.merged_at
    return torch.cat([merged[:before], selection.keep, merged[before:]])


def _new_states(selection: Selection) -> Sequence[tuple[Tensor | slice, Tensor]]:
    """(rows, states) of what a method has written anew, rows in the order of `_order`."""
    before, kept = selection.merged_before, len(selection.keep)
    written: list[tuple[Tensor | slice, Tensor]] = []
    if selection.states is not None:
        written.append((slice(before, before + kept), selection.states))
    if selection.merged_states is not None:
        written.append((slice(0, before), selection.merged_states[:before]))
        written.append((slice(before + kept, None), selection.merged_states[before:]))
    return written


def _with_places(states: Tensor, places: Tensor | None) -> Tensor:
    """(K, C + 3) states and (3, K) distances side by side; none for tokens that stay."""
    if places is None:
        return torch.cat([states, states.new_zeros(len(states), AXES)], 1)
    return torch.cat([states, places.T.to(states)], 1)
